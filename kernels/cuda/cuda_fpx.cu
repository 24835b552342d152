/* kernels/cuda/cuda_fpx.cu - products with six-bit weights that stay six bits until they are in registers (TC-FPx).
 *
 * A lane's words of the two planes are its share of an A fragment: eight steps of masks and shifts turn 6 words into
 * the 16 registers of a slice (64 rows x 16 columns), exactly. f16: the code's bits in the middle of the number are its
 * value * 2^-12, subnormals included, and the factor 2^12 joins the row's scale. bf16 would need 2^-124, which f32
 * sums cannot carry, so there each pair is multiplied once.
 * Source: Xia et al. 2024 (FP6-LLM, arXiv 2401.14112), section 5; layout: kernels/tc_fpx.h.
 */
#include "kernels/cuda/cuda_tc_tile.h"

enum {
    ROWS_WARP = 64,
    ROWS = WARPS * ROWS_WARP,
    SLICES = STEP / 16,            /* in a step */
    HIGH = SLICES * 2 * 32,        /* words of the 2-bit plane for a warp's step */
    LOW = SLICES * 4 * 32,         /* of the 4-bit plane */
    PLANES = WARPS * (HIGH + LOW), /* of a block's step */
};

/* A lane's words of one slice. */
struct slice_words {
    uint32_t high[2], low[4];
};

static __device__ __forceinline__ void load_slice(slice_words &w, const uint32_t *high, const uint32_t *low,
                                                  int slice) {
    const unsigned lane = threadIdx.x % 32;
    RUNG_UNROLL
    for (int i = 0; i < 2; i++) w.high[i] = high[(2 * slice + i) * 32 + lane];
    RUNG_UNROLL
    for (int i = 0; i < 4; i++) w.low[i] = low[(4 * slice + i) * 32 + lane];
}

/* Four codes, S EEE MM 00 in the bytes of p, to two pairs: bytes 3 and 1, then bytes 2 and 0. */
template <bool BF16> static __device__ __forceinline__ uint32_t pair_of(uint32_t p) {
    if (!BF16) return (p & 0x80008000u) | (p & 0x7c007c00u) >> 2;
    const uint32_t tiny = (p & 0x80008000u) | (p & 0x7c007c00u) >> 5;
    const __nv_bfloat16 lo = __ushort_as_bfloat16((unsigned short)tiny);
    const __nv_bfloat16 hi = __ushort_as_bfloat16((unsigned short)(tiny >> 16));
    const __nv_bfloat16 up = __ushort_as_bfloat16(0x7d80); /* 2^124 */
    const __nv_bfloat162 r = __hmul2(__halves2bfloat162(lo, hi), __halves2bfloat162(up, up));
    return __bfloat16_as_ushort(r.x) | (uint32_t)__bfloat16_as_ushort(r.y) << 16;
}

/* The A fragment of 16-row block b: two steps, each gives the registers of rows g and g + 8. */
template <bool BF16> static __device__ __forceinline__ void expand_block(uint32_t a[4], const slice_words &w, int b) {
    RUNG_UNROLL
    for (int i = 0; i < 2; i++) {
        const uint32_t high = w.high[b / 2] << 2 * (b % 2 * 2 + i), low = w.low[b] << 4 * i;
        const uint32_t p = (high & 0xc0c0c0c0u) | (low & 0xf0f0f0f0u) >> 2;
        a[2 * i] = pair_of<BF16>(p);
        a[2 * i + 1] = pair_of<BF16>(p << 8);
    }
}

/* Starts the copies of this warp's planes. They are its own: no other warp reads them. */
static __device__ __forceinline__ void load_planes(uint32_t *high, uint32_t *low, const uint32_t *w, unsigned row0,
                                                   unsigned rows, unsigned k64, unsigned step) {
    const unsigned lane = threadIdx.x % 32;
    const size_t slice = (size_t)(row0 / ROWS_WARP) * (k64 / 16) + (size_t)step * SLICES;
    const uint32_t *from_high = w + slice * 64, *from_low = w + (size_t)rows * k64 / 16 + slice * 128;
    RUNG_UNROLL
    for (int i = 0; i < HIGH / 128; i++)
        ptx_cp_async16(high + (i * 32 + lane) * 4, from_high + (i * 32 + lane) * 4, true);
    RUNG_UNROLL
    for (int i = 0; i < LOW / 128; i++) ptx_cp_async16(low + (i * 32 + lane) * 4, from_low + (i * 32 + lane) * 4, true);
}

/* 64 rows x TOKENS of one step of k. The next slice's words are on their way while this one's are at work. */
template <bool BF16, int TOKENS>
static __device__ __forceinline__ void multiply_step(float acc[4][TOKENS / 8][4], const uint32_t *high,
                                                     const uint32_t *low, const uint16_t *x) {
    slice_words words[2];
    uint32_t b[TOKENS / 8][4];
    load_slice(words[0], high, low, 0);
    RUNG_UNROLL
    for (int slice = 0; slice < SLICES; slice++) {
        if (slice + 1 < SLICES) load_slice(words[(slice + 1) % 2], high, low, slice + 1);
        if (slice % 2 == 0) RUNG_UNROLL
        for (int t = 0; t < TOKENS / 8; t++) tc_fragment_x(b[t], x, 8 * t, 16 * slice);
        RUNG_UNROLL
        for (int block = 0; block < 4; block++) {
            uint32_t a[4];
            expand_block<BF16>(a, words[slice % 2], block);
            RUNG_UNROLL
            for (int t = 0; t < TOKENS / 8; t++) tc_mma<BF16>(acc[block][t], a, b[t] + slice % 2 * 2);
        }
    }
}

