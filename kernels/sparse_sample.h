/* kernels/sparse_sample.h - a tensor of random weights of which a given share is zero, in no order: what sparse
 * products are timed with. */
#ifndef RUNG_SPARSE_SAMPLE_H
#define RUNG_SPARSE_SAMPLE_H
#include "kernels/base/tensor.h"

typedef struct {
    rung_tensor t; /* borrows what follows */
    float *scale;  /* of six-bit types */
    uint8_t *bitmap;
    unsigned char *values;
    size_t *row_at;
} sparse_sample;

/** dtype F16, BF16, F6_E3M2 or F6_E2M3; zeros: how many of a hundred weights, 0: a dense tensor. The same numbers every
 *  time. RUNG_ENOMEM, and *s is to be closed all the same. */
rung_status sparse_sample_open(sparse_sample *s, rung_dtype dtype, size_t rows, size_t cols, unsigned zeros,
                               rung_err *err);
void sparse_sample_close(sparse_sample *s); /* zeroed is fine */
#endif
