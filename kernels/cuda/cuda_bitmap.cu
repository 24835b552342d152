/* kernels/cuda/cuda_bitmap.cu - products with sparse six-bit weights, loaded as a bitmap and the codes that it names,
 * multiplied as dense tiles. Each warp makes the 32 rows that it will multiply, two strips of 16: a lane has one word
 * of the bitmap, a running count over the lanes says where its codes begin, and 32 numbers go to the tile as four
 * pieces. Sources: Xia et al. 2024 (six-bit weights), Xia et al. 2023 (load as sparse, compute as dense), Fan et al.
 * 2025 (SpInfer: bitmaps); layout: kernels/fp6_strips.h.
 */
#include "kernels/cuda/cuda_tc_swizzle.h"

enum {
    STRIPS = ROWS_WARP / 16,        /* of a warp's step */
    CODES = 16 * STEP * 6 / 32 + 4, /* words of a full strip; a lane reads one word further than its last code */
};

/* E3M2 as 16 bits: f16 in units of 2^-12 (the factor joins the scale), bf16 by way of f32. */
template <bool BF16> static __device__ __forceinline__ uint32_t number_of(uint32_t code) {
    const uint32_t f16 = (code & 32) << 10 | (code & 31) << 8;
    if (!BF16) return f16;
    return __bfloat16_as_ushort(__float2bfloat16(4096 * __half2float(__ushort_as_half((unsigned short)f16))));
}

/* The codes of a warp's strips of one step, on their way to shared memory; this lane's words of the bitmap. */
static __device__ __forceinline__ void load_strips(uint32_t bits[STRIPS], uint32_t *codes, const uint32_t *bitmap,
                                                   const uint32_t *from, const uint32_t *strip_at, const tc_part &p,
                                                   unsigned step) {
    const unsigned lane = threadIdx.x % 32, across = (p.k + STEP - 1) / STEP;
    RUNG_UNROLL
    for (int i = 0; i < STRIPS; i++) {
        const size_t strip = (size_t)(blockIdx.x * (ROWS / 16) + threadIdx.x / 32 * STRIPS + i) * across + step;
        const unsigned first = strip_at[strip], pieces = strip_at[strip + 1] - first;
        bits[i] = bitmap[strip * 32 + lane];
        for (unsigned j = lane; j < pieces; j += 32)
            ptx_cp_async16(codes + i * CODES + 4 * j, from + ((size_t)first + j) * 4, true);
    }
}

/* Codes of this lane before the others': an exclusive sum over the warp. */
static __device__ __forceinline__ unsigned codes_before(uint32_t bits) {
    const unsigned lane = threadIdx.x % 32, own = (unsigned)__popc(bits);
    unsigned sum = own;
    RUNG_UNROLL
    for (unsigned d = 1; d < 32; d *= 2) {
        const unsigned below = __shfl_up_sync(0xffffffffu, sum, d);
        if (lane >= d) sum += below;
    }
    return sum - own;
}

/* Half a row, 32 numbers, of strip i to the tile. */
template <bool BF16>
static __device__ __forceinline__ void expand(uint16_t *tile, const uint32_t *codes, uint32_t bits, int i) {
    const unsigned lane = threadIdx.x % 32, row = threadIdx.x / 32 * ROWS_WARP + 16 * i + lane / 2;
    unsigned bit = 6 * codes_before(bits);
    RUNG_UNROLL
    for (int piece = 0; piece < 4; piece++) {
        uint32_t w[4];
        RUNG_UNROLL
        for (int c = 0; c < 8; c++) {
            uint32_t v = 0;
            if (bits >> (8 * piece + c) & 1) {
                const uint32_t *at = codes + bit / 32;
                v = number_of<BF16>((uint32_t)(((uint64_t)at[1] << 32 | at[0]) >> bit % 32) & 63);
                bit += 6;
            }
            w[c / 2] = c % 2 ? w[c / 2] | v << 16 : v;
        }
        *(uint4 *)(tile + tc_at(row, lane % 2 * 32 + 8 * piece)) = make_uint4(w[0], w[1], w[2], w[3]);
    }
}

/* grid: (n / 128, m / TOKENS, splits).  block: 128.  shared: 16384 + 6272 + 2 TOKENS * 128 bytes, at most 39040.
 * Bytes: w (1/8 + 0.75 d) n k for each TOKENS rows of x, x 2 m k for each 128 rows of w. FLOPs 2 m n k, zeros too. */
