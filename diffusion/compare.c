#define _GNU_SOURCE /* asprintf, open_memstream */
#include "diffusion/compare.h"

#include <ctype.h>
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "diffusion/batch_files.h"
#include "diffusion/contact_sheet.h"

rung_request compare_request(const compare *c, const compare_cell *p) {
    rung_request r = c->subjects[p->subject];
    r.sampler = p->sampler;
    r.scheduler = p->scheduler;
    r.steps = p->steps;
    r.cfg_scale = p->cfg_scale;
    if (compare_is_reference(c, p)) r.eta_set = false; /* noise is for the compared ones */
    return r;
}

/* ---- the command ---- */

/* One word of a shell line, whatever it holds. */
static void put_quoted(FILE *f, const char *option, const char *word) {
    fprintf(f, " %s '", option);
    for (const char *s = word; *s; s++) fputs(*s == '\'' ? "'\\''" : (char[]){*s, 0}, f);
    fputc('\'', f);
}

static void put_model(FILE *f, const compare *c) {
    const rung_options *e = c->o->engine;
    if (c->o->model) put_quoted(f, "-m", c->o->model);
    if (e->type) fprintf(f, " --type %s", e->type);
    if (e->backend) fprintf(f, " --backend %s", e->backend);
    if (e->device) fprintf(f, " --device %d", e->device);
    for (size_t i = 0; i < e->n_loras; i++) {
        char weight[32];
        snprintf(weight, sizeof weight, ":%.9g", (double)e->loras[i].weight);
        put_quoted(f, "--lora", e->loras[i].path);
        fputs(weight, f); /* a quoted and a bare part are one word */
    }
}

/* Every option that the picture depends on. */
static char *command_of(const compare *c, const rung_request *r) {
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);
    if (!f) return NULL;
    fputs("rung", f);
    put_model(f, c);
    fprintf(f, " --sampler %s", r->sampler);
    if (r->scheduler) fprintf(f, " --scheduler %s", r->scheduler);
    fprintf(f, " --steps %d --cfg-scale %.9g", r->steps, (double)r->cfg_scale);
    if (r->guidance_rescale > 0) fprintf(f, " --guidance-rescale %.9g", (double)r->guidance_rescale);
    if (r->eta_set) fprintf(f, " --eta %.9g", (double)r->eta);
    if (r->width) fprintf(f, " -W %zu", r->width);
    if (r->height) fprintf(f, " -H %zu", r->height);
    if (r->clip_skip) fprintf(f, " --clip-skip %d", r->clip_skip);
    if (r->literal) fputs(" --literal", f);
    if (r->vae_tiling) fputs(" --vae-tiling", f);
    if (r->rng == RUNG_RNG_CUDA) fputs(" --rng cuda", f);
    fprintf(f, " -s %llu", (unsigned long long)r->seed);
    if (r->negative_prompt) put_quoted(f, "-n", r->negative_prompt);
    put_quoted(f, "-p", r->prompt);
    if (fclose(f) == 0) return text;
    free(text);
    return NULL;
}

/* ---- the figures ---- */

static double relative_distance(const rung_image *a, const rung_image *reference) {
    const size_t n = reference->latent_channels * reference->latent_h * reference->latent_w;
    double difference = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        const double r = (double)reference->latents[i], d = (double)a->latents[i] - r;
        difference += d * d;
        norm += r * r;
    }
    return difference == 0 ? 0 : sqrt(difference / norm);
}

/* What lies under transparency does not count. */
static double psnr(const rung_image *a, const rung_image *b) {
    const size_t pixels = a->width * a->height;
    double sum = 0;
    for (size_t i = 0; i < pixels; i++) {
        uint8_t x[3], y[3];
        sheet_over_white(x, a->pixels + i * a->channels, a->channels);
        sheet_over_white(y, b->pixels + i * b->channels, b->channels);
        for (int k = 0; k < 3; k++) sum += (x[k] - y[k]) * (x[k] - y[k]);
    }
    return sum == 0 ? COMPARE_EQUAL : 10 * log10(255.0 * 255.0 * 3 * (double)pixels / sum);
}

compare_mean compare_mean_of(const compare *c, size_t cfg, size_t row, size_t step) {
    compare_mean m = {0};
    for (size_t i = 0; i < c->n_subjects; i++) {
        const compare_cell *p = compare_at(c, i, cfg, row, step);
        m.ode = p->ode;
        if (p->refusal) continue;
        m.calls += (double)p->calls;
        m.seconds += p->seconds;
        m.distance += p->distance;
        m.psnr += p->psnr;
        m.drawn++;
    }
    const double n = m.drawn ? (double)m.drawn : 1;
    m.calls /= n;
    m.seconds /= n;
    m.distance /= n;
    m.psnr /= n;
    return m;
}

bool compare_best(const compare *c, size_t cfg, double calls, size_t *row, size_t *step) {
    double best = -1;
    for (size_t r = 0; r < c->n_rows; r++)
        for (size_t s = 0; s < c->n_steps; s++) {
            const compare_mean m = compare_mean_of(c, cfg, r, s);
            if (!m.drawn || !m.ode || m.calls > calls || m.psnr <= best) continue;
            best = m.psnr;
            *row = r;
            *step = s;
        }
    return best >= 0;
}

bool compare_is_nearest(const compare *c, size_t subject, size_t cfg, size_t row, size_t step) {
    const compare_cell *p = compare_at(c, subject, cfg, row, step);
    for (size_t i = 0; i < c->n_rows; i++) {
        const compare_cell *q = compare_at(c, subject, cfg, i, step);
        if (!q->refusal && q->ode && q->psnr > p->psnr) return false;
    }
    return !p->refusal && p->ode;
}

