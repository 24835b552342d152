#include "kernels/cpu/elementwise.h"

#include <string.h>

#include "kernels/base/size.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/gemm.h"

enum { CHUNK = 16 << 10 }; /* floats of a task: long against the start of a job, short against a cache */

static void act_ref(float *y, const float *x, size_t n, rung_act act) {
    for (size_t i = 0; i < n; i++) y[i] = (float)gemm_act_ref(x[i], act);
}

static void add_ref(float *y, const float *a, const float *b, size_t n) {
    for (size_t i = 0; i < n; i++) y[i] = a[i] + b[i];
}

const elementwise_kernels elementwise_ref = {act_ref, add_ref};

static const elementwise_kernels *kernels_for(unsigned cpu) {
#ifdef __x86_64__
    if (cpu & RUNG_CPU_AVX512) return &elementwise_avx512;
    if (cpu & RUNG_CPU_AVX2) return &elementwise_avx2;
#endif
    (void)cpu;
    return &elementwise_ref;
}

struct flat_job {
    const elementwise_kernels *k;
    float *y;
    const float *a, *b;
    size_t n;
    rung_act act;
};

static void act_task(void *arg, size_t task, void *scratch) {
    const struct flat_job *j = arg;
    const size_t i = task * CHUNK;
    (void)scratch;
    j->k->act(j->y + i, j->a + i, size_min(CHUNK, j->n - i), j->act);
}

void cpu_act(rung_backend *be, float *y, const float *x, size_t n, rung_act act) {
    struct flat_job j = {.k = kernels_for(cpu_of(be)->cpu), .y = y, .a = x, .n = n, .act = act};
    rung_pool_run(cpu_of(be)->pool, act_task, &j, size_div_up(n, CHUNK));
}

static void add_task(void *arg, size_t task, void *scratch) {
    const struct flat_job *j = arg;
    const size_t i = task * CHUNK;
    (void)scratch;
    j->k->add(j->y + i, j->a + i, j->b + i, size_min(CHUNK, j->n - i));
}

void cpu_add(rung_backend *be, float *y, const float *a, const float *b, size_t n) {
    struct flat_job j = {.k = kernels_for(cpu_of(be)->cpu), .y = y, .a = a, .b = b, .n = n};
    rung_pool_run(cpu_of(be)->pool, add_task, &j, size_div_up(n, CHUNK));
}

/* Rows of n floats; a task takes as many whole rows as make up a chunk. */
struct rows_job {
    const elementwise_kernels *k;
    float *y;
    const float *x, *row;
    size_t rows, n, y_row, x_row; /* y_row, x_row: floats between rows */
    size_t rows_row;              /* add_rows: rows of `row` */
    size_t task_rows;
};

static void run_rows(rung_backend *be, rung_task_fn *fn, struct rows_job *j) {
    if (j->n == 0) return;
    j->k = kernels_for(cpu_of(be)->cpu);
    j->task_rows = size_max(CHUNK / j->n, 1);
    rung_pool_run(cpu_of(be)->pool, fn, j, size_div_up(j->rows, j->task_rows));
}

static void add_rows_task(void *arg, size_t task, void *scratch) {
    const struct rows_job *j = arg;
    const size_t first = task * j->task_rows, end = size_min(first + j->task_rows, j->rows);
    (void)scratch;
    for (size_t r = first; r < end; r++)
        j->k->add(j->y + r * j->n, j->x + r * j->n, j->row + r % j->rows_row * j->n, j->n);
}

void cpu_add_rows(rung_backend *be, float *y, const float *x, const float *row, size_t rows, size_t rows_row,
                  size_t n) {
    struct rows_job j = {.y = y, .x = x, .row = row, .rows = rows, .n = n, .rows_row = rows_row};
    run_rows(be, add_rows_task, &j);
}

static void copy_task(void *arg, size_t task, void *scratch) {
    const struct rows_job *j = arg;
    const size_t first = task * j->task_rows, end = size_min(first + j->task_rows, j->rows);
    (void)scratch;
    for (size_t r = first; r < end; r++) memcpy(j->y + r * j->y_row, j->x + r * j->x_row, j->n * sizeof *j->y);
}

void cpu_copy2d(rung_backend *be, float *dst, size_t dst_row, const float *src, size_t src_row, size_t rows, size_t n) {
    struct rows_job j = {.y = dst, .x = src, .rows = rows, .n = n, .y_row = dst_row, .x_row = src_row};
    run_rows(be, copy_task, &j);
}

void cpu_unpatchify(rung_backend *be, float *y, const float *x, size_t batch, size_t gh, size_t gw, size_t p,
                    size_t ch) {
    const size_t line = p * ch; /* of a patch: p pixels side by side */
    (void)be;
    if (line == 0) return;
    for (size_t row = 0; row < batch * gh * p; row++) { /* rows of the image */
        const float *src = x + (row / p * gw * p + row % p) * line;
        for (size_t gx = 0; gx < gw; gx++, y += line, src += p * line) memcpy(y, src, line * sizeof *y);
    }
}
