#define _POSIX_C_SOURCE 200809L /* strdup, strndup */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "diffusion/compare.h"
#include "kernels/base/size.h"

enum { MOST_PICTURES = 10000, MOST_STEPS = 10000 };

/* The preset: what a user of the shipped model chooses among, in seconds. */
static const char *const preset_prompts[] = {"a glossy red apple, 3d"};
static const char PRESET_SAMPLERS[] = "euler,euler_a,heun,dpm++2m,unipc,deis";
static const char PRESET_SCHEDULERS[] = "default,karras";
static const float preset_steps[] = {4, 8, 20};
static const char PRESET_REFERENCE[] = "dpm++2m:200";

const char *compare_preset_prompt(size_t i) {
    return i < sizeof preset_prompts / sizeof *preset_prompts ? preset_prompts[i] : NULL;
}

static rung_status no_memory(rung_err *err) { return rung_fail(err, RUNG_ENOMEM, "compare: out of memory"); }

/* ---- lists ---- */

static rung_status no_twins(const char *option, char *const *words, size_t n, rung_err *err) {
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < i; j++)
            if (strcmp(words[i], words[j]) == 0)
                return rung_fail(err, RUNG_EARG, "--%s names %s twice", option, words[i]);
    return RUNG_OK;
}

/* "a,b,c" into *words [*n], all malloc'd; what `canonical` makes of each, NULL of an unknown one. */
static rung_status split(const char *option, const char *list, const char *(*canonical)(const char *), char ***words,
                         size_t *n, rung_err *err) {
    size_t most = 1;
    for (const char *s = list; *s; s++) most += *s == ',';
    *words = calloc(most, sizeof **words);
    if (!*words) return no_memory(err);
    for (const char *s = list; *n < most; s += strcspn(s, ",") + 1) {
        char *word = strndup(s, strcspn(s, ","));
        const char *name = word ? canonical(word) : NULL;
        if (!word) return no_memory(err);
        if (!name) {
            rung_fail(err, RUNG_EARG, "--%s is '%.100s': '%.40s' is none; rung --help lists them", option, list, word);
            free(word);
            return RUNG_EARG;
        }
        free(word);
        if (!((*words)[*n] = strdup(name))) return no_memory(err);
        ++*n;
    }
    return no_twins(option, *words, *n, err);
}

static const char *sampler_name(const char *word) {
    const rung_sampler_row *row = rung_sampler_find(word);
    return row ? row->name : NULL;
}

static const char *schedule_name(const char *word) {
    for (size_t i = 0; rung_schedule_name(i); i++)
        if (strcmp(rung_schedule_name(i), word) == 0) return rung_schedule_name(i);
    return NULL;
}

static rung_status plan_axes(compare *c, rung_err *err) {
    const compare_options *o = c->o;
    static const float models_own = 0; /* until compare_fit */
    RUNG_TRY(
        split("sampler", o->samplers ? o->samplers : PRESET_SAMPLERS, sampler_name, &c->samplers, &c->n_samplers, err));
    RUNG_TRY(split("scheduler", o->schedulers ? o->schedulers : PRESET_SCHEDULERS, schedule_name, &c->schedulers,
                   &c->n_schedulers, err));
    const float *steps = o->n_steps ? o->steps : preset_steps, *cfgs = o->n_cfgs ? o->cfgs : &models_own;
    c->n_steps = o->n_steps ? o->n_steps : sizeof preset_steps / sizeof *preset_steps;
    c->n_cfgs = o->n_cfgs ? o->n_cfgs : 1;
    c->steps = calloc(c->n_steps, sizeof *c->steps);
    c->cfgs = calloc(c->n_cfgs, sizeof *c->cfgs);
    if (!c->steps || !c->cfgs) return no_memory(err);
    for (size_t i = 0; i < c->n_steps; i++) c->steps[i] = (int)steps[i];
    for (size_t i = 0; i < c->n_cfgs; i++)
        c->cfgs[i] = o->n_cfgs ? fmaxf(cfgs[i], 1) : cfgs[i]; /* less is no guidance */
    for (size_t i = 0; i < c->n_steps; i++)
        for (size_t j = 0; j < i; j++)
            if (c->steps[i] == c->steps[j]) return rung_fail(err, RUNG_EARG, "--steps names %d twice", c->steps[i]);
    for (size_t i = 0; i < c->n_cfgs; i++)
        for (size_t j = 0; j < i; j++)
            if (c->cfgs[i] == c->cfgs[j])
                return rung_fail(err, RUNG_EARG, "--cfg-scale names %g twice (1 and less are one: no guidance)",
                                 (double)c->cfgs[i]);
    return RUNG_OK;
}

