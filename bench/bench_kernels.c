#define _POSIX_C_SOURCE 200809L /* clock_gettime */
#include "bench/bench_kernels.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench/bench_ops.h"
#include "bench/bench_weights.h"
#include "bench/fma_peak.h"
#include "kernels/backend.h"
#include "kernels/base/cpu.h"
#include "kernels/base/pages.h"
#include "kernels/base/size.h"

double bench_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- the peak ---------------------------------------------------------------------------------------------------- */

enum { PEAK_TASKS = 64, PEAK_ROUNDS = 4000 };
static const double peak_seconds = 0.05; /* for its runs, as for copies */

struct peak_job {
    fma_peak_fn *fn;
    double operations[PEAK_TASKS];
    float sink[PEAK_TASKS];
};

/* Without vectors there is nothing to compare with but a chain of its own: twelve scalar sums. */
static double peak_scalar(size_t rounds, float *sink) {
    float s[12] = {0};
    for (size_t r = 0; r < rounds; r++)
        for (int i = 0; i < 12; i++) s[i] = s[i] * 0.999f + 0.001f;
    for (int i = 1; i < 12; i++) s[0] += s[i];
    *sink = s[0];
    return 24.0 * (double)rounds;
}

static fma_peak_fn *peak_function(unsigned cpu) {
#ifdef __x86_64__
    if (cpu & RUNG_CPU_AVX512) return fma_peak_avx512;
    if (cpu & RUNG_CPU_AVX2) return fma_peak_avx2;
#endif
    (void)cpu;
    return peak_scalar;
}

static void peak_task(void *arg, size_t task, void *scratch) {
    (void)scratch;
    struct peak_job *j = arg;
    j->operations[task] = j->fn(PEAK_ROUNDS, &j->sink[task]);
}

double rung_bench_peak(rung_pool *pool, unsigned cpu) {
    struct peak_job j = {.fn = peak_function(cpu)};
    double best = 0;
    for (const double end = bench_now() + peak_seconds; best == 0 || bench_now() < end;) {
        const double start = bench_now();
        rung_pool_run(pool, peak_task, &j, PEAK_TASKS);
        const double seconds = bench_now() - start;
        double operations = 0;
        for (size_t i = 0; i < PEAK_TASKS; i++) operations += j.operations[i];
        if (operations / seconds > best) best = operations / seconds;
    }
    return best / 1e9;
}

/* ---- the bandwidth ----------------------------------------------------------------------------------------------- */

enum { COPY_PIECE = 1 << 15 };

struct copy_job {
    char *to, *from;
};

static void copy_task(void *arg, size_t task, void *scratch) {
    (void)scratch;
    const struct copy_job *j = arg;
    memcpy(j->to + task * COPY_PIECE, j->from + task * COPY_PIECE, COPY_PIECE);
}

double rung_bench_copy(rung_pool *pool, size_t bytes) {
    const size_t pieces = size_div_up(bytes, 2 * COPY_PIECE);
    struct copy_job j = {rung_pages_alloc(pieces * COPY_PIECE), rung_pages_alloc(pieces * COPY_PIECE)};
    double best = 0;
    if (j.to && j.from) memset(j.from, 1, pieces * COPY_PIECE);
    for (const double end = bench_now() + peak_seconds; j.to && j.from && (best == 0 || bench_now() < end);) {
        const double start = bench_now();
        rung_pool_run(pool, copy_task, &j, pieces);
        best = fmax(best, 2e-9 * COPY_PIECE * (double)pieces / (bench_now() - start));
    }
    free(j.to);
    free(j.from);
    return best;
}

/* ---- the shapes -------------------------------------------------------------------------------------------------- */

/* kernel 0: a linear layer of m rows, else a convolution of `m` pictures of side x side (after enlargement). */
typedef struct {
    size_t m, n, k, kernel, side, stride;
    rung_store store;
    rung_act act;
    bool fused; /* convolution: affine and SiLU on load */
} shape;

