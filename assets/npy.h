/* assets/npy.h - numpy's .npy files, f32 (f16 and f64 are converted on reading), C order. */
#ifndef RUNG_NPY_H
#define RUNG_NPY_H
#include <stddef.h>

#include "kernels/base/err.h"

typedef struct {
    int ndim;
    size_t shape[8];
    size_t count;
    float *data; /* owned: rung_npy_free */
} rung_npy;

/** RUNG_EIO; RUNG_EFORMAT for another dtype, Fortran order, a length that does not match. */
rung_status rung_npy_read(rung_npy *out, const char *path, rung_err *err);
void rung_npy_free(rung_npy *a);
/** Written beside and renamed: `path` is whole or untouched. */
rung_status rung_npy_write(const char *path, const float *data, int ndim, const size_t *shape, rung_err *err);
#endif
