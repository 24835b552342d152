/* kernels/weight_rows.h - the half of packing that no layout changes: a stack of weight tensors, checked, its dtype
 * chosen, and read row by row as f32. Each backend puts the rows where its kernels want them. Internal to kernels/. */
#ifndef RUNG_WEIGHT_ROWS_H
#define RUNG_WEIGHT_ROWS_H
#include "kernels/backend.h"

/* FP6 is E3M2. E2M3: what the CPU's panels may be of, no stack's dtype. */
typedef enum { GEMM_F32, GEMM_F16, GEMM_BF16, GEMM_FP6, GEMM_E2M3 } gemm_dtype;

/* One tensor of a stack. taps > 1: the tensor is [n, k / taps, taps] (a convolution's oc, ic, kh * kw) and its rows are
 * read with the channels last, k = tap * channels + channel. */
typedef struct {
    const rung_tensor *w, *bias; /* bias NULL: none */
    size_t taps;
} gemm_part;

/* What a stack becomes: [n, k] in `dtype`, with a factor for each row, with a bias. */
typedef struct {
    gemm_dtype dtype;
    size_t n, k;
    bool scale, bias;
    /* Every part is sparse, in this type of values, and stays smaller so: a backend may keep the rows sparse, with
     * `held` numbers that are not 0 at most. They are exact in `values`. */
    bool sparse;
    rung_dtype values;
    size_t held;
} weight_stack;

/** One packed dtype for the whole stack: parts that disagree meet in f16 when that is exact for all, else in f32.
 *  RUNG_ESHAPE: parts do not fit each other or a bias. */
rung_status weight_stack_of(weight_stack *out, const gemm_part *parts, size_t count, rung_store store, rung_err *err);

/** Row `row` of the stack: k numbers, to be multiplied by `scale` once they are rounded to the stack's dtype (1 unless
 *  the stack has factors). In GEMM_FP6 they are at most 28 in size. */
typedef rung_status weight_row_fn(void *user, size_t row, const float *numbers, float scale, rung_err *err);

/** Every row in order to `put`. bias f32 [n], zeroed by the caller; not read when the stack has none.
 *  RUNG_EFORMAT (dtype; NaN or infinity where FP6 is asked for), RUNG_ENOMEM, and what `put` says. */
rung_status weight_stack_read(const weight_stack *s, const gemm_part *parts, size_t count, weight_row_fn *put,
                              void *user, float *bias, rung_err *err);
#endif
