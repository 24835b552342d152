#include "samplers/sampler.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/size.h"
#include "samplers/sampler_table.h"

enum { MAX_STEPS = 10000 };

/* A comma-separated list in a fixed buffer. */
typedef struct {
    char text[380];
    size_t used;
} name_list;

static void add_name(name_list *l, const char *name) {
    const int n = snprintf(l->text + l->used, sizeof l->text - l->used, "%s%s", l->used ? ", " : "", name);
    if (n > 0) l->used = size_min(l->used + (size_t)n, sizeof l->text - 1);
}

static const char *all_names(name_list *l, bool flow) {
    *l = (name_list){0};
    for (size_t i = 0; i < sampler_table_count(); i++) {
        const sampler_entry *e = sampler_table_at(i);
        if (!flow || (e->flow && strcmp(e->flow, e->row.name) == 0)) add_name(l, e->row.name);
    }
    return l->text;
}

static rung_status check_params(const rung_sampler_params *p, rung_err *err) {
    size_t total;
    if (p->n_sigmas == 0 && (p->steps < 1 || p->steps > MAX_STEPS))
        return rung_fail(err, RUNG_EARG, "steps is %d, wanted 1 to %d", p->steps, MAX_STEPS);
    if (p->n_sigmas > MAX_STEPS || (p->n_sigmas > 0 && !p->sigmas))
        return rung_fail(err, RUNG_EARG, "%zu sigmas, wanted 1 to %d", p->n_sigmas, MAX_STEPS);
    if (p->sigmas && p->n_sigmas == 0) return rung_fail(err, RUNG_EARG, "the list of sigmas is empty");
    if (!isnan(p->eta) && !(p->eta >= 0 && p->eta <= 10))
        return rung_fail(err, RUNG_EARG, "eta is %g, wanted 0 to 10", (double)p->eta);
    if (p->batch == 0 || p->n == 0 || !size_mul(p->batch, p->n, &total) || total > SIZE_MAX / 64)
        return rung_fail(err, RUNG_EARG, "%zu pictures of %zu elements", p->batch, p->n);
    return RUNG_OK;
}

/* The row that the caller or the model asks for. */
static rung_status choose(const sampler_entry **out, const rung_sampler_params *p, const sched_summary *model,
                          rung_err *err) {
    name_list l;
    if (!p->sampler && !model->class_name[0])
        return rung_fail(err, RUNG_EARG, "no sampler is named, and the model names no scheduler");
    const sampler_entry *e = p->sampler ? sampler_table_find(p->sampler) : sampler_table_of_class(model->class_name);
    if (!e && p->sampler)
        return rung_fail(err, RUNG_EARG, "no sampler \"%.40s\"; there are %s", p->sampler, all_names(&l, false));
    if (!e)
        return rung_fail(err, RUNG_EARG, "the model's scheduler %s is not known; name a sampler: %s", model->class_name,
                         all_names(&l, false));
    if (model->flow && !e->flow)
        return rung_fail(err, RUNG_EARG, "sampler %s has no form for flow-matching models; those that have: %s",
                         e->row.name, all_names(&l, true));
    if (p->config_json && !model->flow && e->predictions == PREDICTION_BIT(PREDICTS_FLOW))
        return rung_fail(err, RUNG_EARG, "sampler %s is for flow-matching models, which this one is not", e->row.name);
    *out = model->flow ? sampler_table_find(e->flow) : e;
    return RUNG_OK;
}

