/* bench/onednn/bench_onednn.c - rung's f32 products beside oneDNN's, in turn in one process: a second opinion on speed
 * and on the result. Built where CMake finds oneDNN 2 (Debian: libdnnl-dev); no part of rung.
 *
 *     OMP_NUM_THREADS=2 build/bench-onednn
 *
 * Both have their weights packed beforehand as they like. Leaves with 1 when results differ by more than 1e-5 of their
 * root mean square. */
#include <dnnl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench/bench_kernels.h"
#include "bench/bench_ops.h"
#include "kernels/backend.h"
#include "kernels/base/cpu.h"

enum { INPUT, WEIGHTS, OUTPUT, ARRAYS };

struct shape {
    size_t m, n, k;
};

/* SD 1.5 at 512x512 and at 64 and 77 rows, then a small transformer's. */
static const struct shape shapes[] = {
    {1024, 1024, 1024}, {8192, 320, 320},  {8192, 320, 1280}, {2048, 640, 640}, {2048, 640, 2560}, {512, 1280, 1280},
    {512, 1280, 5120},  {128, 1280, 1280}, {154, 1280, 768},  {77, 320, 768},   {77, 768, 768},    {64, 1280, 1280},
    {512, 288, 288},    {512, 1152, 288},  {512, 288, 1152},  {4, 1280, 1280},  {1, 4096, 4096},
};

/* oneDNN's product of one shape. */
struct theirs {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_primitive_t product;
    dnnl_memory_t memory[ARRAYS], packed;
};

static void theirs_close(struct theirs *t) {
    for (int i = 0; i < ARRAYS; i++) dnnl_memory_destroy(t->memory[i]);
    dnnl_memory_destroy(t->packed);
    dnnl_primitive_destroy(t->product);
    dnnl_stream_destroy(t->stream);
    dnnl_engine_destroy(t->engine);
}

#define DNNL(call)                                                                                                     \
    do {                                                                                                               \
        if ((call) != dnnl_success) return rung_fail(err, RUNG_EDEVICE, "%s", #call);                                  \
    } while (0)

static rung_status pack(struct theirs *t, const dnnl_memory_desc_t *given, const dnnl_memory_desc_t *wanted,
                        rung_err *err) {
    dnnl_primitive_desc_t d;
    dnnl_primitive_t p;
    DNNL(dnnl_memory_create(&t->packed, wanted, t->engine, DNNL_MEMORY_ALLOCATE));
    DNNL(dnnl_reorder_primitive_desc_create(&d, given, t->engine, wanted, t->engine, NULL));
    const dnnl_status_t made = dnnl_primitive_create(&p, d);
    dnnl_primitive_desc_destroy(d);
    DNNL(made);
    const dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, t->memory[WEIGHTS]}, {DNNL_ARG_TO, t->packed}};
    dnnl_status_t ran = dnnl_primitive_execute(p, t->stream, 2, args);
    if (ran == dnnl_success) ran = dnnl_stream_wait(t->stream);
    dnnl_primitive_destroy(p);
    DNNL(ran);
    return RUNG_OK;
}

/* data: x [m, k], w [n, k], y [m, n]. */
static rung_status theirs_open(struct theirs *t, const struct shape *s, float *const *data, rung_err *err) {
    const dnnl_dim_t m = (dnnl_dim_t)s->m, n = (dnnl_dim_t)s->n, k = (dnnl_dim_t)s->k;
    const dnnl_dims_t dims[] = {{m, k}, {k, n}, {m, n}};
    const dnnl_format_tag_t tags[] = {dnnl_ab, dnnl_ba, dnnl_ab};
    dnnl_memory_desc_t desc[ARRAYS], any;
    dnnl_matmul_desc_t matmul;
    dnnl_primitive_desc_t d;
    DNNL(dnnl_engine_create(&t->engine, dnnl_cpu, 0));
    DNNL(dnnl_stream_create(&t->stream, t->engine, dnnl_stream_default_flags));
    for (int i = 0; i < ARRAYS; i++) {
        DNNL(dnnl_memory_desc_init_by_tag(&desc[i], 2, dims[i], dnnl_f32, tags[i]));
        DNNL(dnnl_memory_create(&t->memory[i], &desc[i], t->engine, data[i]));
    }
    DNNL(dnnl_memory_desc_init_by_tag(&any, 2, dims[WEIGHTS], dnnl_f32, dnnl_format_tag_any));
    DNNL(dnnl_matmul_desc_init(&matmul, &desc[INPUT], &any, NULL, &desc[OUTPUT]));
    DNNL(dnnl_primitive_desc_create(&d, &matmul, NULL, t->engine, NULL));
    rung_status st = pack(t, &desc[WEIGHTS], dnnl_primitive_desc_query_md(d, dnnl_query_weights_md, 0), err);
    if (!st && dnnl_primitive_create(&t->product, d) != dnnl_success)
        st = rung_fail(err, RUNG_EDEVICE, "dnnl_primitive_create");
    dnnl_primitive_desc_destroy(d);
    return st;
}