template <bool BF16, int TOKENS>
static __device__ __forceinline__ void bitmap_gemm(const cuda_tc_gemm &g, const uint32_t *bitmap, const uint32_t *from,
                                                   const uint32_t *strip_at) {
    __shared__ __align__(16) uint16_t w[TILE];
    __shared__ __align__(16) uint32_t codes[WARPS][STRIPS * CODES];
    __shared__ __align__(16) uint16_t x[2][TOKENS * STEP];
    uint32_t *const mine = codes[threadIdx.x / 32];
    const tc_part p = tc_part_of(g);
    const unsigned token0 = blockIdx.y * TOKENS;
    float acc[2][TOKENS / 8][4] = {};
    uint32_t bits[STRIPS], next[STRIPS];
    const auto load = [&](unsigned i) {
        load_strips(next, mine, bitmap, from, strip_at, p, p.first_step + i);
        tc_load_x<TOKENS>(x[i % 2], p, token0, p.first_step + i);
        ptx_cp_async_commit();
    };
    if (p.steps) load(0);
    for (unsigned i = 0; i < p.steps; i++) {
        ptx_cp_async_wait<0>();
        __syncthreads(); /* step i has arrived, and all are done with x of step i - 1 and their rows of w */
        RUNG_UNROLL
        for (int j = 0; j < STRIPS; j++) bits[j] = next[j];
        RUNG_UNROLL
        for (int j = 0; j < STRIPS; j++) expand<BF16>(w, mine + j * CODES, bits[j], j);
        __syncwarp(); /* this warp's rows are whole, and its codes are used up */
        if (i + 1 < p.steps) load(i + 1);
        tc_multiply_tile<BF16, TOKENS>(acc, w, x[i % 2]);
    }
    static_assert(TC_STAGE(ROWS) <= 2 * TILE, "the way out");
    tc_store<ROWS, 2, TOKENS>(w, acc, g, p, token0, BF16 ? 1.0f : 4096.0f);
}

template <int TOKENS>
__global__ void __launch_bounds__(THREADS)
    bitmap_gemm_f16(const cuda_tc_gemm g, const uint32_t *bitmap, const uint32_t *codes, const uint32_t *strip_at) {
    bitmap_gemm<false, TOKENS>(g, bitmap, codes, strip_at);
}
template <int TOKENS>
__global__ void __launch_bounds__(THREADS)
    bitmap_gemm_bf16(const cuda_tc_gemm g, const uint32_t *bitmap, const uint32_t *codes, const uint32_t *strip_at) {
    bitmap_gemm<true, TOKENS>(g, bitmap, codes, strip_at);
}

void cuda_k_bitmap_gemm(cudaStream_t s, const cuda_tc_gemm *args, const uint32_t *bitmap, const uint32_t *codes,
                        const uint32_t *strip_at) {
    const cuda_tc_gemm g = *args;
    if (!g.out.m || !g.out.n) return;
    if (g.bf16)
        TC_LAUNCH(bitmap_gemm_bf16, g, ROWS, 0, s, g, bitmap, codes, strip_at);
    else
        TC_LAUNCH(bitmap_gemm_f16, g, ROWS, 0, s, g, bitmap, codes, strip_at);
    tc_finish(s, args);
}

/* grid: strips / WARPS, a warp each.  block: 128.  Bytes: 1/8 + 0.75 d in, 2 out for each weight. */
__global__ void __launch_bounds__(THREADS) bitmap_expand(uint16_t *y, const uint32_t *bitmap, const uint32_t *codes,
                                                         const uint32_t *strip_at, size_t rows, size_t k) {
    const unsigned lane = threadIdx.x % 32;
    const size_t strip = (size_t)blockIdx.x * WARPS + threadIdx.x / 32, across = (k + STEP - 1) / STEP;
    const size_t row = strip / across * 16 + lane / 2, col0 = strip % across * STEP + lane % 2 * 32;
    if (strip / across * 16 >= rows) return; /* the whole warp */
    const uint32_t bits = bitmap[strip * 32 + lane], *from = codes + (size_t)strip_at[strip] * 4;
    unsigned bit = 6 * codes_before(bits);
    for (unsigned c = 0; c < 32; c++) {
        float v = 0;
        if (bits >> c & 1) {
            const uint32_t low = from[bit / 32] >> bit % 32, high = bit % 32 > 26 ? from[bit / 32 + 1] : 0;
            const uint32_t code = (low | high << (32 - bit % 32) % 32) & 63;
            v = 4096 * __half2float(__ushort_as_half((unsigned short)number_of<false>(code)));
            bit += 6;
        }
        if (row < rows && col0 + c < k) y[row * k + col0 + c] = __half_as_ushort(__float2half_rn(v));
    }
}

void cuda_k_bitmap_expand(cudaStream_t s, uint16_t *y, const uint32_t *bitmap, const uint32_t *codes,
                          const uint32_t *strip_at, size_t rows, size_t k) {
    const size_t strips = (rows + 15) / 16 * ((k + STEP - 1) / STEP);
    if (strips)
        RUNG_LAUNCH(bitmap_expand, (unsigned)((strips + WARPS - 1) / WARPS), THREADS, 0, s, y, bitmap, codes, strip_at,
                    rows, k);
}