bool compare_row_is_empty(const compare *c, size_t row) {
    for (size_t g = 0; g < c->n_subjects * c->n_cfgs; g++)
        for (size_t s = 0; s < c->n_steps; s++)
            if (!compare_at(c, g / c->n_cfgs, g % c->n_cfgs, row, s)->refusal) return false;
    return true;
}

const compare_cell *compare_skipped(const compare *c, size_t row, size_t i) {
    const size_t cells = c->n_subjects * c->n_cfgs * c->n_steps;
    const char *last = NULL; /* equal reasons stand beside each other nearly always */
    for (size_t k = 0; k < cells; k++) {
        const size_t group = k / c->n_steps;
        const compare_cell *p = compare_at(c, group / c->n_cfgs, group % c->n_cfgs, row, k % c->n_steps);
        if (!p->refusal || (last && strcmp(last, p->refusal) == 0)) continue;
        last = p->refusal;
        if (i-- == 0) return p;
    }
    return NULL;
}

/* ---- the run ---- */

char *compare_path(const compare *c, const char *name) {
    char *path;
    return asprintf(&path, "%s/%s", c->o->folder, name) < 0 ? NULL : path;
}

/* "compare-0001.png" and what a killed run left of one: ".compare-0001.png.XXXXXX.tmp" */
static bool is_ours(const char *name) {
    static const char stem[] = "compare-";
    const bool temporary = *name == '.';
    name += temporary;
    if (strncmp(name, stem, sizeof stem - 1) != 0) return false;
    const size_t digits = strspn(name + sizeof stem - 1, "0123456789");
    const char *rest = name + sizeof stem - 1 + digits;
    return digits >= 4 && strncmp(rest, ".png", 4) == 0 && (temporary || !rest[4]);
}

/* A folder never holds the files of two comparisons. */
static void remove_earlier(const compare *c, const char *pictures) {
    static const char *const files[] = {"compare.html", "compare.png", "compare.csv", "compare.json"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char *path = compare_path(c, files[i]);
        if (path) unlink(path);
        free(path);
    }
    DIR *d = opendir(pictures);
    for (struct dirent *e; d && (e = readdir(d));)
        if (is_ours(e->d_name)) unlinkat(dirfd(d), e->d_name, 0);
    if (d) closedir(d);
}

struct run {
    compare *c;
    rung_engine *e;
    compare_event_fn *event;
    rung_progress_fn *step;
    void *user;
};

static rung_status save(const struct run *run, compare_cell *p, const rung_image *image, rung_err *err) {
    char *path = NULL;
    if (asprintf(&p->file, "pictures/compare-%04zu.png", run->c->done + 1) < 0) p->file = NULL;
    if (p->file) path = compare_path(run->c, p->file);
    const rung_status st =
        path ? rung_image_save(image, path, err) : rung_fail(err, RUNG_ENOMEM, "compare: out of memory");
    free(path);
    return st;
}

/* *image is the caller's to free. A combination that fails only now gets its reason too. reference NULL: this is it. */
static rung_status draw(const struct run *run, compare_cell *p, const rung_image *reference, rung_image *image,
                        rung_err *err) {
    compare *c = run->c;
    rung_request r = compare_request(c, p);
    rung_err refusal = {0};
    r.progress = run->step;
    r.progress_user = run->user;
    const rung_status st = rung_generate(run->e, &r, 1, image, &refusal);
    if (st == RUNG_EARG && !compare_is_reference(c, p)) {
        p->refusal = strdup(refusal.msg);
        c->drawn--;
        c->work -= compare_work(p);
        return p->refusal ? RUNG_OK : rung_fail(err, RUNG_ENOMEM, "compare: out of memory");
    }
    if (st == RUNG_ECANCELLED) return rung_fail(err, st, "cancelled after %zu of %zu pictures", c->done, c->drawn);
    if (st) return rung_fail(err, st, "%s", refusal.msg);
    p->command = command_of(c, &r);
    if (!p->command) return rung_fail(err, RUNG_ENOMEM, "compare: out of memory");
    p->calls = image->calls;
    p->seconds = image->times.denoise;
    p->distance = reference ? relative_distance(image, reference) : 0;
    p->psnr = reference ? psnr(image, reference) : COMPARE_EQUAL;
    RUNG_TRY(save(run, p, image, err));
    c->done++;
    c->work_done += compare_work(p);
    if (run->event && run->event(run->user, c, p))
        return rung_fail(err, RUNG_ECANCELLED, "cancelled after %zu of %zu pictures", c->done, c->drawn);
    return RUNG_OK;
}

static rung_status draw_group(const struct run *run, compare_cell *first, rung_err *err) {
    rung_image reference = {0};
    rung_status st = draw(run, first, NULL, &reference, err);
    for (size_t i = 1; !st && i < run->c->each; i++) {
        rung_image image = {0};
        if (!first[i].refusal) st = draw(run, first + i, &reference, &image, err);
        rung_image_free(&image);
    }
    rung_image_free(&reference);
    return st;
}

rung_status compare_run(compare *c, rung_engine *e, compare_event_fn *event, rung_progress_fn *step, void *user,
                        rung_err *err) {
    const struct run run = {.c = c, .e = e, .event = event, .step = step, .user = user};
    char *pictures = NULL;
    RUNG_TRY(batch_make_folder(c->o->folder, err));
    pictures = compare_path(c, "pictures");
    rung_status st =
        pictures ? batch_make_folder(pictures, err) : rung_fail(err, RUNG_ENOMEM, "compare: out of memory");
    if (!st) remove_earlier(c, pictures);
    free(pictures);
    for (size_t i = 0; !st && i < c->count; i += c->each) st = draw_group(&run, c->cells + i, err);
    return st;
}
