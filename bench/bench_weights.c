#define _GNU_SOURCE /* mallinfo2 */
#include "bench/bench_weights.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/backend.h"
#include "kernels/base/cpu.h"
#include "kernels/base/fp6.h"
#include "kernels/base/size.h"
#include "kernels/sparse.h"

/* A layer of a size that networks have, in memory that no cache holds: see evict(). */
enum { N = 4096, K = 4096, EVICT_ROWS = 16, EVICT_FLOATS = 128 << 20, MOST_RUNS = 7 };

static const size_t rows[] = {1, 4, 16, 64, 256, 1024, 4096};
enum { ROWS = sizeof rows / sizeof *rows };

/* What the weights are kept as; sparsity in percent, 0: dense. */
static const struct form {
    const char *name;
    rung_store store;
    rung_dtype dtype; /* of the tensor that it is opened from */
    unsigned sparsity;
} forms[] = {
    {"f32", RUNG_STORE_F32, RUNG_F32, 0},
    {"f16", RUNG_STORE_F16, RUNG_F32, 0},
    {"bf16", RUNG_STORE_BF16, RUNG_F32, 0},
    {"fp6", RUNG_STORE_FP6, RUNG_F32, 0},
    {"fp6 30% sparse", RUNG_STORE_STORED, RUNG_F6_E3M2, 30},
    {"fp6 50% sparse", RUNG_STORE_STORED, RUNG_F6_E3M2, 50},
    {"fp6 70% sparse", RUNG_STORE_STORED, RUNG_F6_E3M2, 70},
    {"fp6 80% sparse", RUNG_STORE_STORED, RUNG_F6_E3M2, 80},
    {"fp6 90% sparse", RUNG_STORE_STORED, RUNG_F6_E3M2, 90},
    {"f16 50% sparse", RUNG_STORE_STORED, RUNG_F16, 50},
    {"f16 80% sparse", RUNG_STORE_STORED, RUNG_F16, 80},
};
enum { FORMS = sizeof forms / sizeof *forms };

struct bed {
    rung_backend *be;
    rung_linear *layer;
    float *x, *y;
    float *sweep; /* what evict() reads */
    size_t bytes; /* that the layer took */
};

/* ---- the tensor of a form ---- */

struct source {
    rung_tensor t;
    float *numbers, *scale;
    uint8_t *bitmap;
    unsigned char *values;
    size_t *row_at;
};

static void source_free(struct source *s) {
    free(s->numbers);
    free(s->scale);
    free(s->bitmap);
    free(s->values);
    free(s->row_at);
}

/* Unstructured: each weight is there or not by a generator of its own. */
static bool is_held(uint32_t *state, unsigned sparsity) {
    *state = *state * 1664525u + 1013904223u;
    return (uint64_t)(*state >> 8) * 100 >> 24 >= sparsity;
}

static void put_value(struct source *s, size_t at, size_t element, uint32_t random) {
    if (s->t.dtype == RUNG_F16) {
        const uint16_t word = rung_f32_to_f16(s->numbers[element] + 1.5f);
        memcpy(s->values + 2 * at, &word, sizeof word);
    } else {
        rung_fp6_put(s->values, at, (uint8_t)(1 + random % 62));
    }
}

static void fill_sparse(struct source *s, unsigned sparsity) {
    uint32_t state = 1;
    size_t at = 0;
    for (size_t r = 0; r < N; r++) {
        for (size_t i = r * K; i < (r + 1) * K; i++) {
            if (!is_held(&state, sparsity)) continue;
            s->bitmap[i / 8] |= (uint8_t)(1u << i % 8);
            put_value(s, at++, i, state >> 9);
        }
        s->row_at[r + 1] = at;
    }
}

static rung_status source_open(struct source *s, const struct form *f, rung_err *err) {
    s->t = (rung_tensor){.dtype = f->dtype, .ndim = 2, .shape = {N, K}};
    s->t.data = s->numbers = bench_numbers((size_t)N * K);
    s->scale = bench_numbers(N);
    s->bitmap = calloc(N, rung_bitmap_bytes(K));
    s->values = calloc((size_t)N * K, 2);
    s->row_at = calloc(N + 1, sizeof *s->row_at);
    if (!s->numbers || !s->scale || !s->bitmap || !s->values || !s->row_at)
        return rung_fail(err, RUNG_ENOMEM, "bench: out of memory");
    if (f->sparsity == 0) return RUNG_OK;
    fill_sparse(s, f->sparsity);
    s->t.data = s->values;
    s->t.bitmap = s->bitmap;
    s->t.row_at = s->row_at;
    if (rung_dtype_bits(f->dtype) == 6) s->t.scale = s->scale;
    return RUNG_OK;
}

