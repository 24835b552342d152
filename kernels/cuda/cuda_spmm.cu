/* kernels/cuda/cuda_spmm.cu - products with very sparse 16-bit weights: loaded as their nonzeros, multiplied as dense
 * tiles. A tile's items are scattered into a zeroed tile in shared memory (their positions are swizzled already) while
 * the tensor cores work on the tile before. The first items wait in registers; however many more there are, they are
 * read when it is their turn.
 * Source: Xia et al. 2023 (Flash-LLM, arXiv 2309.10285), section 4; layout: kernels/tiled_csl.h.
 */
#include "kernels/cuda/cuda_tc_swizzle.h"

enum { HELD = 4 }; /* vectors of four items that a thread keeps in registers: 2048 of a tile's 8192 */

struct csl_tile {
    const uint4 *items;
    unsigned count; /* of vectors */
};

static __device__ __forceinline__ csl_tile tile_of(const uint32_t *items, const int32_t *tile_at, const tc_part &p,
                                                   unsigned step) {
    const size_t t = (size_t)blockIdx.x * ((p.k + STEP - 1) / STEP) + step;
    const unsigned first = (unsigned)tile_at[t];
    return {(const uint4 *)items + first, (unsigned)tile_at[t + 1] - first};
}

static __device__ __forceinline__ void hold(uint4 held[HELD], const csl_tile &t) {
    RUNG_UNROLL
    for (int i = 0; i < HELD; i++)
        if (threadIdx.x + i * THREADS < t.count) held[i] = t.items[threadIdx.x + i * THREADS];
}

static __device__ __forceinline__ void clear(uint16_t *tile) {
    for (unsigned i = threadIdx.x; i < TILE / 8; i += THREADS) ((uint4 *)tile)[i] = make_uint4(0, 0, 0, 0);
}

/* Items of value 0 are padding: they lie where nothing else does, or where another padding item lies. */
static __device__ __forceinline__ void put(uint16_t *tile, uint32_t item) {
    if ((uint16_t)item) tile[item >> 16] = (uint16_t)item;
}
static __device__ __forceinline__ void put(uint16_t *tile, const uint4 &items) {
    put(tile, items.x);
    put(tile, items.y);
    put(tile, items.z);
    put(tile, items.w);
}

static __device__ __forceinline__ void scatter(uint16_t *tile, const uint4 held[HELD], const csl_tile &t) {
    RUNG_UNROLL
    for (int i = 0; i < HELD; i++)
        if (threadIdx.x + i * THREADS < t.count) put(tile, held[i]);
    for (unsigned i = threadIdx.x + HELD * THREADS; i < t.count; i += THREADS) put(tile, t.items[i]);
}

/* grid: (n / 128, m / TOKENS, splits).  block: 128.  dynamic shared: 2 * (16384 + TOKENS * 128) bytes, at most 49152.
 * Bytes: w 4 for each item, for each TOKENS rows of x; x 2 m k for each 128 rows of w. FLOPs 2 m n k, zeros too. */
template <bool BF16, int TOKENS>
static __device__ __forceinline__ void spmm(const cuda_tc_gemm &g, const uint32_t *items, const int32_t *tile_at) {
    RUNG_SHARED(uint16_t, w);
    uint16_t *const x = w + 2 * TILE;
    const tc_part p = tc_part_of(g);
    const unsigned token0 = blockIdx.y * TOKENS;
    float acc[2][TOKENS / 8][4] = {};
    uint4 held[HELD];
    for (unsigned i = 0; i <= p.steps; i++) { /* the tiles of step i are made while those of i - 1 are multiplied */
        csl_tile next = {nullptr, 0};
        uint16_t *const w_next = w + i % 2 * TILE, *const x_next = x + i % 2 * TOKENS * STEP;
        if (i < p.steps) {
            next = tile_of(items, tile_at, p, p.first_step + i);
            hold(held, next);
            clear(w_next);
            tc_load_x<TOKENS>(x_next, p, token0, p.first_step + i);
        }
        ptx_cp_async_commit();
        if (i > 0) tc_multiply_tile<BF16, TOKENS>(acc, w + (i + 1) % 2 * TILE, x + (i + 1) % 2 * TOKENS * STEP);
        __syncthreads(); /* the tile is all zeros */
        scatter(w_next, held, next);
        ptx_cp_async_wait<0>();
        __syncthreads(); /* the tiles are whole, and all are done with the other pair */
    }
    static_assert(TC_STAGE(ROWS) <= 2 * TILE, "the way out");
    tc_store<ROWS, 2, TOKENS>(w, acc, g, p, token0, 1.0f);
}

template <int TOKENS>
__global__ void __launch_bounds__(THREADS)
    spmm_f16(const cuda_tc_gemm g, const uint32_t *items, const int32_t *tile_at) {
    spmm<false, TOKENS>(g, items, tile_at);
}
template <int TOKENS>
__global__ void __launch_bounds__(THREADS)
    spmm_bf16(const cuda_tc_gemm g, const uint32_t *items, const int32_t *tile_at) {
    spmm<true, TOKENS>(g, items, tile_at);
}

void cuda_k_spmm(cudaStream_t s, const cuda_tc_gemm *args, const uint32_t *items, const int32_t *tile_at) {
    const cuda_tc_gemm g = *args;
    if (!g.out.m || !g.out.n) return;
    if (g.bf16)
        TC_LAUNCH(spmm_bf16, g, ROWS, 2 * 2 * TILE, s, g, items, tile_at);
    else
        TC_LAUNCH(spmm_f16, g, ROWS, 2 * 2 * TILE, s, g, items, tile_at);
    tc_finish(s, args);
}

/* grid: tiles.  block: 128.  Bytes: 4 for each item, 2 for each weight and once more for each item. */
__global__ void __launch_bounds__(THREADS)
    csl_expand(uint16_t *y, const uint32_t *items, const int32_t *tile_at, size_t rows, size_t k) {
    const size_t across = (k + STEP - 1) / STEP, row0 = blockIdx.x / across * ROWS, col0 = blockIdx.x % across * STEP;
    for (unsigned i = threadIdx.x; i < TILE; i += THREADS)
        if (row0 + i / STEP < rows && col0 + i % STEP < k) y[(row0 + i / STEP) * k + col0 + i % STEP] = 0;
    __syncthreads(); /* the tile is all zeros */
    const size_t end = (size_t)tile_at[blockIdx.x + 1] * 4;
    for (size_t i = (size_t)tile_at[blockIdx.x] * 4 + threadIdx.x; i < end; i += THREADS) {
        const unsigned at = items[i] >> 16, row = at / STEP, col = (at ^ row % 8 * 8) % STEP;
        if ((uint16_t)items[i]) y[(row0 + row) * k + col0 + col] = (uint16_t)items[i];
    }
}

void cuda_k_csl_expand(cudaStream_t s, uint16_t *y, const uint32_t *items, const int32_t *tile_at, size_t rows,
                       size_t k) {
    const size_t tiles = (rows + ROWS - 1) / ROWS * ((k + STEP - 1) / STEP);
    if (tiles) RUNG_LAUNCH(csl_expand, (unsigned)tiles, THREADS, 0, s, y, items, tile_at, rows, k);
}
