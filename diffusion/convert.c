#define _GNU_SOURCE /* asprintf, open_memstream */
#include "diffusion/convert.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "assets/safetensors.h"
#include "diffusion/calibrate.h"
#include "diffusion/convert_folder.h"
#include "diffusion/convert_tensor.h"
#include "diffusion/form_times.h"
#include "kernels/base/size.h"
#include "kernels/tiled_csl.h"

static const size_t SYNC_BYTES = (size_t)64 << 20; /* so much is done again, at most, after a power cut */

/* One call of rung_convert. */
struct job {
    const convert_options *o;
    const convert_type *type;
    rung_pool *pool;
    rung_model *model;
    convert_folder folder;
    convert_plan plan;
    rung_safetensors *norms; /* of a calibration */
    convert_run run;
    rung_form_times times; /* of this machine, */
    bool measured;         /* when they were asked for */
    const char *what;      /* for the progress */
    size_t done, total;
};

static int ask(void *user) {
    const struct job *j = user;
    return j->o->progress ? j->o->progress(j->o->user, j->what, j->done, j->total) : 0;
}

static void begin(struct job *j, const char *what, size_t total) {
    j->what = what;
    j->done = 0;
    j->total = total;
}

static bool wants_form(const struct job *j, const char *form) { return j->o->form && strcmp(j->o->form, form) == 0; }

/* A form that was named, not one to be chosen. */
static bool names_form(const struct job *j) {
    return wants_form(j, "dense") || wants_form(j, "bitmap") || wants_form(j, "tiled-csl");
}

static bool is_pruned(const struct job *j, const convert_item *it) {
    return j->o->sparsity > 0 && it->role == WEIGHT_MATRIX;
}

/* ---- the request ---- */

static rung_status check_options(struct job *j, rung_err *err) {
    const convert_options *o = j->o;
    j->type = convert_type_find(o->type);
    if (!j->type) return rung_fail(err, RUNG_EARG, "type is '%s', wanted fp6, e2m3, fp5, f16, bf16 or f32", o->type);
    if (o->form && !wants_form(j, "auto") && !wants_form(j, "measure") && !names_form(j))
        return rung_fail(err, RUNG_EARG, "form is '%s', wanted auto, measure, dense, bitmap or tiled-csl", o->form);
    if (!(o->sparsity >= 0 && o->sparsity < 1))
        return rung_fail(err, RUNG_EARG, "sparsity is %g, wanted a number from 0 to less than 1", o->sparsity);
    if (o->prompts && o->sparsity == 0)
        return rung_fail(err, RUNG_EARG, "calibration decides what is pruned: it needs a sparsity above 0");
    return RUNG_OK;
}

/* Everything that the bytes of the result depend on, the model's files apart; malloc'd. */
static char *request_text(const convert_options *o) {
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);
    if (!f) return NULL;
    fprintf(f, "type %s, sparsity %a, form %s\n", o->type, o->sparsity, o->form ? o->form : "auto");
    for (size_t i = 0; i < o->n_keep; i++) fprintf(f, "keep %s\n", o->keep[i]);
    if (o->prompts) {
        const rung_request *r = o->defaults;
        fprintf(f, "%zu x %zu, steps %d, cfg %a, sampler %s, scheduler %s, seed %llu, rng %d, eta %a %d, skip %d %d\n",
                r->width, r->height, r->steps, (double)r->cfg_scale, r->sampler ? r->sampler : "",
                r->scheduler ? r->scheduler : "", (unsigned long long)r->seed, (int)r->rng, (double)r->eta, r->eta_set,
                r->clip_skip, r->literal);
        fprintf(f, "rescale %a, sigmas", (double)r->guidance_rescale);
        for (size_t i = 0; i < r->n_sigmas; i++) fprintf(f, " %a", (double)r->sigmas[i]);
        fprintf(f, "\nnegative %s\nprompts\n%s\n", r->negative_prompt ? r->negative_prompt : "", o->prompts);
    }
    if (fclose(f) == 0) return text;
    free(text);
    return NULL;
}

/* ---- pruning ---- */

static int on_calibration(void *user, int step, int steps) {
    (void)step, (void)steps;
    return ask(user);
}