static rung_status choose_schedule(rung_sampler *s, const rung_sampler_params *p, rung_err *err) {
    name_list l = {0};
    s->schedule = SCHEDULE_DEFAULT;
    if (p->sigmas) s->schedule = SCHEDULE_CUSTOM;
    if (p->schedule && !p->sigmas) s->schedule = schedule_find(p->schedule);
    if (s->schedule == SCHEDULES) {
        for (int i = 0; i < SCHEDULE_CUSTOM; i++) add_name(&l, schedule_name((schedule_id)i));
        return rung_fail(err, RUNG_EARG, "no schedule \"%.40s\"; there are %s", p->schedule, l.text);
    }
    if (s->entry->row.schedules & SCHEDULE_BIT(s->schedule)) return RUNG_OK;
    for (int i = 0; i < SCHEDULES; i++) {
        if (s->entry->row.schedules & SCHEDULE_BIT(i)) add_name(&l, schedule_name((schedule_id)i));
    }
    return rung_fail(err, RUNG_EARG, "sampler %s cannot take schedule %s: %s has no such option; it takes %s",
                     s->entry->row.name, schedule_name(s->schedule), sched_class_get(s->entry->cls)->name, l.text);
}

/* A schedule that the class has a flag for becomes that flag. k-diffusion's samplers take their schedules as lists. */
static void apply_schedule(rung_sampler *s) {
    sched_config *c = &s->c;
    if (s->schedule == SCHEDULE_DEFAULT) return;
    c->use_karras_sigmas = s->schedule == SCHEDULE_KARRAS;
    c->use_exponential_sigmas = s->schedule == SCHEDULE_EXPONENTIAL;
    c->use_beta_sigmas = s->schedule == SCHEDULE_BETA;
    c->use_lu_lambdas = s->schedule == SCHEDULE_LU;
    const bool flagged = SCHEDULE_BIT(s->schedule) & (SCHEDULES_FLAGGED | SCHEDULE_BIT(SCHEDULE_LU));
    if (flagged && s->entry->cls != CLASS_K) s->schedule = SCHEDULE_DEFAULT;
}

static const char *prediction_name(prediction p) {
    static const char *const names[] = {"epsilon", "sample", "v_prediction", "flow_prediction"};
    return names[p];
}

static rung_status check_config(const rung_sampler *s, rung_err *err) {
    if (!(s->entry->predictions & PREDICTION_BIT(s->c.prediction)))
        return rung_fail(err, RUNG_EARG, "sampler %s cannot sample a model that predicts %s", s->entry->row.name,
                         prediction_name(s->c.prediction));
    if (s->entry->one_picture && s->batch > 1)
        return rung_fail(err, RUNG_EARG, "sampler %s adapts its steps to the picture: one at a time, not %zu",
                         s->entry->row.name, s->batch);
    return RUNG_OK;
}

static rung_status allocate(rung_sampler *s, rung_err *err) {
    float **all[] = {&s->pred, &s->uncond, &s->scaled, &s->noise};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (!(*all[i] = sampler_array(s, err))) return RUNG_ENOMEM;
    }
    if (s->c.thresholding && !(s->sorted = sampler_floats(s, s->n, err))) return RUNG_ENOMEM;
    return RUNG_OK;
}

/* Betas that make no sense (all 0, past 1) show here. */
static rung_status check_table(const rung_sampler *s, rung_err *err) {
    bool fine = s->table.n >= 1 && isfinite(s->init_sigma) && s->init_sigma > 0;
    for (size_t i = 0; i < s->table.n; i++)
        fine = fine && isfinite(s->table.t[i]) && isfinite(s->table.sigma[i]) && s->table.sigma[i] >= 0;
    if (fine) return RUNG_OK;
    return rung_fail(err, RUNG_EFORMAT, "scheduler_config.json: sampler %s gets no finite noise schedule from it",
                     s->entry->row.name);
}

static rung_status open_entry(rung_sampler *s, const rung_sampler_params *p, rung_err *err) {
    RUNG_TRY(sched_config_read(&s->c, s->entry->cls, p->config_json, err));
    if (p->sampler && s->entry->by_name) s->entry->by_name(&s->c);
    RUNG_TRY(choose_schedule(s, p, err));
    apply_schedule(s);
    RUNG_TRY(check_config(s, err));
    const bool one_by_one = s->c.thresholding || s->c.clip_sample || s->c.clip_denoised; /* numbers, not arrays */
    s->be = s->entry->sums && !one_by_one ? p->be : NULL;
    RUNG_TRY(allocate(s, err));
    RUNG_TRY(s->entry->method->open(s, err));
    s->custom = NULL;
    return check_table(s, err);
}

