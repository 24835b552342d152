/* bench/bench_weights.h - one linear layer, its weights kept as everything that they may be kept as, from one row to
 * thousands. Internal to bench/. */
#ifndef RUNG_BENCH_WEIGHTS_H
#define RUNG_BENCH_WEIGHTS_H
#include "bench/bench_ops.h"

/** As bench_ops. Up to 16 rows the weights come from memory: the caches are swept before each run. GFLOPS are those of
 *  the dense product, also where most of it is skipped. */
rung_status bench_weights(rung_pool *pool, unsigned cpu, const char *filter, double seconds, rung_bench_row_fn *row,
                          void *arg, size_t *found, rung_err *err);
#endif