static rung_status open_norms(struct job *j, rung_err *err) {
    char *path;
    const convert_options *o = j->o;
    RUNG_TRY(convert_folder_path(&j->folder, ".convert", "norms.safetensors", &path, err));
    rung_status st = RUNG_OK;
    if (access(path, R_OK) != 0) {
        rung_request defaults = *o->defaults;
        defaults.progress = on_calibration;
        defaults.progress_user = j;
        const calibrate_options c = {o->model, o->threads, o->prompts, &defaults};
        begin(j, "calibrate", 0);
        st = calibrate(path, &c, err);
    }
    if (!st) st = rung_safetensors_open(&j->norms, path, err);
    for (size_t i = 0; !st && i < j->plan.count; i++) {
        convert_item *it = &j->plan.items[i];
        const rung_tensor *t = rung_safetensors_find(j->norms, it->name);
        if (is_pruned(j, it) && t && rung_tensor_count(t) == rung_tensor_row(&it->source)) it->norm = t->data;
    }
    free(path);
    return st;
}

/* Each layer's share of the sparsity. A layer that no calibration picture went through (the way into the VAE) is pruned
 * by magnitude. */
static rung_status share_sparsity(struct job *j, rung_err *err) {
    const size_t n = j->plan.count;
    prune_curve *curves = calloc(n + 1, sizeof *curves);
    double *share = calloc(n + 1, sizeof *share);
    rung_status st = curves && share ? RUNG_OK : rung_fail(err, RUNG_ENOMEM, "convert: out of memory");
    begin(j, "measure", n);
    for (size_t i = 0; !st && i < n; i++, j->done++)
        if (is_pruned(j, &j->plan.items[i])) st = convert_measure(&j->run, &j->plan.items[i], &curves[i], err);
    if (!st) st = prune_share(share, curves, n, j->o->sparsity, err);
    for (size_t i = 0; !st && i < n; i++) j->plan.items[i].sparsity = share[i];
    free(curves);
    free(share);
    return st;
}

/* The form for it->held of rows x cols. */
static rung_form form_of(const struct job *j, const convert_item *it, size_t rows, size_t cols) {
    enum { MOST_HELD = 30, ALL = 100 }; /* in a hundred: where Tiled-CSL's kernel begins to gain */
    const size_t all = rows * cols;
    const bool fits = all / RUNG_CSL_UNIT < INT32_MAX; /* its offsets count to there */
    if (wants_form(j, "dense") || all == 0) return RUNG_FORM_DENSE;
    if (wants_form(j, "tiled-csl") && fits && it->held <= all / ALL * MOST_HELD + all % ALL * MOST_HELD / ALL)
        return RUNG_FORM_TILED_CSL;
    if (wants_form(j, "bitmap"))
        return rung_form_bytes(RUNG_FORM_BITMAP, it->to, rows, cols, it->held) <
                       rung_form_bytes(RUNG_FORM_DENSE, it->to, rows, cols, it->held)
                   ? RUNG_FORM_BITMAP
                   : RUNG_FORM_DENSE;
    return rung_form_choose(it->to, rows, cols, it->held, j->measured ? &j->times : NULL);
}

/* What is taken over stays in its form, unless another one is asked for. */
static rung_status keep_form(struct job *j, convert_item *it, size_t rows, size_t cols, rung_err *err) {
    const rung_tensor *s = &it->source;
    it->held = s->bitmap ? s->row_at[rows] : rows * cols;
    it->form = s->tiled ? RUNG_FORM_TILED_CSL : s->bitmap ? RUNG_FORM_BITMAP : RUNG_FORM_DENSE;
    if (names_form(j) && s->bitmap) it->form = form_of(j, it, rows, cols);
    if (it->form == RUNG_FORM_DENSE) it->held = rows * cols;
    return it->form == RUNG_FORM_TILED_CSL ? convert_count(&j->run, it, err) : RUNG_OK;
}

/* Zeros may have been there before: a checkpoint that somebody else has pruned. Five-bit values have no sparse form:
 * there six bits are as small as seven would be. */
static rung_status choose_form(struct job *j, convert_item *it, rung_err *err) {
    const size_t cols = rung_tensor_row(&it->source), rows = it->source.ndim ? it->source.shape[0] : 1;
    const rung_dtype wanted = it->to;
    if (convert_is_copy(it)) return keep_form(j, it, rows, cols, err);
    const bool layer = it->role == WEIGHT_MATRIX || it->role == WEIGHT_TIME;
    const bool zeros = it->sparsity > 0 || it->source.bitmap || (layer && (names_form(j) || convert_has_zeros(it)));
    if (!zeros || it->to == RUNG_F32) return RUNG_OK;
    if (rung_dtype_bits(wanted) == 5) it->to = RUNG_F6_E2M3;
    RUNG_TRY(convert_count(&j->run, it, err));
    it->form = form_of(j, it, rows, cols);
    const size_t dense = rung_form_bytes(RUNG_FORM_DENSE, wanted, rows, cols, it->held);
    if (it->to != wanted && rung_form_bytes(it->form, it->to, rows, cols, it->held) >= dense)
        it->form = RUNG_FORM_DENSE;
    if (it->form == RUNG_FORM_TILED_CSL) return convert_count(&j->run, it, err);
    if (it->form == RUNG_FORM_DENSE) {
        it->to = wanted;
        it->held = rows * cols;
    }
    return RUNG_OK;
}