static const shape shapes[] = {
    {1024, 1024, 1024, 0, 0, 0, RUNG_STORE_F32, RUNG_ACT_NONE, false},
    {1024, 1024, 1024, 0, 0, 0, RUNG_STORE_F16, RUNG_ACT_NONE, false},
    {1024, 1024, 1024, 0, 0, 0, RUNG_STORE_BF16, RUNG_ACT_NONE, false},
    {1024, 1024, 1024, 0, 0, 0, RUNG_STORE_FP6, RUNG_ACT_NONE, false},
    /* SD 1.5 at 512x512, a guidance pair: attention projections and feed-forward of each level */
    {8192, 320, 320, 0, 0, 0, RUNG_STORE_F16, RUNG_ACT_NONE, false},
    {8192, 2560, 320, 0, 0, 0, RUNG_STORE_F16, RUNG_ACT_GEGLU, false},
    {8192, 320, 1280, 0, 0, 0, RUNG_STORE_F16, RUNG_ACT_NONE, false},
    {2048, 640, 640, 0, 0, 0, RUNG_STORE_F16, RUNG_ACT_NONE, false},
    {512, 10240, 1280, 0, 0, 0, RUNG_STORE_F16, RUNG_ACT_GEGLU, false},
    {154, 1280, 768, 0, 0, 0, RUNG_STORE_F16, RUNG_ACT_NONE, false},
    {77, 768, 768, 0, 0, 0, RUNG_STORE_F16, RUNG_ACT_NONE, false},
    {64, 1280, 1280, 0, 0, 0, RUNG_STORE_F16, RUNG_ACT_NONE, false},
    {2, 1280, 320, 0, 0, 0, RUNG_STORE_F16, RUNG_ACT_SILU, false},
    /* a small transformer: 64 to 256 tokens, a guidance pair */
    {512, 288, 288, 0, 0, 0, RUNG_STORE_FP6, RUNG_ACT_NONE, false},
    {512, 1152, 288, 0, 0, 0, RUNG_STORE_FP6, RUNG_ACT_GELU_TANH, false},
    {512, 288, 1152, 0, 0, 0, RUNG_STORE_FP6, RUNG_ACT_NONE, false},
    /* few rows of a large matrix: the weights' bandwidth */
    {1, 8192, 8192, 0, 0, 0, RUNG_STORE_F32, RUNG_ACT_NONE, false},
    {1, 8192, 8192, 0, 0, 0, RUNG_STORE_F16, RUNG_ACT_NONE, false},
    {1, 8192, 8192, 0, 0, 0, RUNG_STORE_FP6, RUNG_ACT_NONE, false},
    {4, 8192, 8192, 0, 0, 0, RUNG_STORE_F16, RUNG_ACT_NONE, false},
    {4, 8192, 8192, 0, 0, 0, RUNG_STORE_FP6, RUNG_ACT_NONE, false},
    {16, 8192, 8192, 0, 0, 0, RUNG_STORE_F16, RUNG_ACT_NONE, false},
    {16, 8192, 8192, 0, 0, 0, RUNG_STORE_FP6, RUNG_ACT_NONE, false},
    /* SD 1.5 at 512x512: convolutions of the U-Net, then of the VAE */
    {2, 320, 4, 3, 64, 1, RUNG_STORE_F16, RUNG_ACT_NONE, false},
    {2, 320, 320, 3, 64, 1, RUNG_STORE_F16, RUNG_ACT_NONE, true},
    {2, 320, 320, 3, 64, 2, RUNG_STORE_F16, RUNG_ACT_NONE, false},
    {2, 640, 640, 3, 32, 1, RUNG_STORE_F16, RUNG_ACT_NONE, true},
    {2, 1280, 1280, 3, 16, 1, RUNG_STORE_F16, RUNG_ACT_NONE, true},
    {2, 1280, 1280, 3, 8, 1, RUNG_STORE_F16, RUNG_ACT_NONE, true},
    {2, 320, 640, 1, 64, 1, RUNG_STORE_F16, RUNG_ACT_NONE, false},
    {1, 512, 512, 3, 64, 1, RUNG_STORE_F16, RUNG_ACT_NONE, true},
    {1, 512, 512, 3, 128, 1, RUNG_STORE_F16, RUNG_ACT_NONE, true},
    {1, 256, 256, 3, 256, 1, RUNG_STORE_F16, RUNG_ACT_NONE, true},
    {1, 128, 128, 3, 512, 1, RUNG_STORE_F16, RUNG_ACT_NONE, true},
};

static const char *store_name(rung_store s) {
    static const char *const names[] = {"stored", "f32", "f16", "bf16", "fp6"};
    return names[s];
}

static void name_shape(const shape *s, char *buf, size_t cap) {
    if (s->kernel)
        snprintf(buf, cap, "conv%zux%zu%s %zu->%zu %zux%zu batch %zu%s %s", s->kernel, s->kernel,
                 s->stride == 2 ? "/2" : "", s->k, s->n, s->side, s->side, s->m, s->fused ? " norm+silu" : "",
                 store_name(s->store));
    else
        snprintf(buf, cap, "linear %zux%zux%zu%s %s", s->m, s->n, s->k, s->act == RUNG_ACT_GEGLU ? " geglu" : "",
                 store_name(s->store));
}

/* ---- one measurement --------------------------------------------------------------------------------------------- */

/* What a shape runs on. */
struct bed {
    const shape *s;
    rung_backend *be;
    rung_linear *linear;
    rung_conv *conv;
    float *w, *x, *y, *affine;
};

