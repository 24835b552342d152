/* kernels/cuda/cuda_tc.h - the tensor-core kernels' launches: device pointers, asynchronous on `s`, errors are
 * cudaGetLastError()'s. Read by C and by the .cu files. All products run on mma.sync m16n8k16 with f32 accumulation. */
#ifndef RUNG_CUDA_TC_H
#define RUNG_CUDA_TC_H
#include <cuda_runtime_api.h>
#ifdef __cplusplus
extern "C" {
#endif
#include "kernels/backend.h"
#include "kernels/cuda/cuda_kernels.h"

#ifdef __CUDACC__
#define CUDA_TC_BOTH static inline __host__ __device__
#else
#define CUDA_TC_BOTH static inline
#endif

/* ---- cuda_attention.cu ---- */

/** Bytes of scratch: k and v as f16. */
size_t cuda_k_attention_scratch(const rung_attention_args *a);

/**
 * The operation of kernels/backend.h on f32 device memory, any head dimension, any strides. q, k and v are rounded to
 * f16, and the probabilities before they meet v; scores, biases, softmax and sums are f32. `scratch`: 16-byte aligned.
 * *range becomes 1 when a number of q, k or v does not fit f16. The order of the sums is fixed.
 */
void cuda_k_attention(cudaStream_t s, const rung_attention_args *a, void *scratch, unsigned *range);

/* ---- cuda_fpx.cu, cuda_spmm.cu, cuda_bitmap.cu: y [m, n] = epilogue(x [m, k] w^T) for packed weights [n, k] --------
 */

typedef struct {
    const void *x; /* f16, or bf16, [m, k]; 16-byte aligned; two_parts: [2, m, k], to be added */
    size_t x_row;  /* elements between rows; a multiple of 8 */
    bool bf16, two_parts;
    size_t k;               /* a multiple of 8; columns behind the weight's own are 0 in x or in w */
    cuda_epilogue_args out; /* y, y_row, m, n, scale, bias, ep; the others are not looked at */
    unsigned splits;        /* parts of k that are summed apart and then added in their order; at least 1 */
    float *split;           /* f32 [splits, rows of x, n]: see cuda_tc_needs_split */
} cuda_tc_gemm;

CUDA_TC_BOTH size_t cuda_tc_rows(const cuda_tc_gemm *g) { /* of x */
    return g->two_parts ? 2 * g->out.m : g->out.m;
}

CUDA_TC_BOTH bool cuda_tc_needs_split(const cuda_tc_gemm *g) {
    return g->splits > 1 || g->two_parts || g->out.ep.act == RUNG_ACT_GEGLU;
}

/* Columns of y that a block makes. */
enum { CUDA_TC_FPX_ROWS = 256, CUDA_TC_TILE_ROWS = 128 };

/** Parts of k to sum apart so that few rows of x still fill `multiprocessors`; tile_rows: FPX_ROWS for TC-FPx,
 * TILE_ROWS for the others. */
unsigned cuda_tc_splits(size_t m, size_t n, size_t k, unsigned tile_rows, int multiprocessors);

/** w: TC-FPx, six bits (kernels/tc_fpx.h), n and k padded to multiples of 64; 16-byte aligned. Weights are E3M2. */
void cuda_k_fpx_gemm(cudaStream_t s, const cuda_tc_gemm *g, const void *w);

/** y f16 [rows, k] = the numbers of such a w, k even. */
void cuda_k_fpx_expand(cudaStream_t s, uint16_t *y, const void *w, size_t rows, size_t k);

/** Tiled-CSL (kernels/tiled_csl.h): items as f16, or bf16 as x is, 16-byte aligned; tile_at [tiles + 1] in fours. Any
 * number of items in a tile. */
void cuda_k_spmm(cudaStream_t s, const cuda_tc_gemm *g, const uint32_t *items, const int32_t *tile_at);

/** y [rows, k], 16 bits each, = the numbers of such weights. */
void cuda_k_csl_expand(cudaStream_t s, uint16_t *y, const uint32_t *items, const int32_t *tile_at, size_t rows,
                       size_t k);

/** Bitmap and six-bit codes in strips (kernels/fp6_strips.h), n padded to a multiple of 128; E3M2. bitmap and codes:
 * 16-byte aligned. */
void cuda_k_bitmap_gemm(cudaStream_t s, const cuda_tc_gemm *g, const uint32_t *bitmap, const uint32_t *codes,
                        const uint32_t *strip_at);

/** y f16 [rows, k] = the numbers of such weights. */
void cuda_k_bitmap_expand(cudaStream_t s, uint16_t *y, const uint32_t *bitmap, const uint32_t *codes,
                          const uint32_t *strip_at, size_t rows, size_t k);

#ifdef __cplusplus
}
#endif
#endif
