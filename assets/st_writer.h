/* assets/st_writer.h - a .safetensors file that is laid out first and then filled, tensor by tensor, in any order. The
 * bytes of the file depend on what was added and put alone. Internal to assets/ and to rung convert.
 *
 * Layout: tensors by the size of their elements, largest first, then by name: all are aligned for readers that need it.
 */
#ifndef RUNG_ST_WRITER_H
#define RUNG_ST_WRITER_H
#include <stdbool.h>

#include "kernels/base/tensor.h"

typedef struct st_writer st_writer;

/** Nothing is written yet. RUNG_ENOMEM. */
rung_status st_writer_open(st_writer **out, const char *path, rung_err *err);
/** Closes the file, finished or not; it stays. NULL and *w == NULL are fine. */
void st_writer_close(st_writer **w);

/** A line of __metadata__. RUNG_ENOMEM. */
rung_status st_writer_meta(st_writer *w, const char *key, const char *value, rung_err *err);
/** A tensor: name, dtype and shape of `t`. *id (0, 1, ...) is for st_writer_put. RUNG_EFORMAT: a name twice (at
 *  st_writer_start), or a size that is no whole number of bytes; RUNG_ENOMEM. */
rung_status st_writer_add(st_writer *w, const rung_tensor *t, const char *name, size_t *id, rung_err *err);

/** Makes the file at its final size, the header in it. *again: may a file that is there already with this header and
 *  size be continued, its bytes as they are? Afterwards: is it? NULL: it may not. RUNG_EIO: among others when the disk
 *  has no room. */
rung_status st_writer_start(st_writer *w, bool *again, rung_err *err);
/** Bytes [at, at + n) of tensor `id`. RUNG_EIO. */
rung_status st_writer_put(st_writer *w, size_t id, size_t at, const void *bytes, size_t n, rung_err *err);
/** What was put is on the disk. RUNG_EIO. */
rung_status st_writer_sync(st_writer *w, rung_err *err);

size_t st_writer_bytes(const st_writer *w); /* of the whole file; after st_writer_start */
#endif
