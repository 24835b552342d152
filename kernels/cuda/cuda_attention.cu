/* kernels/cuda/cuda_attention.cu - softmax(scale q k^T + key_bias + pair_bias) v without the scores in memory.
 *
 * A block makes 64 queries of one head: four warps of 16. For each tile of keys the scores are sums of mma.sync, in
 * registers; the biases are added in f32; maximum and sum are kept as the keys go by (online softmax); the
 * probabilities are, register by register, the A fragments of the second product. k and v come as f16, packed once by
 * attention_pack; k's next tile is on its way during the second product, v's during the first. Sources: Milakov &
 * Gimelshein 2018; Dao 2023 (FlashAttention-2); the biases: DS4Sci_EvoformerAttention's contract.
 */
#include "kernels/cuda/cuda_tc_tile.h"

enum { QUERIES = 16 * WARPS };

#define LOG2E 1.44269504f

/* Channels of a head in the packed k and v: whole 16-byte pieces. */
static inline __host__ __device__ size_t packed_d(size_t d) { return (d + 7) / 8 * 8; }

/* k and v of a call as f16 [pictures, heads, lk, packed_d]; pictures is 1 when all share them. */
typedef struct {
    const float *from;
    uint16_t *to;
    size_t rows, heads, d, lk, row, batch; /* rows: pictures * heads * lk */
} pack_args;

static __device__ __forceinline__ uint16_t to_f16(float v, unsigned *range) {
    const uint16_t h = (uint16_t)ptx_pack_f16(v, 0);
    if ((h & 0x7c00) == 0x7c00) atomicOr(range, 1u);
    return h;
}

/* grid: a block for 4 rows in turn.  block: 32 x 4.  Bytes: 6 a channel. */
__global__ void attention_pack(const pack_args a, unsigned *range) {
    const size_t wide = packed_d(a.d);
    for (size_t i = (size_t)blockIdx.x * 4 + threadIdx.y; i < a.rows; i += (size_t)gridDim.x * 4) {
        const size_t key = i % a.lk, head = i / a.lk % a.heads, picture = i / a.lk / a.heads;
        const float *from = a.from + picture * a.batch + key * a.row + head * a.d;
        for (size_t c = threadIdx.x; c < wide; c += 32)
            a.to[i * wide + c] = c < a.d ? to_f16(from[c], range) : (uint16_t)0;
    }
}

typedef struct {
    rung_attention_args a;
    const uint16_t *k, *v;
    size_t k_picture, v_picture; /* elements between pictures; 0: shared */
    unsigned *range;
} attention_launch;

/* What a block works on. */
struct place {
    unsigned head, query0, column0; /* of v */
    size_t picture;
};

/* Rows row0 .. row0 + ROWS of a packed k or v, channels c0 .. c0 + CHANNELS; what is not there is 0. */
template <int ROWS, int CHANNELS>
static __device__ __forceinline__ void load_tile(uint16_t *tile, const uint16_t *from, size_t d8, unsigned row0,
                                                 unsigned rows, unsigned c0) {
    for (unsigned i = threadIdx.x; i < ROWS * (CHANNELS / 8); i += THREADS) {
        const unsigned row = i / (CHANNELS / 8), c = i % (CHANNELS / 8) * 8;
        const bool valid = row0 + row < rows && c0 + c < d8;
        ptx_cp_async16(tile + row * (CHANNELS + 8) + c, from + (valid ? (row0 + row) * d8 + c0 + c : 0), valid);
    }
}

/* The queries' channels c0 .., times scale * log2(e), to f16. */
template <int CHANNELS>
static __device__ __forceinline__ void load_queries(uint16_t *tile, const attention_launch &l, const place &p,
                                                    unsigned c0) {
    const rung_attention_args &a = l.a;
    const float *q = a.q + p.picture * a.q_batch + p.head * a.d;
    for (unsigned i = threadIdx.x; i < QUERIES * CHANNELS; i += THREADS) {
        const unsigned row = i / CHANNELS, c = i % CHANNELS;
        const bool valid = p.query0 + row < a.lq && c0 + c < a.d;
        const float v = valid ? q[(p.query0 + row) * a.q_row + c0 + c] * (a.scale * LOG2E) : 0.0f;
        tile[row * (CHANNELS + 8) + c] = to_f16(v, l.range);
    }
}