/* grid: (n / 256, m / TOKENS, splits).  block: 128.  shared: 2 * (12288 + TOKENS * 128) bytes, at most 40960.
 * Bytes: w 0.75 n k for each TOKENS rows of x, x 2 m k for each 256 rows of w, out 4 m n splits. FLOPs 2 m n k. */
template <bool BF16, int TOKENS>
static __device__ __forceinline__ void fpx_gemm(const cuda_tc_gemm &g, const uint32_t *w) {
    __shared__ __align__(16) uint32_t planes[2][PLANES];
    __shared__ __align__(16) uint16_t x[2][TOKENS * STEP];
    const unsigned warp = threadIdx.x / 32;
    const tc_part p = tc_part_of(g);
    const unsigned row0 = blockIdx.x * ROWS + warp * ROWS_WARP, token0 = blockIdx.y * TOKENS;
    const unsigned rows = (p.n + 63) / 64 * 64, k64 = (p.k + STEP - 1) / STEP * STEP;
    const bool live = row0 < rows; /* warps behind the last rows only help to load x */
    float acc[4][TOKENS / 8][4] = {};
    const auto load = [&](unsigned i) {
        uint32_t *mine = planes[i % 2] + warp * (HIGH + LOW);
        if (live) load_planes(mine, mine + HIGH, w, row0, rows, k64, p.first_step + i);
        tc_load_x<TOKENS>(x[i % 2], p, token0, p.first_step + i);
        ptx_cp_async_commit();
    };
    if (p.steps) load(0);
    for (unsigned i = 0; i < p.steps; i++) {
        ptx_cp_async_wait<0>();
        __syncthreads(); /* step i has arrived for all, and all are done with the buffers of step i - 1 */
        if (i + 1 < p.steps) load(i + 1);
        const uint32_t *mine = planes[i % 2] + warp * (HIGH + LOW);
        if (live) multiply_step<BF16, TOKENS>(acc, mine, mine + HIGH, x[i % 2]);
    }
    if (!live) return;
    RUNG_UNROLL
    for (int block = 0; block < 4; block++) RUNG_UNROLL
    for (int t = 0; t < TOKENS / 8; t++)
        tc_store(acc[block][t], p, row0 + 16 * block, token0 + 8 * t, BF16 ? 1.0f : 4096.0f);
}

template <int TOKENS> __global__ void __launch_bounds__(THREADS) fpx_gemm_f16(const cuda_tc_gemm g, const uint32_t *w) {
    fpx_gemm<false, TOKENS>(g, w);
}
template <int TOKENS>
__global__ void __launch_bounds__(THREADS) fpx_gemm_bf16(const cuda_tc_gemm g, const uint32_t *w) {
    fpx_gemm<true, TOKENS>(g, w);
}

void cuda_k_fpx_gemm(cudaStream_t s, const cuda_tc_gemm *args, const void *w) {
    const cuda_tc_gemm g = *args;
    if (!g.m || !g.n) return;
    if (g.bf16)
        TC_LAUNCH(fpx_gemm_bf16, g, ROWS, 0, s, g, (const uint32_t *)w);
    else
        TC_LAUNCH(fpx_gemm_f16, g, ROWS, 0, s, g, (const uint32_t *)w);
    tc_add_splits(s, args);
}

/* grid: (n / 128, m).  block: 128.  Bytes: 4 m n (splits + 1). */
__global__ void __launch_bounds__(THREADS) add_splits(const cuda_tc_gemm g) {
    const size_t c = (size_t)blockIdx.x * THREADS + threadIdx.x;
    if (c >= g.n) return;
    for (size_t r = blockIdx.y; r < g.m; r += gridDim.y) {
        float v = 0;
        for (unsigned i = 0; i < g.splits; i++) v += g.split[(i * g.m + r) * g.n + c];
        g.sums[r * g.sums_row + c] = g.scale ? v * g.scale[c] : v;
    }
}

void tc_add_splits(cudaStream_t s, const cuda_tc_gemm *args) {
    const cuda_tc_gemm g = *args;
    if (g.splits < 2) return;
    const dim3 grid((unsigned)((g.n + THREADS - 1) / THREADS), (unsigned)(g.m < 65535 ? g.m : 65535));
    RUNG_LAUNCH(add_splits, grid, THREADS, 0, s, g);
}

unsigned cuda_tc_splits(size_t m, size_t n, size_t k, unsigned tile_rows, int multiprocessors) {
    const size_t tokens = m <= 64 ? m : 64;
    const size_t blocks = (n + tile_rows - 1) / tile_rows * ((m + tokens - 1) / (tokens ? tokens : 1));
    const size_t steps = (k + STEP - 1) / STEP, wanted = 2 * (size_t)multiprocessors;
    size_t splits = blocks ? wanted / blocks : 1;
    if (splits > steps / 4) splits = steps / 4; /* at least four steps each: the loads have something to hide behind */
    if (splits > 16) splits = 16;
    return splits < 1 ? 1 : (unsigned)splits;
}
