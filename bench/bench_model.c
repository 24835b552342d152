#include "bench/bench_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench_ops.h"
#include "bench/op_timer.h"
#include "diffusion/engine.h"

enum { TEXT_ROWS = 77, PAIR = 2 };

struct bed {
    rung_engine *e;
    op_timer *timer;
    rung_denoiser_run *run;
    size_t h, w;                /* latent cells */
    float *x, *y, *ctx, *image; /* numbers of some kind */
    float *pooled;
};

static rung_status watch(void *user, rung_backend *be, rung_err *err) {
    return op_timer_open(&((struct bed *)user)->timer, be, err);
}

static rung_status reserve(struct bed *b, size_t width, size_t height, rung_err *err) {
    const rung_engine_info *i = &b->e->info;
    width = width ? width : i->width;
    height = height ? height : i->height;
    if (width % i->size_multiple || height % i->size_multiple)
        return rung_fail(err, RUNG_EARG, "bench: size is %zux%zu, wanted multiples of %zu", width, height,
                         i->size_multiple);
    b->h = height / i->factor;
    b->w = width / i->factor;
    const size_t n = PAIR * b->h * b->w * i->latent_channels;
    b->x = bench_numbers(n);
    b->y = bench_numbers(n);
    b->ctx = bench_numbers(PAIR * TEXT_ROWS * i->context_dim);
    b->pooled = bench_numbers(PAIR * i->pooled_dim + 1);
    b->image = bench_numbers(width * height * i->image_channels);
    if (b->x && b->y && b->ctx && b->pooled && b->image) return RUNG_OK;
    return rung_fail(err, RUNG_ENOMEM, "bench: no memory for %zux%zu", width, height);
}

/* A line of /proc/self/status, in bytes; 0: not there. */
static size_t memory_line(const char *name) {
    char line[128];
    unsigned long kib = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, name, strlen(name)) == 0) (void)sscanf(line + strlen(name), ": %lu", &kib);
    if (f) fclose(f);
    return (size_t)kib << 10;
}

static void give_memory(const struct bed *b, size_t packed, size_t most, rung_bench_stage_fn *row, void *arg) {
    row(arg, &(rung_bench_stage){.name = "packed weights", .bytes = packed});
    row(arg, &(rung_bench_stage){.name = "most while loading", .bytes = most});
    static const char *const names[] = {"vae scratch", "vae scratch, whole", "vae scratch, tiled"};
    static const rung_tiling tiling[] = {RUNG_TILING_AUTO, RUNG_TILING_OFF, RUNG_TILING_ON};
    for (size_t i = 0; i < 3; i++)
        row(arg, &(rung_bench_stage){.name = names[i], .bytes = rung_vae_scratch(b->e->vae, b->h, b->w, tiling[i])});
}

/* What a decode in strips makes resident beside the packed weights: scratch, rooms, the picture. Before anything else
 * has run, for memory that others have touched would count. */
static rung_status measure_tiled(struct bed *b, size_t packed, rung_bench_stage_fn *row, void *arg, rung_err *err) {
    RUNG_TRY(rung_vae_decode(b->e->vae, b->image, b->x, b->h, b->w, RUNG_TILING_ON, err));
    row(arg, &(rung_bench_stage){.name = "vae, tiled: over weights", .bytes = memory_line("VmHWM") - packed});
    return RUNG_OK;
}

static rung_status step(struct bed *b, rung_err *err) {
    const float t[PAIR] = {500, 500};
    return rung_denoiser_step(b->run, b->y, b->x, t, err);
}

static rung_status decode(struct bed *b, rung_err *err) {
    return rung_vae_decode(b->e->vae, b->image, b->x, b->h, b->w, RUNG_TILING_AUTO, err);
}

/* The best of the runs but the first, and where its time went. */
static rung_status measure(struct bed *b, const char *stage, rung_status (*run)(struct bed *, rung_err *), int repeat,
                           rung_bench_stage_fn *row, void *arg, rung_err *err) {
    static const char *const kinds[] = {"linear", "conv 3x3", "conv", "attention", "norm", "other"};
    timed_sum best[TIMED_KINDS] = {0};
    double seconds = 1e30, operations = 0;
    for (int i = 0; i <= repeat; i++) {
        op_timer_reset(b->timer);
        const double start = bench_now();
        RUNG_TRY(run(b, err));
        const double took = bench_now() - start;
        if (i == 0 || took >= seconds) continue;
        seconds = took;
        memcpy(best, op_timer_sums(b->timer), sizeof best);
    }
    for (int k = 0; k < TIMED_KINDS; k++) operations += best[k].operations;
    row(arg, &(rung_bench_stage){stage, seconds, operations / seconds / 1e9, 0, 0});
    for (int k = 0; k < TIMED_KINDS; k++) {
        char name[40];
        if (!best[k].calls) continue;
        snprintf(name, sizeof name, "%s: %s", stage, kinds[k]);
        row(arg,
            &(rung_bench_stage){name, best[k].seconds, best[k].operations / best[k].seconds / 1e9, best[k].calls, 0});
    }
    return RUNG_OK;
}

rung_status rung_bench_model(const rung_options *o, size_t width, size_t height, int repeat, rung_bench_stage_fn *row,
                             void *arg, rung_err *err) {
    struct bed b = {0};
    rung_options options = *o;
    rung_status st;
    options.no_text_encoder = true;
    RUNG_TRY_GOTO(st, done, engine_open(&b.e, &options, watch, &b, err));
    row(arg, &(rung_bench_stage){"load", b.e->info.load_seconds, 0, 0, 0});
    const size_t packed = memory_line("RssAnon"), most = memory_line("VmHWM");
    RUNG_TRY_GOTO(st, done, reserve(&b, width, height, err));
    give_memory(&b, packed, most, row, arg);
    RUNG_TRY_GOTO(st, done, measure_tiled(&b, packed, row, arg, err));
    const rung_engine_info *i = &b.e->info;
    const rung_denoiser_cond c = {.batch = PAIR,
                                  .h = b.h,
                                  .w = b.w,
                                  .n_ctx = TEXT_ROWS,
                                  .ctx = b.ctx,
                                  .pooled = i->pooled_dim ? b.pooled : NULL,
                                  .image_h = (float)(b.h * i->factor),
                                  .image_w = (float)(b.w * i->factor)};
    RUNG_TRY_GOTO(st, done, rung_denoiser_begin(b.e->denoiser, &b.run, &c, err));
    RUNG_TRY_GOTO(st, done, measure(&b, "denoiser", step, repeat, row, arg, err));
    rung_denoiser_end(&b.run);
    RUNG_TRY_GOTO(st, done, measure(&b, "vae", decode, repeat, row, arg, err));
done:
    rung_denoiser_end(&b.run);
    rung_close(&b.e);
    op_timer_close(&b.timer);
    free(b.x);
    free(b.y);
    free(b.ctx);
    free(b.pooled);
    free(b.image);
    return st;
}