static rung_status plan_reference(compare *c, const char *text, rung_err *err) {
    const char *colon = strrchr(text, ':');
    char *end = NULL, *name = colon ? strndup(text, (size_t)(colon - text)) : NULL;
    const long steps = colon ? strtol(colon + 1, &end, 10) : 0;
    const rung_sampler_row *row = name ? rung_sampler_find(name) : NULL;
    free(name);
    if (!row || *end || steps < 2 || steps > MOST_STEPS)
        return rung_fail(err, RUNG_EARG, "--reference is '%.100s', wanted SAMPLER:STEPS with 2 to %d steps, like %s",
                         text, MOST_STEPS, PRESET_REFERENCE);
    if (!row->ode)
        return rung_fail(err, RUNG_EARG, "--reference is '%.100s': %s %s", text, row->name,
                         row->stochastic ? "adds noise and converges to no one picture"
                                         : "does not converge to the equation that the model was trained for");
    c->reference = row->name;
    c->reference_steps = (int)steps;
    return RUNG_OK;
}

/* ---- subjects ---- */

static rung_status add_line(compare *c, const prompt_line *line, rung_err *err) {
    const rung_request *r = &line->request;
    const size_t n = line->pictures > 1 ? line->pictures : c->o->n_seeds;
    if (r->sampler || r->scheduler || r->steps || r->cfg_scale > 0)
        return rung_fail(err, RUNG_EARG, "line %zu sets a sampler, schedule, steps or guidance: they are compared",
                         line->line);
    if (n > MOST_PICTURES || c->n_subjects + n > MOST_PICTURES || r->seed > INT64_MAX - n)
        return rung_fail(err, RUNG_EARG, "line %zu: %zu pictures from seed %llu, wanted up to %d and seeds below 2^63",
                         line->line, n, (unsigned long long)r->seed, MOST_PICTURES);
    rung_request *grown = realloc(c->subjects, (c->n_subjects + n) * sizeof *grown);
    if (!grown) return no_memory(err);
    c->subjects = grown;
    for (size_t k = 0; k < n; k++) {
        grown[c->n_subjects] = *r;
        grown[c->n_subjects++].seed += k;
    }
    return RUNG_OK;
}

/* ---- cells ---- */

static compare_cell *group_at(const compare *c, size_t subject, size_t cfg) {
    return &c->cells[(subject * c->n_cfgs + cfg) * c->each];
}

const compare_cell *compare_reference(const compare *c, size_t subject, size_t cfg, size_t which) {
    return group_at(c, subject, cfg) + which;
}

const compare_cell *compare_at(const compare *c, size_t subject, size_t cfg, size_t row, size_t step) {
    return group_at(c, subject, cfg) + COMPARE_REFERENCES + row * c->n_steps + step;
}

bool compare_is_reference(const compare *c, const compare_cell *p) {
    return (size_t)(p - c->cells) % c->each < COMPARE_REFERENCES;
}

static void fill_group(compare *c, size_t subject, size_t cfg) {
    compare_cell *p = group_at(c, subject, cfg);
    const rung_request *r = &c->subjects[subject];
    for (size_t i = 0; i < c->each; i++) p[i] = (compare_cell){.subject = subject, .cfg_scale = c->cfgs[cfg]};
    for (size_t i = 0; i < COMPARE_REFERENCES; i++, p++) {
        p->sampler = c->reference;
        p->steps = i ? (c->reference_steps + 1) / 2 : c->reference_steps;
        p->ode = true;
    }
    for (size_t row = 0; row < c->n_rows; row++) {
        const rung_sampler_row *s = rung_sampler_find(c->samplers[row / c->n_schedulers]);
        const char *schedule = c->schedulers[row % c->n_schedulers];
        for (size_t n = 0; n < c->n_steps; n++, p++) {
            p->sampler = s->name;
            p->scheduler = strcmp(schedule, "default") == 0 ? NULL : schedule;
            p->steps = c->steps[n];
            p->ode = s->ode && !(r->eta_set && r->eta > 0);
        }
    }
}

