#define _POSIX_C_SOURCE 200809L /* clock_gettime */
#include "diffusion/form_times.h"

#include <math.h>
#include <stdlib.h>
#include <time.h>

#include "kernels/backend.h"
#include "kernels/base/cpu.h"
#include "kernels/sparse_sample.h"

enum { SIDE = 1280, RUNS = 5 }; /* a layer as Stable Diffusion has many */

static const size_t row_counts[] = {2, 77, 1024};
enum { ROW_COUNTS = sizeof row_counts / sizeof *row_counts, MOST_ROWS = 1024 };

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

struct bed {
    rung_backend *be;
    rung_dtype values;
    float *x, *y; /* [MOST_ROWS, SIDE] */
};

/* Seconds with each number of rows, the best of a few runs. */
static rung_status measure(const struct bed *b, unsigned zeros, double seconds[ROW_COUNTS], rung_err *err) {
    sparse_sample s;
    rung_linear *layer = NULL;
    const rung_tensor *part = &s.t;
    rung_status st = sparse_sample_open(&s, b->values, SIDE, SIDE, zeros, err);
    if (!st) st = b->be->ops->linear_open(b->be, &layer, &part, NULL, 1, RUNG_STORE_STORED, err);
    for (size_t i = 0; !st && i < ROW_COUNTS; i++) {
        seconds[i] = INFINITY;
        for (int run = 0; run < RUNS; run++) {
            const double start = now();
            b->be->ops->linear(b->be, b->y, b->x, SIDE, row_counts[i], layer, NULL);
            seconds[i] = fmin(seconds[i], now() - start);
        }
    }
    b->be->ops->linear_close(b->be, &layer);
    sparse_sample_close(&s);
    return st;
}

static rung_status measure_all(const struct bed *b, rung_form_times *t, rung_err *err) {
    double dense[ROW_COUNTS], sparse[ROW_COUNTS];
    RUNG_TRY(measure(b, 0, dense, err));
    for (unsigned step = 0; step < RUNG_FORM_STEPS; step++) {
        double product = 1;
        /* without any zero it is the dense form: one in a hundred */
        RUNG_TRY(measure(b, step ? step * 100 / RUNG_FORM_STEPS : 1, sparse, err));
        for (size_t i = 0; i < ROW_COUNTS; i++) product *= sparse[i] / dense[i];
        t->sparse[step] = (float)pow(product, 1.0 / ROW_COUNTS);
    }
    return RUNG_OK;
}

rung_status form_times_measure(rung_form_times *t, rung_pool *pool, rung_dtype values, rung_err *err) {
    struct bed b = {.values = values};
    unsigned mask;
    rung_status st;
    if (rung_dtype_bits(values) == 5) b.values = RUNG_F6_E2M3;
    if (values == RUNG_F32) b.values = RUNG_F16;
    RUNG_TRY(rung_cpu_mask(&mask, err));
    RUNG_TRY(rung_cpu_backend_open(&b.be, pool, rung_cpu_detect() & mask, err));
    b.x = calloc(MOST_ROWS * SIDE, sizeof *b.x);
    b.y = calloc(MOST_ROWS * SIDE, sizeof *b.y);
    st = b.x && b.y ? measure_all(&b, t, err) : rung_fail(err, RUNG_ENOMEM, "convert: no memory to measure times");
    free(b.x);
    free(b.y);
    rung_backend_close(&b.be);
    return st;
}
