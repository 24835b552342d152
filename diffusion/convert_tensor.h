/* diffusion/convert_tensor.h - one tensor, row after row: read, prune, round, pack, write. Internal to diffusion/.
 * No more than a chunk of rows is held at a time, and what was read of the source leaves memory again. */
#ifndef RUNG_CONVERT_TENSOR_H
#define RUNG_CONVERT_TENSOR_H
#include "assets/st_writer.h"
#include "diffusion/convert_plan.h"
#include "diffusion/prune.h"
#include "kernels/base/pool.h"

/** Asked between chunks: anything but 0 ends the work with RUNG_ECANCELLED. */
typedef int convert_stop_fn(void *user);

typedef struct {
    rung_pool *pool;
    convert_stop_fn *stop; /* NULL: never */
    void *user;
} convert_run;

/** What pruning costs: adds the rows of it->source, with it->norm, to the curve. RUNG_EFORMAT: NaN or infinity. */
rung_status convert_measure(const convert_run *run, const convert_item *it, prune_curve *curve, rung_err *err);

/** A tensor with numbers that are too large for F16 keeps its type, or becomes F32: it->to. */
rung_status convert_fit(const convert_run *run, convert_item *it, rung_err *err);

/** Has it been pruned before? Looks at some rows. */
bool convert_has_zeros(const convert_item *it);

/** How many elements are held once pruned and rounded, or, with it->form TILED_CSL, how many items that makes:
 *  it->held. */
rung_status convert_count(const convert_run *run, convert_item *it, rung_err *err);

/** Declares the tensors that `it` becomes in the file: it->values, it->scale, it->map. */
rung_status convert_declare(st_writer *w, convert_item *it, rung_err *err);

/** Writes them, and fills it->sums. RUNG_EFORMAT names a tensor with NaN or infinity where few bits cannot hold them.
 *  The same bytes whatever the number of threads. */
rung_status convert_write(const convert_run *run, st_writer *w, convert_item *it, rung_err *err);

/** Bytes of the declared tensors. */
size_t convert_bytes(const convert_item *it);
#endif