static size_t taps(const shape *s) { return s->kernel ? s->kernel * s->kernel : 1; }
static size_t rows_in(const shape *s) { return s->kernel ? s->m * s->side * s->side : s->m; }
static size_t rows_out(const shape *s) { return s->kernel ? rows_in(s) / (s->stride * s->stride) : s->m; }

/* On the pages and lines that the arena gives a network's numbers. */
float *bench_numbers(size_t n) {
    float *p = rung_pages_alloc(n * sizeof *p);
    uint64_t state = 1;
    for (size_t i = 0; p && i < n; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        p[i] = (float)(state >> 40) / (1 << 23) - 1;
    }
    return p;
}

static rung_status bed_open(struct bed *b, rung_err *err) {
    const shape *s = b->s;
    const rung_backend_ops *ops = b->be->ops;
    b->w = bench_numbers(s->n * s->k * taps(s));
    b->x = bench_numbers(rows_in(s) * s->k);
    b->y = bench_numbers(rows_out(s) * s->n);
    b->affine = bench_numbers(s->m * s->k);
    if (!b->w || !b->x || !b->y || !b->affine) return rung_fail(err, RUNG_ENOMEM, "bench: out of memory");
    rung_tensor w = {.dtype = RUNG_F32, .ndim = 2, .shape = {s->n, s->k}, .data = b->w};
    const rung_tensor *part = &w;
    if (!s->kernel) return ops->linear_open(b->be, &b->linear, &part, NULL, 1, s->store, err);
    w.ndim = 4;
    w.shape[2] = w.shape[3] = s->kernel;
    return ops->conv_open(b->be, &b->conv, &w, NULL, s->store, err);
}

static void bed_close(struct bed *b) {
    b->be->ops->linear_close(b->be, &b->linear);
    b->be->ops->conv_close(b->be, &b->conv);
    free(b->w);
    free(b->x);
    free(b->y);
    free(b->affine);
}

static void bed_run(const struct bed *b) {
    const shape *s = b->s;
    const rung_epilogue ep = {.act = s->act};
    if (!s->kernel) {
        b->be->ops->linear(b->be, b->y, b->x, s->k, s->m, b->linear, &ep);
        return;
    }
    const size_t pad = s->kernel / 2;
    rung_conv_args a = {.batch = s->m, .h = s->side, .w = s->side, .stride = s->stride};
    a.pad_top = a.pad_left = a.pad_bottom = a.pad_right = pad;
    if (s->fused) {
        a.in_scale = a.in_shift = b->affine;
        a.in_act = RUNG_ACT_SILU;
    }
    b->be->ops->conv(b->be, b->y, b->x, b->conv, &a, &ep);
}

static rung_status measure(const shape *s, rung_backend *be, double seconds, rung_bench_row *row, rung_err *err) {
    struct bed b = {.s = s, .be = be};
    const rung_status st = bed_open(&b, err);
    if (st == RUNG_OK) {
        const double bits[] = {32, 32, 16, 16, 6}, first = bench_now();
        row->seconds = 1e30;
        for (int runs = 0; runs < 3 || bench_now() - first < seconds; runs++) {
            const double start = bench_now();
            bed_run(&b);
            const double took = bench_now() - start;
            if (took < row->seconds) row->seconds = took;
        }
        const double weights = (double)s->n * (double)(s->k * taps(s));
        row->gflops = 2 * weights * (double)rows_out(s) / row->seconds / 1e9;
        row->gbps = weights * bits[s->store] / 8 / row->seconds / 1e9;
    }
    bed_close(&b);
    return st;
}

rung_status rung_bench_kernels(rung_pool *pool, unsigned cpu, const char *filter, double seconds,
                               rung_bench_row_fn *give, void *arg, rung_err *err) {
    char name[96];
    size_t found = 0;
    rung_backend *be;
    rung_status st = RUNG_OK;
    RUNG_TRY(rung_cpu_backend_open(&be, pool, cpu, err));
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes && st == RUNG_OK; i++) {
        name_shape(&shapes[i], name, sizeof name);
        if (filter && !strstr(name, filter)) continue;
        found++;
        rung_bench_row row = {.name = name, .isa = rung_cpu_name(cpu), .peak_gflops = rung_bench_peak(pool, cpu)};
        st = measure(&shapes[i], be, seconds, &row, err);
        if (st == RUNG_OK) give(arg, &row);
    }
    rung_backend_close(&be);
    if (st == RUNG_OK) st = bench_ops(pool, cpu, filter, seconds, give, arg, &found, err);
    if (st == RUNG_OK && filter) st = bench_weights(pool, cpu, filter, seconds, give, arg, &found, err);
    if (st == RUNG_OK && found == 0) st = rung_fail(err, RUNG_EARG, "bench: no kernel shape is named '%s'", filter);
    return st;
}
