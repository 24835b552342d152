/* diffusion/parallel.h - --parallel: how the processes of a launch share the work. */
#ifndef RUNG_PARALLEL_H
#define RUNG_PARALLEL_H
#include <stdbool.h>

#include "kernels/base/comm_mpi.h"

/* What the user asked for; 0 and false: nothing said. */
typedef struct {
    int tp, cfg;
    bool batch;
    double timeout;
    rung_progress progress;
} parallel_spec;

/** "tp=4,cfg=2", "batch", "tp=2,batch,timeout=30,progress=thread". text NULL: nothing said. RUNG_EARG. */
rung_status parallel_parse(parallel_spec *s, const char *text, rung_err *err);

/* tp ranks cut the network, cfg = 2 shares out the guidance pair, groups of tp * cfg ranks draw different pictures. */
typedef struct {
    int tp, cfg;
} parallel_layout;

/**
 * The layout over `ranks`. With nothing said: many pictures are shared out among the ranks; one guided picture goes to
 * an even number of ranks in two halves, each cut over half the ranks; any other is cut over all.
 * RUNG_EARG: the numbers do not multiply to `ranks`.
 */
rung_status parallel_choose(parallel_layout *out, const parallel_spec *s, int ranks, bool many, bool guided,
                            rung_err *err);
#endif
