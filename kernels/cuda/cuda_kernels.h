/* kernels/cuda/cuda_kernels.h - the simple kernels' launches: device pointers, asynchronous on `s`. Errors are
 * cudaGetLastError()'s. Meanings of the operations: kernels/backend.h. Internal; read by C and by the .cu files. */
#ifndef RUNG_CUDA_KERNELS_H
#define RUNG_CUDA_KERNELS_H
#include <cuda_runtime_api.h>
#ifdef __cplusplus
extern "C" {
#endif
#include "kernels/backend.h"

/* ---- cuda_norm.cu ---- */

typedef struct {
    float *y;
    const float *x; /* [rows, n] */
    size_t rows, n;
    const float *w, *b; /* [n]; NULL: 1, 0 */
    float eps;
    const float *mod_scale, *mod_shift; /* both or none */
    size_t mod_stride, rows_per_sample;
} cuda_layer_norm_args;
void cuda_k_layer_norm(cudaStream_t s, const cuda_layer_norm_args *a);
void cuda_k_rms_norm(cudaStream_t s, float *y, const float *x, size_t rows, size_t n, const float *w, float eps);

typedef struct {
    const float *x; /* [batch, pixels, ch] */
    size_t batch, pixels, ch, groups;
    const float *w, *b; /* [ch]; NULL: 1, 0 */
    float eps;
    void *scratch; /* cuda_k_group_scratch() bytes */
} cuda_group_args;
size_t cuda_k_group_scratch(const cuda_group_args *a);
/** Statistics into the scratch, for the two that follow. */
void cuda_k_group_stats(cudaStream_t s, const cuda_group_args *a);
void cuda_k_group_norm(cudaStream_t s, float *y, const cuda_group_args *a, rung_act act);
void cuda_k_group_affine(cudaStream_t s, float *scale, float *shift, const cuda_group_args *a);

/* ---- cuda_elementwise.cu ---- */

void cuda_k_act(cudaStream_t s, float *y, const float *x, size_t n, rung_act act);
void cuda_k_add(cudaStream_t s, float *y, const float *a, const float *b, size_t n);
void cuda_k_add_rows(cudaStream_t s, float *y, const float *x, const float *row, size_t rows, size_t rows_row,
                     size_t n);
void cuda_k_copy2d(cudaStream_t s, float *dst, size_t dst_row, const float *src, size_t src_row, size_t rows, size_t n);
void cuda_k_unpatchify(cudaStream_t s, float *y, const float *x, size_t batch, size_t gh, size_t gw, size_t p,
                       size_t ch);

/* Rows to look up, as they are stored; E3M2: a stream of codes (kernels/base/fp6.h). */
typedef enum { CUDA_ROWS_F32, CUDA_ROWS_F16, CUDA_ROWS_BF16, CUDA_ROWS_E3M2 } cuda_row_kind;
typedef struct {
    const void *numbers; /* [rows, n] */
    const float *scale;  /* f32 [rows]; NULL: 1 */
    cuda_row_kind kind;
    size_t n;
} cuda_row_source;
/** y [rows, n]: rows ids[0], ids[1], ... (device memory too). */
void cuda_k_lookup(cudaStream_t s, float *y, const cuda_row_source *from, const int32_t *ids, size_t rows);

/* ---- cuda_step.cu ---- */

void cuda_k_sinusoids(cudaStream_t s, float *y, const float *t, size_t rows, size_t dim, bool flip, double shift);
void cuda_k_combine(cudaStream_t s, float *y, const rung_term *terms, size_t count, float over, size_t n);
void cuda_k_normal(cudaStream_t s, float *y, size_t n, uint64_t seed, uint64_t offset);

/* ---- cuda_gather.cu: activations as the tensor cores want them ---- */

typedef enum { CUDA_X_F32, CUDA_X_F16, CUDA_X_BF16 } cuda_x_kind;

/** y [rows, row] = x [rows, k], rounded, zeros from k to `row`. *range becomes 1 when a number does not fit f16. bf16:
 *  y [2, rows, row], then what the first rounding left, rounded. */
void cuda_k_narrow(cudaStream_t s, void *y, cuda_x_kind kind, size_t row, const float *x, size_t x_row, size_t rows,
                   size_t k, unsigned *range);

/* Patches of an image as rows: [batch * oh * ow, kh * kw, cp], channels from ch to cp zero. With kh = kw = 1 and stride
 * 1 it is the image itself, enlarged, padded and rounded. */
typedef struct {
    const float *x;                     /* [batch, h, w, ch] */
    size_t batch, h, w, ch, cp, uh, uw; /* uh, uw: after nearest enlargement */
    size_t kh, kw, stride, pad_top, pad_left, oh, ow;
    const float *scale, *shift; /* f32 [batch, ch] or NULL */
    rung_act act;
} cuda_patches;
/** Rows first .. first + rows. */
void cuda_k_patches(cudaStream_t s, void *y, cuda_x_kind kind, const cuda_patches *p, size_t first, size_t rows,
                    unsigned *range);

/** y f32 [n] = x bf16 [n]; n even. */
void cuda_k_widen_bf16(cudaStream_t s, float *y, const uint16_t *x, size_t n);

/** y [n, k] f16 = the codes of [n, k / 8, 6 bytes]; k a multiple of 8. */
void cuda_k_expand_fp6(cudaStream_t s, uint16_t *y, const unsigned char *codes, size_t n, size_t k);

/* ---- cuda_epilogue.cu ---- */

/* Sums to y through the whole of rung_epilogue, as kernels/backend.h has it. */
typedef struct {
    float *y; /* [m, n], or [m, n / 2] for GEGLU */
    size_t y_row;
    const void *sums; /* f32 or f16 [m, n], rows sums_row elements apart; may be y for f32 without GEGLU */
    cuda_x_kind kind;
    size_t sums_row, m, n;
    const float *scale, *bias; /* [n]; NULL: 1, 0 */
    rung_epilogue ep;
    unsigned *range; /* *range becomes 1 for an infinite f16 sum */
} cuda_epilogue_args;
void cuda_k_epilogue(cudaStream_t s, const cuda_epilogue_args *a);

#ifdef __cplusplus
}
#endif
#endif
