/* assets/weights.h - the tensors of one network, by name: one .safetensors file, a sharded set, or a part of an ldm
 * single file seen under diffusers names. Files are mapped, tensors are views into them. */
#ifndef RUNG_WEIGHTS_H
#define RUNG_WEIGHTS_H
#include <stdbool.h>
#include <stddef.h>

#include "kernels/base/tensor.h"

typedef struct rung_weights rung_weights;

/** `path`: a .safetensors file or a .safetensors.index.json. RUNG_EIO, RUNG_EFORMAT, RUNG_ENOMEM. */
rung_status rung_weights_open(rung_weights **out, const char *path, rung_err *err);
void rung_weights_close(rung_weights **w);

size_t rung_weights_count(const rung_weights *w);
/** i-th tensor in name order; the pieces of six-bit and sparse tensors (docs/WEIGHT_FILES.md) are one tensor here. */
const char *rung_weights_name(const rung_weights *w, size_t i);
const rung_tensor *rung_weights_tensor(const rung_weights *w, size_t i);

/** NULL when there is none; otherwise the tensor counts as used. */
const rung_tensor *rung_weights_find(rung_weights *w, const char *name);
bool rung_weights_has(const rung_weights *w, const char *name); /* marks nothing */

/** RUNG_EFORMAT naming up to three tensors that nobody has asked for (buffers such as position_ids are no surplus). */
rung_status rung_weights_check_used(const rung_weights *w, rung_err *err);
const char *rung_weights_path(const rung_weights *w);

/** The pages that hold bytes of a file's tensor leave this process; they come back, from the file, when read again. For
 *  those who walk through files larger than their memory. Bytes that lie in no file of w stay. */
void rung_weights_release(const rung_weights *w, const void *data, size_t bytes);

/** What two ranks compare: names, dtypes, shapes and contents. Files of up to 1 GiB are read whole, of larger ones 64
 *  bytes in each 16 KiB. */
uint64_t rung_weights_hash(const rung_weights *w);
#endif
