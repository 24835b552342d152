/* bench/bench_ops.h - attention, normalisations and elementwise operations, for bench_kernels.c. Internal to bench/. */
#ifndef RUNG_BENCH_OPS_H
#define RUNG_BENCH_OPS_H
#include <stddef.h>

#include "bench/bench_kernels.h"

/** As rung_bench_kernels, for the operations without weights; *found counts the shapes that `filter` lets through. */
rung_status bench_ops(rung_pool *pool, unsigned cpu, const char *filter, double seconds, rung_bench_row_fn *row,
                      void *arg, size_t *found, rung_err *err);

/* What all measurements here share. */
double bench_now(void);         /* seconds of a clock that only goes forward */
float *bench_numbers(size_t n); /* small numbers in [-1, 1), any will do; the caller frees; NULL: no memory */
/* Relative 2-norm of the error of got [rows, n], its rows got_row floats apart, against want [rows, n]. */
double bench_error(const float *got, size_t got_row, const float *want, size_t rows, size_t n);

#endif
