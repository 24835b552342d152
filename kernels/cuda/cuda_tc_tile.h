/* kernels/cuda/cuda_tc_tile.h - what the tensor-core products share: the tile of x in shared memory, fragments from it,
 * the way out. Read by .cu files only.
 *
 * A block has WARPS warps and makes rows of w (the m of mma) by TOKENS rows of x (its n), k in steps of STEP. A tile
 * lies in shared memory as [rows][STEP] 16-bit numbers whose 16-byte pieces are exchanged in each row, tc_at(), so that
 * the eight rows that ldmatrix reads at a time are in different banks.
 */
#ifndef RUNG_CUDA_TC_TILE_H
#define RUNG_CUDA_TC_TILE_H
#include "kernels/cuda/cuda_common.h"
#include "kernels/cuda/cuda_tc.h"
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
    float *plane;               /* this part's sums, [m, n]; NULL: they go through the epilogue at once */
    unsigned first_step, steps; /* of k */
} tc_part;

static __device__ __forceinline__ tc_part tc_part_of(const cuda_tc_gemm &g) {
    tc_part p;
    const unsigned steps = (unsigned)((g.k + STEP - 1) / STEP), z = blockIdx.z;
    p.x = (const uint16_t *)g.x;
    p.x_row = g.x_row;
    p.m = (unsigned)cuda_tc_rows(&g), p.n = (unsigned)g.out.n, p.k = (unsigned)g.k;
    p.first_step = (unsigned)((unsigned long long)steps * z / g.splits);
    p.steps = (unsigned)((unsigned long long)steps * (z + 1) / g.splits) - p.first_step;
    p.plane = cuda_tc_needs_split(&g) ? g.split + z * cuda_tc_rows(&g) * g.out.n : nullptr;
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

/* Sums of TOKENS rows of x by ROWS columns, [TOKENS][ROWS + 4] in shared memory, to where they belong: whole lines of
 * y at a time. */
template <int ROWS, int TOKENS>
static __device__ __forceinline__ void tc_write(const float *sums, const cuda_tc_gemm &g, const tc_part &p,
                                                unsigned token0) {
    RUNG_NO_UNROLL
    for (unsigned i = threadIdx.x; i < TOKENS * ROWS; i += THREADS) {
        const size_t c = blockIdx.x * ROWS + i % ROWS, r = token0 + i / ROWS;
        if (c >= p.n || r >= p.m) continue;
        const float v = sums[i / ROWS * (ROWS + 4) + i % ROWS];
        if (p.plane)
            p.plane[r * p.n + c] = v;
        else
            g.out.y[r * g.out.y_row + c] = finish_sum(g.out, r, c, v);
    }
}

/* The accumulators of all warps, each 16 * BLOCKS columns, times a power of two, out by way of `stage`: shared memory
 * that the product is done with, TC_STAGE(rows) bytes. */
#define TC_STAGE(rows) (16 * ((rows) + 4) * 4)
template <int ROWS, int BLOCKS, int TOKENS>
static __device__ __forceinline__ void tc_store(void *stage, const float acc[BLOCKS][TOKENS / 8][4],
                                                const cuda_tc_gemm &g, const tc_part &p, unsigned token0,
                                                float factor) {
    enum { AT_ONCE = TOKENS < 16 ? TOKENS : 16 };
    const unsigned lane = threadIdx.x % 32, column = threadIdx.x / 32 * 16 * BLOCKS + lane / 4;
    float *const sums = (float *)stage;
    RUNG_UNROLL
    for (int t = 0; t < TOKENS; t += AT_ONCE) {
        __syncthreads(); /* the tiles, or the last sums, are used up */
        RUNG_UNROLL
        for (int block = 0; block < BLOCKS; block++) RUNG_UNROLL
        for (int j = 0; j < AT_ONCE / 8; j++) RUNG_UNROLL
        for (int i = 0; i < 4; i++)
            sums[(8 * j + lane % 4 * 2 + i % 2) * (ROWS + 4) + column + 16 * block + i / 2 * 8] =
                acc[block][t / 8 + j][i] * factor;
        __syncthreads(); /* these sums are there */
        tc_write<ROWS, AT_ONCE>(sums, g, p, token0 + t);
    }
}

/* The parts of a product, in their order, through the epilogue; nothing when the product has done it. cuda_fpx.cu. */
void tc_finish(cudaStream_t s, const cuda_tc_gemm *g);

/* One instance for TOKENS rows of x: dynamic shared memory (`fixed` bytes of w, and x's two tiles) when fixed > 0. */
#define TC_LAUNCH_TOKENS(kernel, tokens, g, rows, fixed, s, ...)                                                       \
    do {                                                                                                               \
        const unsigned blocks_ = (unsigned)((cuda_tc_rows(&(g)) + (tokens)-1) / (tokens));                             \
        const dim3 grid_((unsigned)(((g).out.n + (rows)-1) / (rows)), blocks_, (g).splits);                            \
        const unsigned shared_ = (fixed) > 0 ? (fixed) + 2 * 2 * (tokens)*STEP : 0;                                    \
        if (shared_ > 48 << 10)                                                                                        \
            cudaFuncSetAttribute(kernel<tokens>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared_);           \
        RUNG_LAUNCH(kernel<tokens>, grid_, THREADS, shared_, s, __VA_ARGS__);                                          \
    } while (0)

/* The launch of a product for the number of rows in a tile of x: as few as cover m, at most 64. */
#define TC_LAUNCH(kernel, g, rows, fixed, s, ...)                                                                      \
    do {                                                                                                               \
        if (cuda_tc_rows(&(g)) <= 8)                                                                                   \
            TC_LAUNCH_TOKENS(kernel, 8, g, rows, fixed, s, __VA_ARGS__);                                               \
        else if (cuda_tc_rows(&(g)) <= 16)                                                                             \
            TC_LAUNCH_TOKENS(kernel, 16, g, rows, fixed, s, __VA_ARGS__);                                              \
        else if (cuda_tc_rows(&(g)) <= 32)                                                                             \
            TC_LAUNCH_TOKENS(kernel, 32, g, rows, fixed, s, __VA_ARGS__);                                              \
        else                                                                                                           \
            TC_LAUNCH_TOKENS(kernel, 64, g, rows, fixed, s, __VA_ARGS__);                                              \
    } while (0)
#endif
