/* kernels/cuda/cuda_tc_tile.h - what the tensor-core products share: the tile of x in shared memory, fragments from it,
 * the way out. Read by .cu files only.
 *
 * A block has WARPS warps and makes rows of w (the m of mma) by TOKENS rows of x (its n), k in steps of STEP. A tile
 * lies in shared memory as [rows][STEP] 16-bit numbers whose 16-byte pieces are exchanged in each row, tc_at(), so that
 * the eight rows that ldmatrix reads at a time are in different banks.
 */
#ifndef RUNG_CUDA_TC_TILE_H
#define RUNG_CUDA_TC_TILE_H
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/cuda/cuda_tc.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.h"

enum { WARPS = 4, THREADS = 32 * WARPS, STEP = 64 };

static __device__ __forceinline__ unsigned tc_at(unsigned row, unsigned col) {
    return row * STEP + (col ^ row % 8 * 8);
}

/* The part of a product that one block makes. */
typedef struct {
    const uint16_t *x;
    size_t x_row;
    unsigned m, n, k;
    float *out; /* sums, or this part's plane of split */
    size_t out_row;
    const float *scale;
    unsigned first_step, steps; /* of k */
} tc_part;

static __device__ __forceinline__ tc_part tc_part_of(const cuda_tc_gemm &g) {
    tc_part p;
    const unsigned steps = (unsigned)((g.k + STEP - 1) / STEP), z = blockIdx.z;
    p.x = (const uint16_t *)g.x;
    p.x_row = g.x_row;
    p.m = (unsigned)g.m, p.n = (unsigned)g.n, p.k = (unsigned)g.k;
    p.first_step = (unsigned)((unsigned long long)steps * z / g.splits);
    p.steps = (unsigned)((unsigned long long)steps * (z + 1) / g.splits) - p.first_step;
    p.out = g.splits > 1 ? g.split + z * g.m * g.n : g.sums;
    p.out_row = g.splits > 1 ? g.n : g.sums_row;
    p.scale = g.splits > 1 ? nullptr : g.scale;
    return p;
}

/* Starts the copy of x[token0.., 64 columns] to the tile; rows and columns that are not there become 0. */
template <int TOKENS>
static __device__ __forceinline__ void tc_load_x(uint16_t *tile, const tc_part &p, unsigned token0, unsigned step) {
    for (unsigned i = threadIdx.x; i < TOKENS * (STEP / 8); i += THREADS) {
        const unsigned row = i / (STEP / 8), col = i % (STEP / 8) * 8, token = token0 + row;
        const bool valid = token < p.m && step * STEP + col < p.k;
        const uint16_t *from = p.x + (valid ? token * p.x_row + step * STEP + col : 0);
        ptx_cp_async16(tile + tc_at(row, col), from, valid);
    }
}

/* B fragments of 8 tokens for 32 columns: b[0..1] the first 16, b[2..3] the others. */
static __device__ __forceinline__ void tc_fragment_x(uint32_t b[4], const uint16_t *tile, unsigned token,
                                                     unsigned col) {
    const unsigned lane = threadIdx.x % 32;
    ptx_ldmatrix_x4(b, tile + tc_at(token + lane % 8, col + lane / 8 * 8));
}

template <bool BF16>
static __device__ __forceinline__ void tc_mma(float d[4], const uint32_t a[4], const uint32_t b[2]) {
    if (BF16)
        ptx_mma_bf16(d, a, b);
    else
        ptx_mma_f16(d, a, b);
}

/* One 16 x 8 accumulator to out[token, row]: eight neighbouring rows of w fill a 32-byte sector. */
static __device__ __forceinline__ void tc_store(const float d[4], const tc_part &p, unsigned row0, unsigned token0,
                                                float factor) {
    const unsigned lane = threadIdx.x % 32;
    for (unsigned i = 0; i < 4; i++) {
        const unsigned row = row0 + lane / 4 + (i < 2 ? 0 : 8), token = token0 + lane % 4 * 2 + (i & 1);
        if (row >= p.n || token >= p.m) continue;
        const float scale = p.scale ? p.scale[row] * factor : factor; /* a power of two: no rounding of its own */
        p.out[token * p.out_row + row] = d[i] * scale;
    }
}

/* split [splits, m, n] to sums, the parts in their order. cuda_fpx.cu. */
void tc_add_splits(cudaStream_t s, const cuda_tc_gemm *g);

/* One instance for TOKENS rows of x: dynamic shared memory (`fixed` bytes of w, and x's two tiles) when fixed > 0. */
#define TC_LAUNCH_TOKENS(kernel, tokens, g, rows, fixed, s, ...)                                                       \
    do {                                                                                                               \
        const dim3 grid_((unsigned)(((g).n + (rows)-1) / (rows)), (unsigned)(((g).m + (tokens)-1) / (tokens)),         \
                         (g).splits);                                                                                  \
        const unsigned shared_ = (fixed) > 0 ? (fixed) + 2 * 2 * (tokens)*STEP : 0;                                    \
        if (shared_ > 48 << 10)                                                                                        \
            cudaFuncSetAttribute(kernel<tokens>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared_);           \
        RUNG_LAUNCH(kernel<tokens>, grid_, THREADS, shared_, s, __VA_ARGS__);                                          \
    } while (0)

/* The launch of a product for the number of rows in a tile of x: as few as cover m, at most 64. */
#define TC_LAUNCH(kernel, g, rows, fixed, s, ...)                                                                      \
    do {                                                                                                               \
        if ((g).m <= 8)                                                                                                \
            TC_LAUNCH_TOKENS(kernel, 8, g, rows, fixed, s, __VA_ARGS__);                                               \
        else if ((g).m <= 16)                                                                                          \
            TC_LAUNCH_TOKENS(kernel, 16, g, rows, fixed, s, __VA_ARGS__);                                              \
        else if ((g).m <= 32)                                                                                          \
            TC_LAUNCH_TOKENS(kernel, 32, g, rows, fixed, s, __VA_ARGS__);                                              \
        else                                                                                                           \
            TC_LAUNCH_TOKENS(kernel, 64, g, rows, fixed, s, __VA_ARGS__);                                              \
    } while (0)
#endif
