/* kernels/sparse.h - bitmap + values: which elements of a row are stored, and only those.
 *
 * A matrix [rows, cols] (a convolution weight: cols = ic * kh * kw) has a mask of ceil(cols / 8) bytes for each row,
 * bit c % 8 of byte c / 8 for column c, the bits behind the last column 0; and the stored values of all rows, in the
 * order of rows and columns, without gaps. Only what is exactly +0 is left out: -0 and NaN are stored, so nothing is
 * lost, whatever the density. Bytes for a weight at density d: 1/8 + 0.75 d with six-bit values, 1/8 + 2 d with 16-bit
 * ones.
 */
#ifndef RUNG_SPARSE_H
#define RUNG_SPARSE_H
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/tensor.h"

static inline size_t rung_bitmap_bytes(size_t cols) { return cols / 8 + (cols % 8 != 0); } /* of one row */

/** One row: mask [rung_bitmap_bytes(cols)], the stored values to `held` (room for cols); how many. For six-bit codes
 * one a byte, and for 16-bit words. */
size_t rung_sparse_pack_codes(uint8_t *mask, uint8_t *held, const uint8_t *codes, size_t cols);
size_t rung_sparse_pack_words(uint8_t *mask, uint16_t *held, const uint16_t *words, size_t cols);

/**
 * row_at [rows + 1] from the masks: where each row's values begin. False when a bit is set behind the last column;
 * *bad_row says where.
 */
bool rung_sparse_rows(size_t *row_at, const uint8_t *bitmap, size_t rows, size_t cols, size_t *bad_row);

/* How a matrix lies in a model file. */
typedef enum { RUNG_FORM_DENSE, RUNG_FORM_BITMAP, RUNG_FORM_TILED_CSL } rung_form;

/** Bytes in the file, without row scales. `held`: elements that are not +0. Tiled-CSL: with two items of padding a
 * tile. */
size_t rung_form_bytes(rung_form form, rung_dtype values, size_t rows, size_t cols, size_t held);

/* How long a product takes with weights that are kept sparse, against the same weights kept dense: at sparsities of 0,
 * 10, ... 90%. A bitmap and Tiled-CSL are one form once they are loaded. */
enum { RUNG_FORM_STEPS = 10 };
typedef struct {
    float sparse[RUNG_FORM_STEPS];
} rung_form_times;

/** Between the steps: on the line; beyond the last one: as there. */
double rung_form_time(const rung_form_times *t, double sparsity);

/**
 * The form for `held` of rows x cols (none of them 0): the smallest, but a sparse one only where it saves a twentieth
 * of the bytes at least. With `times`, which may be NULL, it is the product of bytes and time that must not exceed the
 * dense form's. The time that a sparse form takes is not known here otherwise: see docs/PERFORMANCE.md.
 */
rung_form rung_form_choose(rung_dtype values, size_t rows, size_t cols, size_t held, const rung_form_times *times);
#endif