rung_status rung_sampler_open(rung_sampler **out, const rung_sampler_params *p, rung_err *err) {
    sched_summary model;
    const sampler_entry *entry = NULL;
    *out = NULL;
    RUNG_TRY(check_params(p, err));
    RUNG_TRY(sched_config_peek(&model, p->config_json, err));
    RUNG_TRY(choose(&entry, p, &model, err));
    rung_sampler *s = calloc(1, sizeof *s);
    if (!s) return rung_fail(err, RUNG_ENOMEM, "sampler %s", entry->row.name);
    s->entry = entry;
    s->custom = p->sigmas;
    s->n_custom = p->n_sigmas;
    s->steps = p->n_sigmas ? p->n_sigmas : (size_t)p->steps;
    s->eta = p->eta;
    s->batch = p->batch;
    s->n = p->n;
    s->total = p->batch * p->n;
    s->tokens = p->image_tokens;
    const rung_status st = open_entry(s, p, err);
    if (st) {
        rung_sampler_close(&s);
        return st;
    }
    *out = s;
    return RUNG_OK;
}

void rung_sampler_close(rung_sampler **s) {
    if (!s || !*s) return;
    for (int i = 0; i < (*s)->n_arrays; i++) (*s)->be->ops->mem_free((*s)->be, (*s)->arrays[i]);
    for (int i = 0; i < (*s)->n_blocks; i++) free((*s)->blocks[i]);
    train_noise_close(&(*s)->train);
    sched_config_free(&(*s)->c);
    free(*s);
    *s = NULL;
}

struct rung_backend *rung_sampler_memory(const rung_sampler *s) {
    return s->be;
}

int rung_sampler_steps(const rung_sampler *s) { return (int)s->table.n; }

float rung_sampler_timestep(const rung_sampler *s, int i) {
    return i >= 0 && (size_t)i < s->table.n ? (float)s->table.t[i] : 0;
}

float rung_sampler_sigma(const rung_sampler *s, int i) {
    return i >= 0 && (size_t)i <= s->table.n ? s->table.sigma[i] : 0;
}

float rung_sampler_init_sigma(const rung_sampler *s) { return s->init_sigma; }

size_t rung_sampler_calls(const rung_sampler *s) { return s->calls; }

const rung_sampler_row *rung_sampler_describe(const rung_sampler *s) { return &s->entry->row; }

rung_status rung_sampler_step(rung_sampler *s, int i, float *x, rung_denoise_fn *denoise, void *denoise_user,
                              rung_noise_fn *noise, void *noise_user, rung_err *err) {
    if (i != s->next || (size_t)i >= s->table.n)
        return rung_fail(err, RUNG_EARG, "sampler %s: step %d, wanted step %d of %zu", s->entry->row.name, i, s->next,
                         s->table.n);
    const sampler_io io = {denoise, denoise_user, noise, noise_user, err};
    const rung_status st = s->entry->method->step(s, i, x, &io);
    if (!st) s->next++;
    return st;
}

size_t rung_sampler_count(void) { return sampler_table_count(); }

const rung_sampler_row *rung_sampler_get(size_t i) {
    const sampler_entry *e = sampler_table_at(i);
    return e ? &e->row : NULL;
}

const rung_sampler_row *rung_sampler_find(const char *name) {
    const sampler_entry *e = sampler_table_find(name);
    return e ? &e->row : NULL;
}

const char *rung_schedule_name(size_t i) { return i < SCHEDULE_CUSTOM ? schedule_name((schedule_id)i) : NULL; }