/* s += q k^T for this warp's 16 queries and KEYS keys over CHANNELS channels. */
template <int CHANNELS, int KEYS>
static __device__ __forceinline__ void add_scores(float s[KEYS / 8][4], const uint16_t *q, const uint16_t *k) {
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const uint16_t *q_at = q + (16 * warp + lane % 16) * (CHANNELS + 8) + lane / 16 * 8;
    const uint16_t *k_at = k + (lane / 16 * 8 + lane % 8) * (CHANNELS + 8) + lane / 8 % 2 * 8;
    RUNG_UNROLL
    for (int c = 0; c < CHANNELS; c += 16) {
        uint32_t a[4];
        ptx_ldmatrix_x4(a, q_at + c);
        RUNG_UNROLL
        for (int j = 0; j < KEYS / 16; j++) {
            uint32_t b[4]; /* 16 channels of 8 keys, and of the next 8 */
            ptx_ldmatrix_x4(b, k_at + 16 * j * (CHANNELS + 8) + c);
            ptx_mma_f16(s[2 * j], a, b);
            ptx_mma_f16(s[2 * j + 1], a, b + 2);
        }
    }
}

/* Biases and masks, in units of log2(e). Element i of s[j]: query lane / 4 + 8 (i / 2), key 8 j + 2 (lane % 4) + i % 2.
 */
template <int KEYS>
static __device__ __forceinline__ void add_biases(float s[KEYS / 8][4], const rung_attention_args &a, const place &p,
                                                  unsigned key0) {
    const unsigned lane = threadIdx.x % 32, query = p.query0 + threadIdx.x / 32 * 16 + lane / 4;
    RUNG_UNROLL
    for (int j = 0; j < KEYS / 8; j++) RUNG_UNROLL
    for (int i = 0; i < 4; i++) {
        const unsigned key = key0 + 8 * j + lane % 4 * 2 + i % 2, row = query + i / 2 * 8;
        if (key >= a.lk || (a.causal && key > row)) {
            s[j][i] = -INFINITY;
            continue;
        }
        float bias = a.key_bias ? a.key_bias[p.picture * a.lk + key] : 0.0f;
        if (a.pair_bias && row < a.lq) bias += a.pair_bias[(p.head * a.lq + row) * a.lk + key];
        s[j][i] += bias * LOG2E;
    }
}

/* A lane's two rows so far: maximum and sum; rows whose keys were all masked have -infinity and 0. */
struct running {
    float max[2], sum[2];
};

/* s becomes the probabilities of this tile; o and the sums so far are brought to the new maximum. */
template <int KEYS, int BLOCKS>
static __device__ __forceinline__ void soften(float s[KEYS / 8][4], float o[BLOCKS][4], running &r) {
    RUNG_UNROLL
    for (int half = 0; half < 2; half++) {
        float top = r.max[half];
        RUNG_UNROLL
        for (int j = 0; j < KEYS / 8; j++) top = fmaxf(top, fmaxf(s[j][2 * half], s[j][2 * half + 1]));
        top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1)); /* the four lanes of a row */
        top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
        const float base = top == -INFINITY ? 0.0f : top;
        const float before = ptx_exp2(r.max[half] - base);
        float sum = 0;
        RUNG_UNROLL
        for (int j = 0; j < KEYS / 8; j++) RUNG_UNROLL
        for (int i = 2 * half; i < 2 * half + 2; i++) {
            s[j][i] = ptx_exp2(s[j][i] - base);
            sum += s[j][i];
        }
        sum += __shfl_xor_sync(0xffffffffu, sum, 1);
        sum += __shfl_xor_sync(0xffffffffu, sum, 2);
        r.max[half] = top;
        r.sum[half] = r.sum[half] * before + sum;
        RUNG_UNROLL
        for (int j = 0; j < BLOCKS; j++) o[j][2 * half] *= before, o[j][2 * half + 1] *= before;
    }
}