static void theirs_run(const struct theirs *t) {
    const dnnl_exec_arg_t args[] = {
        {DNNL_ARG_SRC, t->memory[INPUT]}, {DNNL_ARG_WEIGHTS, t->packed}, {DNNL_ARG_DST, t->memory[OUTPUT]}};
    dnnl_primitive_execute(t->product, t->stream, 3, args);
    dnnl_stream_wait(t->stream);
}

static double distance(const float *a, const float *b, size_t n) {
    double worst = 0, squares = 0;
    for (size_t i = 0; i < n; i++) {
        worst = fmax(worst, fabs((double)a[i] - b[i]));
        squares += (double)b[i] * b[i];
    }
    return worst / sqrt(squares / (double)n);
}

/* One line; *bad counts results that differ. */
static rung_status compare(rung_backend *be, double peak, const struct shape *s, int *bad, rung_err *err) {
    struct theirs t = {0};
    rung_linear *linear = NULL;
    float *data[] = {bench_numbers(s->m * s->k), bench_numbers(s->n * s->k), bench_numbers(s->m * s->n)};
    float *own = bench_numbers(s->m * s->n);
    const rung_tensor w = {.dtype = RUNG_F32, .ndim = 2, .shape = {s->n, s->k}, .data = data[WEIGHTS]};
    const rung_tensor *part = &w;
    double ours = 1e30, other = 1e30;
    rung_status st = RUNG_OK;
    if (!data[INPUT] || !data[WEIGHTS] || !data[OUTPUT] || !own)
        RUNG_TRY_GOTO(st, done, rung_fail(err, RUNG_ENOMEM, "out of memory"));
    RUNG_TRY_GOTO(st, done, be->ops->linear_open(be, &linear, &part, NULL, 1, RUNG_STORE_F32, err));
    RUNG_TRY_GOTO(st, done, theirs_open(&t, s, data, err));
    for (double start = bench_now(), first = start; start - first < 0.3; start = bench_now()) {
        be->ops->linear(be, own, data[INPUT], s->k, s->m, linear, NULL);
        ours = fmin(ours, bench_now() - start);
    }
    for (double start = bench_now(), first = start; start - first < 0.3; start = bench_now()) {
        theirs_run(&t);
        other = fmin(other, bench_now() - start);
    }
    const double work = 2e-9 * (double)s->m * (double)s->n * (double)s->k;
    const double error = distance(own, data[OUTPUT], s->m * s->n);
    *bad += !(error < 1e-5);
    printf("| %zux%zux%zu | %.3f ms, %.1f%% | %.3f ms, %.1f%% | %.2f | %.1e |\n", s->m, s->n, s->k, 1e3 * ours,
           100 * work / ours / peak, 1e3 * other, 100 * work / other / peak, other / ours, error);
done:
    theirs_close(&t);
    be->ops->linear_close(be, &linear);
    for (int i = 0; i < ARRAYS; i++) free(data[i]);
    free(own);
    return st;
}

int main(void) {
    const char *threads = getenv("OMP_NUM_THREADS");
    const dnnl_version_t *v = dnnl_version();
    rung_pool *pool = NULL;
    rung_backend *be = NULL;
    rung_err err = {0};
    unsigned mask;
    int bad = 0;
    rung_status st = rung_cpu_mask(&mask, &err);
    if (!st) st = rung_pool_open(&pool, threads ? atoi(threads) : 0, &err);
    if (!st) st = rung_cpu_backend_open(&be, pool, rung_cpu_detect() & mask, &err);
    if (!st)
        printf("| product, f32 | rung %s | oneDNN %d.%d.%d | ratio | difference |\n|---|---|---|---|---|\n",
               rung_cpu_name(rung_cpu_detect() & mask), v->major, v->minor, v->patch);
    for (size_t i = 0; !st && i < sizeof shapes / sizeof *shapes; i++)
        st = compare(be, rung_bench_peak(pool, rung_cpu_detect() & mask), &shapes[i], &bad, &err);
    if (st) fprintf(stderr, "bench-onednn: %s\n", err.msg);
    rung_backend_close(&be);
    rung_pool_close(&pool);
    return st || bad;
}
