#include "bench/bench_cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench_ops.h"
#include "kernels/cuda/cuda.h"

/* side 0: a linear layer [m, k] x [n, k]; else a 3x3 convolution of m pictures of side x side, k -> n channels. */
typedef struct {
    size_t m, n, k, side;
} shape;

static const shape shapes[] = {
    {2, 1280, 320, 0},    {16, 4096, 4096, 0},  {154, 1280, 768, 0},   {512, 1152, 288, 0},   {8192, 320, 320, 0},
    {8192, 2560, 320, 0}, {2048, 5120, 640, 0}, {512, 10240, 1280, 0}, {4096, 4096, 4096, 0}, {2, 320, 320, 64},
    {2, 640, 640, 32},    {2, 1280, 1280, 16},  {1, 512, 512, 64},     {1, 128, 128, 256},
};
static const struct {
    rung_store store;
    const char *name;
    double bits;
} kinds[] = {{RUNG_STORE_F16, "f16", 16},
             {RUNG_STORE_BF16, "bf16", 16},
             {RUNG_STORE_F32, "tf32", 32},
             {RUNG_STORE_FP6, "fp6", 6}};

struct bed {
    const shape *s;
    rung_backend *be;
    rung_linear *linear;
    rung_conv *conv;
    void *x, *y;
};

static size_t rows_of(const shape *s) { return s->side ? s->m * s->side * s->side : s->m; }
static size_t taps_of(const shape *s) { return s->side ? 9 : 1; }

static rung_status fill(struct bed *b, void **out, size_t n, rung_err *err) {
    float *host = bench_numbers(n);
    rung_status st = host ? b->be->ops->mem_alloc(b->be, out, n * sizeof *host, err)
                          : rung_fail(err, RUNG_ENOMEM, "bench: out of memory");
    if (!st) b->be->ops->upload(b->be, *out, host, n * sizeof *host);
    free(host);
    return st;
}

static rung_status bed_open(struct bed *b, rung_store store, rung_err *err) {
    const shape *s = b->s;
    float *host = bench_numbers(s->n * s->k * taps_of(s));
    if (!host) return rung_fail(err, RUNG_ENOMEM, "bench: out of memory");
    rung_tensor w = {.dtype = RUNG_F32, .ndim = s->side ? 4 : 2, .shape = {s->n, s->k, 3, 3}, .data = host};
    const rung_tensor *part = &w;
    rung_status st = s->side ? b->be->ops->conv_open(b->be, &b->conv, &w, NULL, store, err)
                             : b->be->ops->linear_open(b->be, &b->linear, &part, NULL, 1, store, err);
    if (!st) st = fill(b, &b->x, rows_of(s) * s->k, err);
    if (!st) st = fill(b, &b->y, rows_of(s) * s->n, err);
    free(host);
    return st;
}

static void bed_close(struct bed *b) {
    b->be->ops->linear_close(b->be, &b->linear);
    b->be->ops->conv_close(b->be, &b->conv);
    b->be->ops->mem_free(b->be, b->x);
    b->be->ops->mem_free(b->be, b->y);
}

static void bed_run(const struct bed *b) {
    const shape *s = b->s;
    const rung_conv_args a = {.batch = s->m,
                              .h = s->side,
                              .w = s->side,
                              .stride = 1,
                              .pad_top = 1,
                              .pad_left = 1,
                              .pad_bottom = 1,
                              .pad_right = 1};
    if (s->side)
        b->be->ops->conv(b->be, b->y, b->x, b->conv, &a, NULL);
    else
        b->be->ops->linear(b->be, b->y, b->x, s->k, s->m, b->linear, NULL);
}

/* Some calls between two syncs: the best average, once the libraries have chosen their kernels. */
static rung_status time_calls(const struct bed *b, double seconds, double *best, rung_err *err) {
    enum { CALLS = 20 };
    const double first = bench_now();
    bed_run(b);
    RUNG_TRY(b->be->ops->sync(b->be, err));
    *best = 1e30;
    do {
        const double start = bench_now();
        for (int i = 0; i < CALLS; i++) bed_run(b);
        RUNG_TRY(b->be->ops->sync(b->be, err));
        const double each = (bench_now() - start) / CALLS;
        if (each < *best) *best = each;
    } while (bench_now() - first < seconds);
    return RUNG_OK;
}

static rung_status measure(rung_backend *be, const shape *s, size_t kind, const char *name, double seconds,
                           rung_bench_row_fn *give, void *arg, rung_err *err) {
    struct bed b = {.s = s, .be = be};
    rung_bench_row row = {.name = name, .isa = "cuda"};
    rung_status st = bed_open(&b, kinds[kind].store, err);
    if (!st) st = time_calls(&b, seconds, &row.seconds, err);
    if (!st) {
        const double weights = (double)s->n * (double)(s->k * taps_of(s));
        row.gflops = 2 * weights * (double)rows_of(s) / row.seconds / 1e9;
        row.gbps = weights * kinds[kind].bits / 8 / row.seconds / 1e9;
        give(arg, &row);
    }
    bed_close(&b);
    return st;
}

rung_status rung_bench_cuda(int device, const char *filter, double seconds, rung_bench_row_fn *give, void *arg,
                            rung_err *err) {
    enum { KINDS = sizeof kinds / sizeof *kinds };
    char name[96];
    rung_backend *be;
    size_t found = 0;
    RUNG_TRY(rung_cuda_backend_open(&be, device, err));
    rung_status st = RUNG_OK;
    for (size_t i = 0; i < KINDS * sizeof shapes / sizeof *shapes && !st; i++) {
        const shape *s = &shapes[i / KINDS];
        if (s->side)
            snprintf(name, sizeof name, "conv3x3 %zu->%zu %zux%zu batch %zu %s", s->k, s->n, s->side, s->side, s->m,
                     kinds[i % KINDS].name);
        else
            snprintf(name, sizeof name, "linear %zux%zux%zu %s", s->m, s->n, s->k, kinds[i % KINDS].name);
        if (filter && !strstr(name, filter)) continue;
        found++;
        st = measure(be, s, i % KINDS, name, seconds, give, arg, err);
    }
    rung_backend_close(&be);
    if (!st && !found) st = rung_fail(err, RUNG_EARG, "bench: no shape on the GPU is named '%s'", filter);
    return st;
}