/* o += p v for CHANNELS channels. */
template <int CHANNELS, int KEYS>
static __device__ __forceinline__ void add_values(float o[CHANNELS / 8][4], const float p[KEYS / 8][4],
                                                  const uint16_t *v) {
    const unsigned lane = threadIdx.x % 32;
    const uint16_t *v_at = v + (lane / 8 % 2 * 8 + lane % 8) * (CHANNELS + 8) + lane / 16 * 8;
    RUNG_UNROLL
    for (int j = 0; j < KEYS / 16; j++) {
        const uint32_t a[4] = {ptx_pack_f16(p[2 * j][0], p[2 * j][1]), ptx_pack_f16(p[2 * j][2], p[2 * j][3]),
                               ptx_pack_f16(p[2 * j + 1][0], p[2 * j + 1][1]),
                               ptx_pack_f16(p[2 * j + 1][2], p[2 * j + 1][3])};
        RUNG_UNROLL
        for (int c = 0; c < CHANNELS / 16; c++) {
            uint32_t b[4]; /* 16 keys of 8 channels, and of the next 8 */
            ptx_ldmatrix_x4_trans(b, v_at + 16 * j * (CHANNELS + 8) + 16 * c);
            ptx_mma_f16(o[2 * c], a, b);
            ptx_mma_f16(o[2 * c + 1], a, b + 2);
        }
    }
}

template <int CHANNELS>
static __device__ __forceinline__ void store(const float o[CHANNELS / 8][4], const running &r,
                                             const rung_attention_args &a, const place &p) {
    const unsigned lane = threadIdx.x % 32;
    RUNG_UNROLL
    for (int half = 0; half < 2; half++) {
        const unsigned row = p.query0 + threadIdx.x / 32 * 16 + lane / 4 + 8 * half;
        const float k = r.sum[half] == 0 ? 0.0f : 1 / r.sum[half];
        if (row >= a.lq) continue;
        float *to = a.o + p.picture * a.o_batch + row * a.o_row + p.head * a.d;
        RUNG_UNROLL
        for (int j = 0; j < CHANNELS / 8; j++) RUNG_UNROLL
        for (int i = 0; i < 2; i++) {
            const unsigned c = p.column0 + 8 * j + lane % 4 * 2 + i;
            if (c < a.d) to[c] = o[j][2 * half + i] * k;
        }
    }
}

/* grid: (lq / 64 * pieces of v, heads, pictures).  block: 128.  shared: 2 (CHANNELS + 8) (64 + 2 KEYS) bytes.
 * A head of more than CHANNELS channels (PIECES) is cut: its scores are summed piece by piece, and each block makes
 * CHANNELS columns of the output, with scores of its own.
 * Bytes: 2 * 2 lk d for each 64 queries, 4 * 2 lq d, the biases. FLOPs 4 lq lk d. */
template <int CHANNELS, int KEYS, bool PIECES>
__global__ void __launch_bounds__(THREADS) attention(const attention_launch l) {
    RUNG_SHARED(uint16_t, q);
    uint16_t *const k = q + QUERIES * (CHANNELS + 8), *const v = k + KEYS * (CHANNELS + 8);
    const rung_attention_args &a = l.a;
    const size_t d8 = packed_d(a.d);
    const unsigned pieces = PIECES ? (unsigned)((a.d + CHANNELS - 1) / CHANNELS) : 1;
    place p;
    p.head = blockIdx.y;
    p.picture = blockIdx.z;
    p.query0 = blockIdx.x / pieces * QUERIES;
    p.column0 = blockIdx.x % pieces * CHANNELS;
    const uint16_t *k_from = l.k + p.picture * l.k_picture + p.head * a.lk * d8;
    const uint16_t *v_from = l.v + p.picture * l.v_picture + p.head * a.lk * d8;
    unsigned keys = (unsigned)a.lk; /* that any of these queries looks at */
    if (a.causal && p.query0 + QUERIES < keys) keys = p.query0 + QUERIES;
    float o[CHANNELS / 8][4] = {};
    running r = {{-INFINITY, -INFINITY}, {0, 0}};
    if (!PIECES) load_queries<CHANNELS>(q, l, p, 0);
    if (keys) load_tile<KEYS, CHANNELS>(k, k_from, d8, 0, keys, 0);
    ptx_cp_async_commit();
    for (unsigned key0 = 0; key0 < keys; key0 += KEYS) {
        float s[KEYS / 8][4] = {};
        if (PIECES) load_queries<CHANNELS>(q, l, p, 0);
        ptx_cp_async_wait<0>();
        __syncthreads(); /* k is there, the queries too, and all are done with the last v */
        load_tile<KEYS, CHANNELS>(v, v_from, d8, key0, keys, p.column0);
        ptx_cp_async_commit();
        add_scores<CHANNELS, KEYS>(s, q, k);
        for (unsigned piece = 1; PIECES && piece < pieces; piece++) {
            __syncthreads(); /* all are done with the last piece */
            load_queries<CHANNELS>(q, l, p, piece * CHANNELS);
            load_tile<KEYS, CHANNELS>(k, k_from, d8, key0, keys, piece * CHANNELS);
            ptx_cp_async_commit();
            ptx_cp_async_wait<0>();
            __syncthreads(); /* this piece is there */
            add_scores<CHANNELS, KEYS>(s, q, k);
        }
        ptx_cp_async_wait<0>();
        __syncthreads(); /* v is there, and all are done with k and the queries */
        if (key0 + KEYS < keys) load_tile<KEYS, CHANNELS>(k, k_from, d8, key0 + KEYS, keys, 0);
        ptx_cp_async_commit();
        add_biases<KEYS>(s, a, p, key0);
        soften<KEYS, CHANNELS / 8>(s, o, r);
        add_values<CHANNELS, KEYS>(o, s, v);
    }
    store<CHANNELS>(o, r, a, p);
}

