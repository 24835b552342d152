#include "bench/bench_ops.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/backend.h"
#include "kernels/base/cpu.h"

typedef enum { ATTENTION, GROUP_NORM, GROUP_NORM_AFFINE, LAYER_NORM, ACT, ADD } op_kind;

/* Attention: batch x heads of d, lq queries, lk keys. Norms: batch pictures of lq pixels (or rows) of d channels in
 * `heads` groups. Elementwise: d numbers. */
typedef struct {
    op_kind kind;
    size_t batch, heads, d, lq, lk;
} shape;

static const shape shapes[] = {
    /* SD 1.5 at 512x512, a guidance pair: self-attention of each level, then the text's 77 tokens */
    {ATTENTION, 2, 8, 40, 4096, 4096},
    {ATTENTION, 2, 8, 80, 1024, 1024},
    {ATTENTION, 2, 8, 160, 256, 256},
    {ATTENTION, 2, 8, 160, 64, 64},
    {ATTENTION, 1, 8, 40, 16384, 16384},
    {ATTENTION, 2, 8, 40, 4096, 77},
    {ATTENTION, 2, 8, 80, 1024, 77},
    {ATTENTION, 2, 8, 160, 256, 77},
    /* its VAE; CLIP; a transformer of 64 tokens */
    {ATTENTION, 1, 1, 512, 4096, 4096},
    {ATTENTION, 2, 12, 64, 77, 77},
    {ATTENTION, 2, 8, 32, 64, 64},
    {ATTENTION, 2, 8, 64, 64, 64},
    {GROUP_NORM, 2, 32, 320, 4096, 0},
    {GROUP_NORM, 2, 32, 640, 1024, 0},
    {GROUP_NORM, 2, 32, 1280, 64, 0},
    {GROUP_NORM_AFFINE, 2, 32, 320, 4096, 0},
    {GROUP_NORM_AFFINE, 1, 32, 128, 262144, 0},
    {LAYER_NORM, 1, 1, 320, 8192, 0},
    {LAYER_NORM, 1, 1, 256, 128, 0},
    {ACT, 1, 1, 1 << 20, 1, 0},
    {ADD, 1, 1, 1 << 20, 1, 0},
};

static void name_shape(const shape *s, char *buf, size_t cap) {
    static const char *const names[] = {"attention", "group_norm+silu", "group_norm_affine", "layer_norm", "silu",
                                        "add"};
    const char *name = names[s->kind];
    if (s->kind == ATTENTION)
        snprintf(buf, cap, "%s %zux%zu d %zu heads %zu batch %zu", name, s->lq, s->lk, s->d, s->heads, s->batch);
    else if (s->kind >= ACT)
        snprintf(buf, cap, "%s %zu", name, s->d);
    else
        snprintf(buf, cap, "%s %zux%zu batch %zu", name, s->lq, s->d, s->batch);
}

/* Numbers of one argument of the operation. */
static size_t count_q(const shape *s) { return s->batch * s->lq * s->d * (s->kind == ATTENTION ? s->heads : 1); }
static size_t count_k(const shape *s) { return s->batch * s->lk * s->d * s->heads; }

/* Floating-point operations; 0 where bytes are what counts. */
static double operations(const shape *s) { return s->kind == ATTENTION ? 4.0 * (double)count_q(s) * (double)s->lk : 0; }

/* Bytes read and written, each once; a norm that writes its result reads its input twice. */
static double bytes(const shape *s) {
    static const double passes[] = {2, 3, 1, 2, 2, 3};
    return 4 * (passes[s->kind] * (double)count_q(s) + 2 * (double)count_k(s));
}

struct bed {
    const shape *s;
    rung_backend *be;
    float *x, *y, *k, *v, *affine;
};

