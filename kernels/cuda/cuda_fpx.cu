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
template <bool BF16>
static __device__ __forceinline__ void expand_block(uint32_t a[4], uint32_t high_word, uint32_t low_word, int b) {
    RUNG_UNROLL
    for (int i = 0; i < 2; i++) {
        const uint32_t high = high_word << 2 * (b % 2 * 2 + i), low = low_word << 4 * i;
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
            expand_block<BF16>(a, words[slice % 2].high[block / 2], words[slice % 2].low[block], block);
            RUNG_UNROLL
            for (int t = 0; t < TOKENS / 8; t++) tc_mma<BF16>(acc[block][t], a, b[t] + slice % 2 * 2);
        }
    }
}

/* grid: (n / 256, m / TOKENS, splits).  block: 128.  shared: 2 * (12288 + TOKENS * 128) bytes, at most 40960.
 * Bytes: w 0.75 n k for each TOKENS rows of x, x 2 m k for each 256 rows of w, out 4 m n splits. FLOPs 2 m n k. */
template <bool BF16, int TOKENS>
static __device__ __forceinline__ void fpx_product(const cuda_tc_gemm &g, const uint32_t *w) {
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
    static_assert(TC_STAGE(ROWS) <= sizeof planes, "the way out");
    tc_store<ROWS, 4, TOKENS>(planes, acc, g, p, token0, BF16 ? 1.0f : 4096.0f);
}

template <int TOKENS> __global__ void __launch_bounds__(THREADS) fpx_gemm_f16(const cuda_tc_gemm g, const uint32_t *w) {
    fpx_product<false, TOKENS>(g, w);
}
template <int TOKENS>
__global__ void __launch_bounds__(THREADS) fpx_gemm_bf16(const cuda_tc_gemm g, const uint32_t *w) {
    fpx_product<true, TOKENS>(g, w);
}

void cuda_k_fpx_gemm(cudaStream_t s, const cuda_tc_gemm *args, const void *w) {
    const cuda_tc_gemm g = *args;
    if (!g.out.m || !g.out.n) return;
    if (g.bf16)
        TC_LAUNCH(fpx_gemm_bf16, g, ROWS, 0, s, g, (const uint32_t *)w);
    else
        TC_LAUNCH(fpx_gemm_f16, g, ROWS, 0, s, g, (const uint32_t *)w);
    tc_finish(s, args);
}

/* The f16 pair of units of 2^-12 as itself: exact. */
static __device__ __forceinline__ uint32_t scaled_pair(uint32_t pair) {
    const __half lo = __ushort_as_half((unsigned short)pair), hi = __ushort_as_half((unsigned short)(pair >> 16));
    return ptx_pack_f16(__half2float(lo) * 4096, __half2float(hi) * 4096);
}

/* grid: blocks_for(lanes' shares of blocks).  block: NT.  Bytes: 0.75 in, 2 out for each weight. */
__global__ void fpx_expand(uint16_t *y, const uint32_t *w, size_t rows, size_t k, size_t rows64, size_t k64) {
    const uint32_t *const low = w + rows64 * k64 / 16;
    EACH(i, rows64 * k64 / 8) { /* lane, block, slice */
        const unsigned lane = (unsigned)(i % 32), block = (unsigned)(i / 32 % 4);
        const size_t slice = i / 128;
        uint32_t a[4];
        expand_block<false>(a, w[(2 * slice + block / 2) * 32 + lane], low[i], (int)block);
        for (unsigned j = 0; j < 4; j++) {
            const size_t row = slice / (k64 / 16) * 64 + 16 * block + lane / 4 + j % 2 * 8;
            const size_t col = slice % (k64 / 16) * 16 + lane % 4 * 2 + j / 2 * 8;
            if (row < rows && col < k) *(uint32_t *)(y + row * k + col) = scaled_pair(a[j]);
        }
    }
}

void cuda_k_fpx_expand(cudaStream_t s, uint16_t *y, const void *w, size_t rows, size_t k) {
    const size_t rows64 = (rows + 63) / 64 * 64, k64 = (k + STEP - 1) / STEP * STEP;
    if (rows && k)
        RUNG_LAUNCH(fpx_expand, blocks_for(rows64 * k64 / 8), NT, 0, s, y, (const uint32_t *)w, rows, k, rows64, k64);
}

static __device__ __forceinline__ float sum_of_parts(const cuda_tc_gemm &g, size_t r, size_t c) {
    const unsigned parts = g.two_parts ? 2 * g.splits : g.splits;
    float v = 0;
    for (unsigned i = 0; i < parts; i++) v += g.split[(i * g.out.m + r) * g.out.n + c];
    return before_act(g.out, r, c, v);
}

/* grid: blocks_for(outputs).  block: NT.  Bytes: 4 m n splits, and the epilogue's. */
__global__ void finish_parts(const cuda_tc_gemm g, size_t n) {
    EACH(i, g.out.m * n) {
        const size_t r = i / n, c = i % n;
        float v = sum_of_parts(g, r, c);
        if (g.out.ep.act == RUNG_ACT_GEGLU)
            v *= apply_act(sum_of_parts(g, r, n + c), RUNG_ACT_GELU);
        else
            v = apply_act(v, g.out.ep.act);
        g.out.y[r * g.out.y_row + c] = after_act(g.out, r, c, v);
    }
}

void tc_finish(cudaStream_t s, const cuda_tc_gemm *args) {
    const cuda_tc_gemm g = *args;
    const size_t n = g.out.ep.act == RUNG_ACT_GEGLU ? g.out.n / 2 : g.out.n;
    if (cuda_tc_needs_split(args) && n) RUNG_LAUNCH(finish_parts, blocks_for(g.out.m * n), NT, 0, s, g, n);
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
