/* bench/bench_ladder.h - what the ladder residual gains over ranks: the same transformer with its modules in standard,
 * ladder and parallel order, and without its reduces, which bounds what hiding them can bring. */
#ifndef RUNG_BENCH_LADDER_H
#define RUNG_BENCH_LADDER_H
#include "kernels/base/comm.h"
#include "kernels/base/pool.h"

typedef struct {
    const char *model; /* "icons", "pixart-xl/8": with 8 of its 28 layers, random weights */
    int ranks;
    const char *link, *progress;
    const char *mode;    /* "standard", "ladder", "parallel", "no-comm" */
    double step, waited; /* seconds: median of a step, and what rank 0 waited for transfers in it */
    size_t modules;      /* of a step */
    double reduce;       /* seconds of one module's reduce with nothing beside it */
    double reduce_share; /* what a standard module waits for its reduce / what it computes (a step without reduces) */
    size_t reduce_bytes;
    double recovered; /* (standard - ladder) / (standard - no-comm), in the ladder's row; else 0 */
    double predicted; /* the same from reduce_share alone, for one link that serves reduces in order */
} bench_ladder_row;

typedef void bench_ladder_row_fn(void *arg, const bench_ladder_row *row);

typedef struct {
    /* The shipped model's folder; names for the rows. Link "simulated:4": one of 4 Gbit/s is (bench/slow_link.h). */
    const char *model, *link, *progress;
    bench_ladder_row_fn *row; /* NULL: this rank gives none */
    void *arg;
} bench_ladder_options;

/** Every rank calls it. Weights of random networks are written under $TMPDIR and removed. Modes take turns, step by
 *  step. comm NULL: one rank. RUNG_EARG (the link's rate), RUNG_EIO, RUNG_ENOMEM, RUNG_EPEER. */
rung_status bench_ladder_run(rung_comm *comm, rung_pool *pool, unsigned cpu, const bench_ladder_options *o,
                             rung_err *err);

/** recovered by the timing rules of arXiv 2501.06589: modules of one second, reduces of `share` seconds on one link.
 *  Module i begins when i-1 has ended and i-2 is reduced. */
double bench_ladder_predict(size_t modules, double share);
#endif