/* ---- measuring ---- */

static size_t heap_bytes(void) {
    const struct mallinfo2 m = mallinfo2();
    return m.uordblks + m.hblkhd;
}

static rung_status layer_open(struct bed *b, const struct form *f, rung_err *err) {
    struct source s = {0};
    rung_status st = source_open(&s, f, err);
    if (!st) {
        const rung_tensor *part = &s.t;
        const size_t before = heap_bytes();
        st = b->be->ops->linear_open(b->be, &b->layer, &part, NULL, 1, f->store, err);
        b->bytes = heap_bytes() - before;
    }
    source_free(&s);
    return st;
}

/* Half a gigabyte goes through the caches. */
static void evict(struct bed *b) {
    float sum = 0;
    for (size_t i = 0; i < EVICT_FLOATS; i += 16) sum += b->sweep[i];
    b->sweep[0] = sum * 1e-30f;
}

/* Best of a few runs: three at least, and about `seconds`. */
static double measure(struct bed *b, size_t m, double seconds) {
    double best = 1e30, all = 0;
    for (int run = 0; run < MOST_RUNS && (run < 2 || all < seconds); run++) {
        if (m <= EVICT_ROWS) evict(b);
        const double start = bench_now();
        b->be->ops->linear(b->be, b->y, b->x, K, m, b->layer, NULL);
        const double took = bench_now() - start;
        all += took;
        if (took < best) best = took;
    }
    return best;
}

static const char *name_row(char *buf, size_t cap, const struct form *f, size_t m) {
    snprintf(buf, cap, "weights %zux%dx%d %s", m, N, K, f->name);
    return buf;
}

static bool is_asked_for(const struct form *f, const char *filter) {
    char name[96];
    for (size_t i = 0; i < ROWS; i++)
        if (strstr(name_row(name, sizeof name, f, rows[i]), filter)) return true;
    return false;
}

static rung_status bench_form(struct bed *b, const struct form *f, const rung_bench_row *like, const char *filter,
                              double seconds, rung_bench_row_fn *give, void *arg, rung_err *err) {
    char name[96];
    RUNG_TRY(layer_open(b, f, err));
    for (size_t i = 0; i < ROWS; i++) {
        rung_bench_row row = *like;
        row.name = name_row(name, sizeof name, f, rows[i]);
        if (!strstr(name, filter)) continue;
        row.seconds = measure(b, rows[i], seconds);
        row.gflops = 2.0 * N * K * (double)rows[i] / row.seconds / 1e9;
        row.gbps = (double)b->bytes / row.seconds / 1e9;
        row.bytes_each = (double)b->bytes / N / K;
        give(arg, &row);
    }
    b->be->ops->linear_close(b->be, &b->layer);
    return RUNG_OK;
}

rung_status bench_weights(rung_pool *pool, unsigned cpu, const char *filter, double seconds, rung_bench_row_fn *give,
                          void *arg, size_t *found, rung_err *err) {
    struct bed b = {0};
    rung_status st = RUNG_OK;
    size_t forms_asked = 0;
    for (size_t i = 0; i < FORMS; i++) forms_asked += is_asked_for(&forms[i], filter);
    *found += forms_asked;
    if (forms_asked == 0) return RUNG_OK;
    RUNG_TRY(rung_cpu_backend_open(&b.be, pool, cpu, err));
    b.x = bench_numbers(rows[ROWS - 1] * K);
    b.y = bench_numbers(rows[ROWS - 1] * N);
    b.sweep = calloc(EVICT_FLOATS, sizeof *b.sweep);
    if (!b.x || !b.y || !b.sweep) {
        st = rung_fail(err, RUNG_ENOMEM, "bench: out of memory");
        goto done;
    }
    memset(b.sweep, 1, EVICT_FLOATS * sizeof *b.sweep);
    const rung_bench_row like = {.isa = rung_cpu_name(cpu), .peak_gflops = rung_bench_peak(pool, cpu)};
    for (size_t i = 0; i < FORMS && !st; i++)
        if (is_asked_for(&forms[i], filter)) st = bench_form(&b, &forms[i], &like, filter, seconds, give, arg, err);
done:
    free(b.x);
    free(b.y);
    free(b.sweep);
    rung_backend_close(&b.be);
    return st;
}
