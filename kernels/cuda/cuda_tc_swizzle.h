/* kernels/cuda/cuda_tc_swizzle.h - the product with a tile of w in shared memory, rows and pieces as in cuda_tc_tile.h.
 * Read by .cu files only. */
#ifndef RUNG_CUDA_TC_SWIZZLE_H
#define RUNG_CUDA_TC_SWIZZLE_H
#include "kernels/cuda/cuda_tc_tile.h"

enum { ROWS_WARP = 32, ROWS = WARPS * ROWS_WARP, TILE = ROWS * STEP };

/* A warp's 32 rows x TOKENS of one step of k. */
template <bool BF16, int TOKENS>
static __device__ __forceinline__ void tc_multiply_tile(float acc[2][TOKENS / 8][4], const uint16_t *w,
                                                        const uint16_t *x) {
    const unsigned lane = threadIdx.x % 32, row = threadIdx.x / 32 * ROWS_WARP + lane % 16;
    uint32_t b[TOKENS / 8][4];
    RUNG_UNROLL
    for (int col = 0; col < STEP; col += 16) {
        if (col % 32 == 0) RUNG_UNROLL
        for (int t = 0; t < TOKENS / 8; t++) tc_fragment_x(b[t], x, 8 * t, col);
        RUNG_UNROLL
        for (int block = 0; block < 2; block++) {
            uint32_t a[4];
            const unsigned r = row + 16 * block;
            ptx_ldmatrix_x4(a, w + tc_at(r, col + lane / 16 * 8));
            RUNG_UNROLL
            for (int t = 0; t < TOKENS / 8; t++) tc_mma<BF16>(acc[block][t], a, b[t] + col / 16 % 2 * 2);
        }
    }
}
#endif