static rung_status choose_forms(struct job *j, rung_err *err) {
    if (wants_form(j, "measure")) {
        RUNG_TRY(form_times_measure(&j->times, j->pool, j->type->dtype, err));
        j->measured = true;
    }
    begin(j, "measure", j->plan.count);
    for (size_t i = 0; i < j->plan.count; i++, j->done++) {
        convert_item *it = &j->plan.items[i];
        RUNG_TRY(convert_fit(&j->run, it, err));
        RUNG_TRY(choose_form(j, it, err));
    }
    return RUNG_OK;
}

/* ---- writing ---- */

static const char *note_of(rung_dtype t) {
    return t == RUNG_F6_E3M2
               ? "msb-first: row-major bit stream, 8 codes = 6 bytes, most significant bit first; value = "
                 "E3M2(code) * NAME.scale[row]"
           : t == RUNG_F6_E2M3
               ? "msb-first: row-major bit stream, 8 codes = 6 bytes, most significant bit first; value = "
                 "E2M3(code) * NAME.scale[row]"
               : "msb-first: row-major bit stream, 8 codes = 5 bytes, most significant bit first; value = "
                 "E2M2(code) * NAME.scale[row]";
}

static rung_status write_meta(const struct job *j, st_writer *w, rung_err *err) {
    RUNG_TRY(st_writer_meta(w, "format", "pt", err));
    if (!j->type->few_bits) return RUNG_OK;
    RUNG_TRY(st_writer_meta(w, "rung.fp6", note_of(j->type->dtype), err));
    return st_writer_meta(w, "rung.fp6.rule", "docs/CONVERT.md", err);
}

/* Items [first, end) are written, but the journal does not know yet. */
static rung_status confirm(struct job *j, st_writer *w, size_t first, size_t end, rung_err *err) {
    RUNG_TRY(st_writer_sync(w, err));
    for (size_t i = first; i < end; i++) {
        if (j->plan.items[i].done) continue;
        j->plan.items[i].done = true;
        RUNG_TRY(convert_journal_add(&j->folder, &j->plan, i, err));
    }
    return RUNG_OK;
}

static rung_status write_items(struct job *j, st_writer *w, size_t first, size_t end, rung_err *err) {
    size_t waiting = 0, confirmed = first;
    rung_status st = RUNG_OK;
    for (size_t i = first; !st && i < end; i++, j->done++) {
        convert_item *it = &j->plan.items[i];
        if (it->done) continue;
        st = convert_write(&j->run, w, it, err);
        if (st == RUNG_ECANCELLED) { /* what is whole counts */
            RUNG_TRY(confirm(j, w, confirmed, i, err));
            return st;
        }
        waiting += convert_bytes(it);
        if (st || waiting < SYNC_BYTES) continue;
        st = confirm(j, w, confirmed, i + 1, err);
        confirmed = i + 1;
        waiting = 0;
    }
    return st ? st : confirm(j, w, confirmed, end, err);
}

static const char *weights_name(const char *part) {
    return strncmp(part, "text_encoder", strlen("text_encoder")) == 0 ? "model.safetensors"
                                                                      : "diffusion_pytorch_model.safetensors";
}

static rung_status write_file(struct job *j, const char *part, size_t first, size_t end, rung_err *err) {
    st_writer *w = NULL;
    char *path;
    RUNG_TRY(convert_folder_path(&j->folder, part, weights_name(part), &path, err));
    rung_status st;
    bool again = j->folder.again;
    RUNG_TRY_GOTO(st, done, st_writer_open(&w, path, err));
    RUNG_TRY_GOTO(st, done, write_meta(j, w, err));
    for (size_t i = first; i < end; i++) RUNG_TRY_GOTO(st, done, convert_declare(w, &j->plan.items[i], err));
    RUNG_TRY_GOTO(st, done, st_writer_start(w, &again, err));
    for (size_t i = first; !again && i < end; i++) j->plan.items[i].done = false;
    st = write_items(j, w, first, end, err);
done:
    st_writer_close(&w);
    free(path);
    return st;
}

static rung_status write_files(struct job *j, rung_err *err) {
    const convert_plan *p = &j->plan;
    begin(j, "write", p->count);
    for (size_t first = 0, end; first < p->count; first = end) {
        for (end = first; end < p->count && p->items[end].part == p->items[first].part;) end++;
        RUNG_TRY(write_file(j, p->items[first].part, first, end, err));
    }
    return RUNG_OK;
}