static rung_status plan_cells(compare *c, rung_err *err) {
    bool fits = size_mul(c->n_samplers, c->n_schedulers, &c->n_rows) && c->n_rows <= MOST_PICTURES &&
                size_mul(c->n_rows, c->n_steps, &c->each) && c->each <= MOST_PICTURES;
    c->each += COMPARE_REFERENCES;
    fits = fits && size_mul(c->n_subjects, c->n_cfgs, &c->count) && size_mul(c->count, c->each, &c->count) &&
           c->count <= MOST_PICTURES;
    if (!fits) return rung_fail(err, RUNG_EARG, "compare: more than %d pictures", MOST_PICTURES);
    c->cells = calloc(c->count, sizeof *c->cells);
    if (!c->cells) return rung_fail(err, RUNG_ENOMEM, "compare: no memory for %zu pictures", c->count);
    for (size_t s = 0; s < c->n_subjects; s++)
        for (size_t g = 0; g < c->n_cfgs; g++) fill_group(c, s, g);
    return RUNG_OK;
}

/* A sampler that chooses its steps itself gives one picture, whatever --steps says. */
static bool is_repeated(const compare *c, const compare_cell *p) {
    return !compare_is_reference(c, p) && p->steps != c->steps[0] && rung_sampler_find(p->sampler)->calls == 0;
}

static rung_status fit_cell(compare *c, rung_engine *e, compare_cell *p, rung_err *err) {
    const rung_request r = compare_request(c, p);
    rung_err refusal = {0};
    char *text = NULL;
    rung_status st = rung_parameters(e, &r, &text, &refusal);
    free(text);
    if (!st && is_repeated(c, p))
        st = rung_fail(&refusal, RUNG_EARG, "%s chooses its steps itself: drawn once", p->sampler);
    if (!st) {
        c->drawn++;
        c->work += compare_work(p);
        return RUNG_OK;
    }
    if (compare_is_reference(c, p) || st == RUNG_ENOMEM) return rung_fail(err, st, "%s", refusal.msg);
    p->refusal = strdup(refusal.msg);
    return p->refusal ? RUNG_OK : no_memory(err);
}

double compare_work(const compare_cell *p) {
    const int calls = rung_sampler_find(p->sampler)->calls;
    return (double)p->steps * (calls ? calls : 3);
}

rung_status compare_fit(compare *c, rung_engine *e, rung_err *err) {
    const float own = rung_describe(e)->cfg_scale;
    for (size_t i = 0; i < c->n_cfgs; i++)
        if (c->cfgs[i] == 0) c->cfgs[i] = own;
    for (compare_cell *p = c->cells; p < c->cells + c->count; p++) {
        if (p->cfg_scale == 0) p->cfg_scale = own;
        RUNG_TRY(fit_cell(c, e, p, err));
    }
    if (c->drawn > c->n_subjects * c->n_cfgs * COMPARE_REFERENCES) return RUNG_OK;
    return rung_fail(err, RUNG_EARG, "nothing to compare: %s", compare_at(c, 0, 0, 0, 0)->refusal);
}

rung_status compare_plan(compare *c, const compare_options *o, rung_err *err) {
    *c = (compare){.o = o};
    if (!*o->folder) return rung_fail(err, RUNG_EARG, "--output is empty, wanted a folder");
    RUNG_TRY(plan_axes(c, err));
    RUNG_TRY(plan_reference(c, o->reference ? o->reference : PRESET_REFERENCE, err));
    for (size_t i = 0; i < o->file->count; i++) RUNG_TRY(add_line(c, &o->file->lines[i], err));
    if (!c->n_subjects) return rung_fail(err, RUNG_EARG, "no prompt to compare with");
    return plan_cells(c, err);
}

static void free_words(char **words, size_t n) {
    for (size_t i = 0; words && i < n; i++) free(words[i]);
    free(words);
}

void compare_free(compare *c) {
    for (size_t i = 0; c->cells && i < c->count; i++) {
        free(c->cells[i].refusal);
        free(c->cells[i].file);
        free(c->cells[i].command);
    }
    free(c->cells);
    free_words(c->samplers, c->n_samplers);
    free_words(c->schedulers, c->n_schedulers);
    free(c->steps);
    free(c->cfgs);
    free(c->subjects);
    *c = (compare){0};
}
