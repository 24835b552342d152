/* kernels/base/tensor.h - what a model file holds: a dtype, a shape, and bytes that somebody else owns. */
#ifndef RUNG_TENSOR_H
#define RUNG_TENSOR_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/err.h"

/* The dtypes of safetensors, and two five-bit ones that it lacks (docs/WEIGHT_FILES.md). The order is the order of
 * rung_dtype_name's table. */
typedef enum {
    RUNG_F64, RUNG_F32, RUNG_F16, RUNG_BF16, RUNG_F8_E4M3, RUNG_F8_E5M2, RUNG_F6_E3M2, RUNG_F6_E2M3, RUNG_F5_E3M1,
    RUNG_F5_E2M2,
    RUNG_I64, RUNG_I32, RUNG_I16, RUNG_I8, RUNG_U64, RUNG_U32, RUNG_U16, RUNG_U8, RUNG_BOOL,
    RUNG_DTYPES,
} rung_dtype;

enum { RUNG_MAX_DIMS = 8 };

/* A view: `data` and `scale` belong to the mapped file. */
typedef struct {
    rung_dtype dtype;
    int ndim;
    size_t shape[RUNG_MAX_DIMS]; /* row-major, the last dimension is contiguous */
    const void *data;            /* little-endian, any alignment; six- and five-bit dtypes: a stream of codes, the first
                                    code in the most significant bits (kernels/base/fp6.h) */
    const float *scale;          /* f32 [shape[0]], any alignment: what row r is multiplied by; NULL: 1 */
    const char *name;            /* in its file, borrowed, for messages and reports; NULL: none */
    /* Sparse (kernels/sparse.h): `data` holds only the elements whose bit is set, row after row. NULL: dense. */
    const uint8_t *bitmap; /* [shape[0], ceil(elements of a row / 8)]: element c is bit c % 8 of byte c / 8 */
    const size_t *row_at;  /* [shape[0] + 1]: where in `data` a row begins, in elements */
    bool tiled;            /* its file has it in Tiled-CSL; here it is a bitmap and values like the others */
} rung_tensor;

unsigned rung_dtype_bits(rung_dtype t);     /* 6 for the six-bit ones */
const char *rung_dtype_name(rung_dtype t);  /* "F16", "F6_E3M2", ... as in safetensors */
bool rung_dtype_from_name(const char *name, rung_dtype *out);
bool rung_dtype_is_float(rung_dtype t);

size_t rung_tensor_count(const rung_tensor *t); /* elements; the file reader has checked the product */
size_t rung_tensor_row(const rung_tensor *t);   /* elements of a row: the product of all dimensions but the first */
size_t rung_tensor_bytes(const rung_tensor *t); /* of values, bitmap and f32 scales */

/** "[320, 4, 3, 3]" into buf; for messages. Returns buf. */
const char *rung_tensor_shape_text(const rung_tensor *t, char *buf, size_t cap);

/**
 * Elements [first, first + n) as f32 into out, row scale applied; what a sparse tensor does not hold is 0. Any `first`.
 * Float dtypes only: RUNG_EFORMAT names the dtype otherwise. first + n <= count.
 */
rung_status rung_tensor_to_f32(const rung_tensor *t, size_t first, size_t n, float *out, rung_err *err);

/* Scalar conversions. To 16 bits: round to nearest even, overflow to infinity, NaN stays NaN. */
float rung_f16_to_f32(uint16_t h);
uint16_t rung_f32_to_f16(float f);
float rung_bf16_to_f32(uint16_t h);
uint16_t rung_f32_to_bf16(float f);
float rung_f8_e4m3_to_f32(uint8_t c); /* the "fn" form: no infinity, 0x7f is NaN */
float rung_f8_e5m2_to_f32(uint8_t c);
#endif
