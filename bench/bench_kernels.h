/* bench/bench_kernels.h - how fast the CPU's operations are: products and attention as a share of what its FMA units
 * can do in the same run, the others by the bytes they move. */
#ifndef RUNG_BENCH_KERNELS_H
#define RUNG_BENCH_KERNELS_H
#include <stdbool.h>

#include "kernels/base/err.h"
#include "kernels/base/pool.h"

/* One measured shape. */
typedef struct {
    const char *name; /* "linear 4096x320x320 fp6": rows, columns, depth, and what the weights are kept as */
    const char *isa;  /* rung_cpu_name() */
    double seconds;   /* best of several runs */
    double gflops;    /* 0 where bytes are what counts; 2 * multiply-adds of the definition / seconds: Winograd may pass
                         the peak */
    double peak_gflops; /* of all threads, measured just before */
    double gbps;        /* bytes that must move / seconds: packed weights (products), else what is read and written */
    double copy_gbps;   /* what copying as many bytes reaches, measured just before; 0: not measured */
    bool compared;      /* with the specification in f64: a corner of the output, or all of it */
    double error;       /* relative 2-norm */
    double bytes_each;  /* that a weight takes in memory, scales and all; 0: not measured */
} rung_bench_row;

typedef void rung_bench_row_fn(void *arg, const rung_bench_row *row);

/** FMAs in registers on all threads of the pool; best of a few runs. `cpu` without AVX2: one scalar FMA unit's worth.
 */
double rung_bench_peak(rung_pool *pool, unsigned cpu);

/** GB/s at which all threads of the pool copy bytes / 2, read and written counted: best of a few runs. 0: no memory. */
double rung_bench_copy(rung_pool *pool, size_t bytes);

/**
 * Measures every shape whose name contains `filter` (NULL: all but the tables of weights and of the ways to make 3x3
 * convolutions, "winograd", which take a minute each) for
 * about `seconds` each, and gives each row to `row` when it is done; the row lives until `row` returns. RUNG_ENOMEM;
 * RUNG_EARG: no shape has such a name.
 */
rung_status rung_bench_kernels(rung_pool *pool, unsigned cpu, const char *filter, double seconds,
                               rung_bench_row_fn *row, void *arg, rung_err *err);
#endif
