/* assets/tensor_cut.h - a part of a stored tensor, for one rank of several. Internal to assets/. */
#ifndef RUNG_TENSOR_CUT_H
#define RUNG_TENSOR_CUT_H
#include "kernels/base/comm.h"
#include "kernels/base/tensor.h"

/** Rows of t (shape[0]) as a view of its bytes, row scales and bitmap too. False where a row of five- or six-bit codes
 *  ends inside a byte. */
bool tensor_rows(const rung_tensor *t, rung_share rows, rung_tensor *out);

/**
 * Columns of t, elements along shape[1], of every row, copied: *owned is malloc'd and holds the data, the bitmap and new
 * scales of *out. as_fp6: what is not F6_E3M2 yet becomes that, with the scale that the whole row gets when nothing is
 * cut, and dense. RUNG_EFORMAT (no finite number), RUNG_ENOMEM.
 */
rung_status tensor_cols(const rung_tensor *t, rung_share cols, bool as_fp6, rung_tensor *out, void **owned,
                        rung_err *err);
#endif
