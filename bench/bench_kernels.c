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
#include "kernels/cpu/cpu_ops.h"

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
    if (j.to && j.from) {
        memset(j.from, 1, pieces * COPY_PIECE);
        memset(j.to, 1, pieces * COPY_PIECE); /* its pages are there when the clock starts */
    }
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

/* What bench/winograd.csv holds: 3x3 convolutions with norm and SiLU, m pictures of n <- k channels. */
static const struct {
    size_t m, n, k, side;
} winograd_shapes[] = {
    /* SD 1.5's U-Net at 512x512, 256x256 and 384x384; SDXL's at 1024x1024 */
    {2, 320, 320, 64},
    {2, 320, 640, 64},
    {2, 320, 960, 64},
    {2, 640, 640, 64},
    {2, 640, 320, 32},
    {2, 640, 640, 32},
    {2, 640, 1280, 32},
    {2, 640, 1920, 32},
    {2, 1280, 1280, 32},
    {2, 1280, 640, 16},
    {2, 1280, 1280, 16},
    {2, 1280, 2560, 16},
    {2, 1280, 1280, 8},
    {2, 1280, 2560, 8},
    {2, 1280, 1280, 4},
    {2, 320, 320, 32},
    {2, 640, 640, 16},
    {2, 320, 320, 48},
    {2, 640, 640, 24},
    {2, 1280, 1280, 12},
    {2, 1280, 1280, 6},
    {2, 320, 320, 128},
    {2, 640, 1280, 64},
    /* the VAE at 512x512 and 256x256 */
    {1, 512, 512, 32},
    {1, 512, 512, 64},
    {1, 512, 512, 128},
    {1, 512, 512, 256},
    {1, 256, 256, 128},
    {1, 256, 512, 256},
    {1, 256, 256, 256},
    {1, 256, 256, 512},
    {1, 128, 256, 512},
    {1, 128, 128, 512},
    /* the shipped VAE */
    {1, 128, 128, 16},
    {1, 128, 128, 32},
    {1, 64, 128, 32},
    {1, 64, 64, 32},
    {1, 64, 64, 64},
    {1, 32, 64, 64},
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

/* ---- against the specification ---- */

/* A corner of the output is enough: some rows, or pixels of the first picture, and some channels. */
enum { CORNER_ROWS = 8, CORNER_PIXELS = 12, CORNER_CHANNELS = 32 };

double bench_error(const float *got, size_t got_row, const float *want, size_t rows, size_t n) {
    double d = 0, all = 0;
    for (size_t r = 0; r < rows; r++) {
        for (size_t c = 0; c < n; c++) {
            const double w = want[r * n + c], e = got[r * got_row + c] - w;
            d += e * e;
            all += w * w;
        }
    }
    return sqrt(d / (all > 0 ? all : 1));
}

/* The layer with its first output channels alone, for another backend. */
static rung_status open_corner(const struct bed *b, struct bed *corner, size_t n, rung_err *err) {
    const shape *s = b->s;
    const rung_backend_ops *ops = corner->be->ops;
    rung_tensor w = {.dtype = RUNG_F32, .ndim = 2, .shape = {n, s->k}, .data = b->w}, gate = w;
    const rung_tensor *const parts[] = {&w, &gate};
    gate.data = b->w + s->n / 2 * s->k;
    if (!s->kernel)
        return ops->linear_open(corner->be, &corner->linear, parts, NULL, s->act == RUNG_ACT_GEGLU ? 2 : 1, s->store,
                                err);
    w.ndim = 4;
    w.shape[2] = w.shape[3] = s->kernel;
    return ops->conv_open(corner->be, &corner->conv, &w, NULL, s->store, err);
}

/* Relative 2-norm of the corner's error in b->y. */
static rung_status corner_error(const struct bed *b, rung_backend *spec, double *error, rung_err *err) {
    const shape *s = b->s;
    const size_t pad = s->kernel / 2, row = s->act == RUNG_ACT_GEGLU ? s->n / 2 : s->n;
    const size_t out_side = s->kernel ? s->side / s->stride : 0, out = size_min(out_side, CORNER_PIXELS);
    const size_t n = size_min(row, CORNER_CHANNELS);
    shape part = *s;
    part.n = s->act == RUNG_ACT_GEGLU ? 2 * n : n;
    part.m = s->kernel ? 1 : size_min(s->m, CORNER_ROWS);
    part.side = s->kernel ? size_min(s->side, (out - 1) * s->stride + s->kernel - pad) : 0;
    struct bed c = {.s = &part, .be = spec, .affine = b->affine};
    rung_status st = open_corner(b, &c, n, err);
    if (st) goto done;
    c.x = bench_numbers(rows_in(&part) * s->k);
    c.y = bench_numbers((rows_in(&part) + 1) * part.n);
    if (!c.x || !c.y) {
        st = rung_fail(err, RUNG_ENOMEM, "bench: out of memory");
        goto done;
    }
    const size_t line = s->kernel ? part.side * s->k : rows_in(&part) * s->k;
    for (size_t i = 0; i < (s->kernel ? part.side : 1); i++)
        memcpy(c.x + i * line, b->x + i * s->side * s->k, line * sizeof *c.x);
    bed_run(&c);
    if (!s->kernel) {
        *error = bench_error(b->y, row, c.y, part.m, n);
        goto done;
    }
    /* Of the part's own output the last pixels lack neighbours. */
    const size_t own = (part.side + 2 * pad - s->kernel) / s->stride + 1;
    double squares = 0;
    for (size_t i = 0; i < out; i++) {
        const double e = bench_error(b->y + i * out_side * row, row, c.y + i * own * n, out, n);
        squares += e * e / (double)out;
    }
    *error = sqrt(squares);
done:
    spec->ops->linear_close(spec, &c.linear);
    spec->ops->conv_close(spec, &c.conv);
    free(c.x);
    free(c.y);
    return st;
}

/* Best of the runs, and how far its numbers are off. */
static rung_status measure(const struct bed *b, rung_backend *spec, double seconds, rung_bench_row *row,
                           rung_err *err) {
    const shape *s = b->s;
    const double bits[] = {32, 32, 16, 16, 6}, first = bench_now();
    row->seconds = 1e30;
    for (int runs = 0; runs < 3 || bench_now() - first < seconds; runs++) {
        const double start = bench_now();
        bed_run(b);
        const double took = bench_now() - start;
        if (took < row->seconds) row->seconds = took;
    }
    const double weights = (double)s->n * (double)(s->k * taps(s));
    row->gflops = 2 * weights * (double)rows_out(s) / row->seconds / 1e9;
    row->gbps = weights * bits[s->store] / 8 / row->seconds / 1e9;
    row->compared = true;
    return corner_error(b, spec, &row->error, err);
}

/* What the measurements of one call share. */
struct bench {
    rung_pool *pool;
    unsigned cpu;
    const char *filter;
    double seconds;
    rung_bench_row_fn *give;
    void *arg;
    size_t found;
    rung_backend *be, *spec; /* what is measured, and what it is compared with */
};

static rung_status bench_shape(struct bench *x, const shape *s, rung_err *err) {
    char name[96];
    name_shape(s, name, sizeof name);
    if (x->filter && !strstr(name, x->filter)) return RUNG_OK;
    x->found++;
    rung_bench_row row = {.name = name, .isa = rung_cpu_name(x->cpu), .peak_gflops = rung_bench_peak(x->pool, x->cpu)};
    struct bed b = {.s = s, .be = x->be};
    rung_status st = bed_open(&b, err);
    if (!st) st = measure(&b, x->spec, x->seconds, &row, err);
    if (!st) x->give(x->arg, &row);
    bed_close(&b);
    return st;
}

/* One layer's shape in every way that there is to compute it. */
static rung_status bench_ways(struct bench *x, size_t i, rung_err *err) {
    static const size_t tiles[] = {0, 2, 4, 6};
    const shape s = {winograd_shapes[i].m,
                     winograd_shapes[i].n,
                     winograd_shapes[i].k,
                     3,
                     winograd_shapes[i].side,
                     1,
                     RUNG_STORE_F16,
                     RUNG_ACT_NONE,
                     true};
    char name[96], way[16];
    snprintf(name, sizeof name, "winograd %zu->%zu %zux%zu batch %zu", s.k, s.n, s.side, s.side, s.m);
    if (!strstr(name, x->filter)) return RUNG_OK;
    struct bed b = {.s = &s, .be = x->be};
    rung_status st = bed_open(&b, err);
    for (size_t t = 0; t < sizeof tiles / sizeof *tiles && !st; t++) {
        snprintf(way, sizeof way, tiles[t] ? " F(%zux%zu)" : " direct", tiles[t], tiles[t]);
        char full[128];
        snprintf(full, sizeof full, "%s%s", name, way);
        rung_bench_row row = {
            .name = full, .isa = rung_cpu_name(x->cpu), .peak_gflops = rung_bench_peak(x->pool, x->cpu)};
        rung_cpu_backend_exact(x->be, tiles[t] == 0);
        cpu_of(x->be)->only = tiles[t];
        st = measure(&b, x->spec, x->seconds / 3, &row, err);
        if (!st) x->give(x->arg, &row);
        x->found++;
    }
    bed_close(&b);
    rung_cpu_backend_exact(x->be, false);
    cpu_of(x->be)->only = 0;
    return st;
}

rung_status rung_bench_kernels(rung_pool *pool, unsigned cpu, const char *filter, double seconds,
                               rung_bench_row_fn *give, void *arg, rung_err *err) {
    struct bench x = {pool, cpu, filter, seconds, give, arg, 0, NULL, NULL};
    rung_status st = rung_cpu_backend_open(&x.be, pool, cpu, err);
    if (!st) st = rung_cpu_backend_open(&x.spec, pool, 0, err);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes && !st; i++) st = bench_shape(&x, &shapes[i], err);
    for (size_t i = 0; filter && i < sizeof winograd_shapes / sizeof *winograd_shapes && !st; i++)
        st = bench_ways(&x, i, err);
    rung_backend_close(&x.spec);
    rung_backend_close(&x.be);
    if (!st) st = bench_ops(pool, cpu, filter, seconds, give, arg, &x.found, err);
    if (!st && filter) st = bench_weights(pool, cpu, filter, seconds, give, arg, &x.found, err);
    if (!st && x.found == 0) st = rung_fail(err, RUNG_EARG, "bench: no kernel shape is named '%s'", filter);
    return st;
}