static void run(const struct bed *b) {
    const shape *s = b->s;
    const rung_backend_ops *ops = b->be->ops;
    const size_t row = s->heads * s->d;
    const rung_attention_args a = {
        .batch = s->batch,
        .heads = s->heads,
        .d = s->d,
        .lq = s->lq,
        .lk = s->lk,
        .q = b->x,
        .k = b->k,
        .v = b->v,
        .o = b->y,
        .q_row = row,
        .k_row = row,
        .v_row = row,
        .o_row = row,
        .q_batch = s->lq * row,
        .k_batch = s->lk * row,
        .v_batch = s->lk * row,
        .o_batch = s->lq * row,
        .scale = 1 / sqrtf((float)s->d),
    };
    switch (s->kind) {
    case ATTENTION:
        ops->attention(b->be, &a);
        break;
    case GROUP_NORM:
        ops->group_norm(b->be, b->y, b->x, s->batch, s->lq, s->d, s->heads, b->affine, b->affine, 1e-5f, RUNG_ACT_SILU);
        break;
    case GROUP_NORM_AFFINE:
        ops->group_norm_affine(b->be, b->y, b->y + s->batch * s->d, b->x, s->batch, s->lq, s->d, s->heads, b->affine,
                               b->affine, 1e-5f);
        break;
    case LAYER_NORM:
        ops->layer_norm(b->be, b->y, b->x, s->lq, s->d, b->affine, b->affine, 1e-5f, NULL, NULL, 0, 0);
        break;
    case ACT:
        ops->act(b->be, b->y, b->x, s->d, RUNG_ACT_SILU);
        break;
    case ADD:
        ops->add(b->be, b->y, b->x, b->affine, s->d);
        break;
    }
}

/* Numbers of the result. */
static size_t count_out(const shape *s) { return s->kind == GROUP_NORM_AFFINE ? 2 * s->batch * s->d : count_q(s); }

/* Attention: the first queries of the first picture; else the whole result. */
static rung_status compare(const struct bed *b, rung_backend *spec, double *error, rung_err *err) {
    enum { QUERIES = 8 };
    shape part = *b->s;
    struct bed c = *b;
    if (part.kind == ATTENTION) {
        part.batch = 1;
        part.lq = part.lq < QUERIES ? part.lq : QUERIES;
    }
    c.s = &part;
    c.be = spec;
    c.y = bench_numbers(count_out(&part));
    if (!c.y) return rung_fail(err, RUNG_ENOMEM, "bench: out of memory");
    run(&c);
    *error = bench_error(b->y, count_out(&part), c.y, 1, count_out(&part));
    free(c.y);
    return RUNG_OK;
}

static rung_status measure(const shape *s, rung_backend *be, rung_backend *spec, double seconds, rung_bench_row *row,
                           rung_err *err) {
    struct bed b = {s,
                    be,
                    bench_numbers(count_q(s)),
                    bench_numbers(count_q(s)),
                    bench_numbers(count_k(s)),
                    bench_numbers(count_k(s)),
                    bench_numbers(s->d)};
    rung_status st = RUNG_OK;
    if (!b.x || !b.y || !b.affine || (count_k(s) && (!b.k || !b.v))) {
        st = rung_fail(err, RUNG_ENOMEM, "bench: out of memory");
        goto done;
    }
    const double first = bench_now();
    row->seconds = 1e30;
    for (int runs = 0; runs < 3 || bench_now() - first < seconds; runs++) {
        const double start = bench_now();
        run(&b);
        const double took = bench_now() - start;
        if (took < row->seconds) row->seconds = took;
    }
    row->gflops = operations(s) / row->seconds / 1e9;
    row->gbps = bytes(s) / row->seconds / 1e9;
    row->compared = true;
    st = compare(&b, spec, &row->error, err);
done:
    free(b.x);
    free(b.y);
    free(b.k);
    free(b.v);
    free(b.affine);
    return st;
}

rung_status bench_ops(rung_pool *pool, unsigned cpu, const char *filter, double seconds, rung_bench_row_fn *give,
                      void *arg, size_t *found, rung_err *err) {
    char name[96];
    rung_backend *be = NULL, *spec = NULL;
    rung_status st = rung_cpu_backend_open(&be, pool, cpu, err);
    if (!st) st = rung_cpu_backend_open(&spec, pool, 0, err);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes && !st; i++) {
        name_shape(&shapes[i], name, sizeof name);
        if (filter && !strstr(name, filter)) continue;
        ++*found;
        rung_bench_row row = {.name = name, .isa = rung_cpu_name(cpu), .peak_gflops = rung_bench_peak(pool, cpu)};
        if (operations(&shapes[i]) == 0) row.copy_gbps = rung_bench_copy(pool, (size_t)bytes(&shapes[i]));
        st = measure(&shapes[i], be, spec, seconds, &row, err);
        if (!st) give(arg, &row);
    }
    rung_backend_close(&spec);
    rung_backend_close(&be);
    return st;
}
