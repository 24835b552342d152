#define _GNU_SOURCE /* mallinfo2 */
#include "bench/bench_weights.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/backend.h"
#include "kernels/base/cpu.h"
#include "kernels/sparse_sample.h"

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
    {"e2m3", RUNG_STORE_STORED, RUNG_F6_E2M3, 0},
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

/* ---- measuring ---- */

/* Of a block that the C library maps by itself it counts the gap before the aligned part too: see bench_weights(). */
static size_t heap_bytes(void) {
    const struct mallinfo2 m = mallinfo2();
    return m.uordblks + m.hblkhd;
}

static rung_status layer_open(struct bed *b, const struct form *f, rung_err *err) {
    sparse_sample s = {0};
    float *numbers = f->dtype == RUNG_F32 ? bench_numbers((size_t)N * K) : NULL;
    const rung_tensor dense = {.dtype = RUNG_F32, .ndim = 2, .shape = {N, K}, .data = numbers};
    const rung_tensor *part = numbers ? &dense : &s.t;
    rung_status st = RUNG_OK;
    if (f->dtype != RUNG_F32)
        st = sparse_sample_open(&s, f->dtype, N, K, f->sparsity, err);
    else if (!numbers)
        st = rung_fail(err, RUNG_ENOMEM, "bench: out of memory");
    const size_t before = heap_bytes();
    if (!st) st = b->be->ops->linear_open(b->be, &b->layer, &part, NULL, 1, f->store, err);
    b->bytes = heap_bytes() - before;
    sparse_sample_close(&s);
    free(numbers);
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
    enum { MAPPED_AT_MOST = 65536 }; /* glibc's own setting */
    RUNG_TRY(rung_cpu_backend_open(&b.be, pool, cpu, err));
    mallopt(M_MMAP_MAX, 0); /* all of it from the heap, whose bytes are counted */
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
    mallopt(M_MMAP_MAX, MAPPED_AT_MOST);
    rung_backend_close(&b.be);
    return st;
}