template <int CHANNELS, int KEYS, bool PIECES> static void launch(cudaStream_t s, const attention_launch &l) {
    const size_t shared = 2 * (CHANNELS + 8) * (QUERIES + 2 * KEYS);
    const size_t pieces = PIECES ? (l.a.d + CHANNELS - 1) / CHANNELS : 1;
    const auto kernel = attention<CHANNELS, KEYS, PIECES>;
    const dim3 grid((unsigned)((l.a.lq + QUERIES - 1) / QUERIES * pieces), (unsigned)l.a.heads, (unsigned)l.a.batch);
    if (shared > 48 << 10) cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared);
    RUNG_LAUNCH(kernel, grid, THREADS, shared, s, l);
}

static size_t packed_pictures(const rung_attention_args *a, size_t stride) { return stride ? a->batch : 1; }

size_t cuda_k_attention_scratch(const rung_attention_args *a) {
    const size_t one = a->heads * a->lk * packed_d(a->d) * sizeof(uint16_t);
    return one * (packed_pictures(a, a->k_batch) + packed_pictures(a, a->v_batch));
}

static void pack(cudaStream_t s, uint16_t *to, const float *from, const rung_attention_args *a, size_t row,
                 size_t batch, unsigned *range) {
    const size_t rows = packed_pictures(a, batch) * a->heads * a->lk;
    const pack_args p = {from, to, rows, a->heads, a->d, a->lk, row, batch};
    const size_t blocks = (rows + 3) / 4;
    if (rows) RUNG_LAUNCH(attention_pack, (unsigned)(blocks < 65536 ? blocks : 65536), dim3(32, 4), 0, s, p, range);
}

void cuda_k_attention(cudaStream_t s, const rung_attention_args *a, void *scratch, unsigned *range) {
    const size_t one = a->heads * a->lk * packed_d(a->d);
    uint16_t *const k = (uint16_t *)scratch, *const v = k + one * packed_pictures(a, a->k_batch);
    if (!a->batch || !a->heads || !a->lq || !a->d) return;
    pack(s, k, a->k, a, a->k_row, a->k_batch, range);
    pack(s, v, a->v, a, a->v_row, a->v_batch, range);
    const attention_launch l = {*a, k, v, a->k_batch ? one : 0, a->v_batch ? one : 0, range};
    if (a->d <= 32) return launch<32, 64, false>(s, l);
    if (a->d <= 48) return launch<48, 64, false>(s, l);
    if (a->d <= 64) return launch<64, 64, false>(s, l);
    if (a->d <= 80) return launch<80, 64, false>(s, l);
    /* fewer keys at a time: two blocks of them fit a multiprocessor with 100 KiB of shared memory */
    if (a->d <= 128) return launch<128, 32, false>(s, l);
    if (a->d <= 160) return launch<160, 32, false>(s, l);
    launch<128, 32, true>(s, l);
}