/* ---- the report ---- */

static rung_status report_item(convert_row *r, const convert_item *it, rung_err *err) {
    const rung_tensor *t = &it->source;
    if (asprintf(&r->name, "%s/%s", it->part, it->name) < 0) {
        r->name = NULL;
        return rung_fail(err, RUNG_ENOMEM, "convert: out of memory");
    }
    rung_tensor_shape_text(t, r->shape, sizeof r->shape);
    r->role = weight_role_name(it->role);
    r->from = rung_dtype_name(t->dtype);
    r->to = rung_dtype_name(it->to);
    r->form = it->form == RUNG_FORM_TILED_CSL ? "tiled-csl" : it->form == RUNG_FORM_BITMAP ? "bitmap" : "dense";
    r->weights = rung_tensor_count(t);
    r->held = (size_t)it->sums.held;
    r->bytes_before = rung_tensor_bytes(t);
    r->bytes = convert_bytes(it);
    r->sparsity = it->sparsity;
    r->error = convert_is_copy(it) ? NAN : it->sums.square > 0 ? sqrt(it->sums.error / it->sums.square) : 0;
    r->output_error = it->sums.output_square > 0 ? sqrt(it->sums.output_error / it->sums.output_square) : NAN;
    return RUNG_OK;
}

static rung_status fill_report(const struct job *j, convert_report *r, rung_err *err) {
    r->rows = calloc(j->plan.count + 1, sizeof *r->rows);
    if (!r->rows) return rung_fail(err, RUNG_ENOMEM, "convert: out of memory");
    for (; r->count < j->plan.count; r->count++) {
        RUNG_TRY(report_item(&r->rows[r->count], &j->plan.items[r->count], err));
        r->bytes_before += r->rows[r->count].bytes_before;
        r->bytes += r->rows[r->count].bytes;
    }
    return RUNG_OK;
}

void convert_report_free(convert_report *r) {
    for (size_t i = 0; i < r->count; i++) free(r->rows[i].name);
    free(r->rows);
    free(r->left_out);
    *r = (convert_report){0};
}

/* ---- the road ---- */

static rung_status open_folder(struct job *j, rung_err *err) {
    char *request = request_text(j->o);
    if (!request) return rung_fail(err, RUNG_ENOMEM, "convert: out of memory");
    const rung_status st = convert_folder_open(&j->folder, j->o->out, j->o->model, request, err);
    free(request);
    return st;
}

/* What each tensor becomes: measured once, also when the run is interrupted later. */
static rung_status decide(struct job *j, rung_err *err) {
    bool found;
    if (j->o->prompts) RUNG_TRY(open_norms(j, err));
    RUNG_TRY(convert_plan_load(&j->folder, &j->plan, &found, err));
    if (found) return RUNG_OK;
    if (j->o->sparsity > 0) RUNG_TRY(share_sparsity(j, err));
    RUNG_TRY(choose_forms(j, err));
    return convert_plan_save(&j->folder, &j->plan, err);
}

static rung_status make_model(struct job *j, convert_report *report, rung_err *err) {
    RUNG_TRY(decide(j, err));
    RUNG_TRY(convert_journal_read(&j->folder, &j->plan, err));
    RUNG_TRY(write_files(j, err));
    RUNG_TRY(convert_folder_texts(&j->folder, j->model, &report->left_out, err));
    RUNG_TRY(fill_report(j, report, err));
    return convert_folder_finish(&j->folder, err);
}

rung_status rung_convert(const convert_options *o, convert_report *report, rung_err *err) {
    struct job j = {.o = o, .folder = {.lock = -1}};
    rung_status st;
    *report = (convert_report){0};
    j.run.stop = ask;
    j.run.user = &j;
    RUNG_TRY_GOTO(st, done, check_options(&j, err));
    RUNG_TRY_GOTO(st, done, rung_pool_open(&j.pool, o->threads, err));
    j.run.pool = j.pool;
    RUNG_TRY_GOTO(st, done, rung_model_open(&j.model, o->model, err));
    RUNG_TRY_GOTO(st, done, convert_plan_open(&j.plan, j.model, j.type, o->keep, o->n_keep, err));
    RUNG_TRY_GOTO(st, done, open_folder(&j, err));
    st = make_model(&j, report, err);
    if (st && st != RUNG_ECANCELLED) convert_folder_remove(&j.folder);
done:
    rung_safetensors_close(&j.norms);
    convert_folder_close(&j.folder);
    convert_plan_close(&j.plan);
    rung_model_close(&j.model);
    rung_pool_close(&j.pool);
    if (st) convert_report_free(report);
    return st;
}
