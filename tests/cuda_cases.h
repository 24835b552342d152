/* tests/cuda_cases.h - one run of a tensor-core kernel against the scalar reference, for the tests of results and for
 * the test of races. All data are reproducible. */
#ifndef RUNG_CUDA_CASES_H
#define RUNG_CUDA_CASES_H
#include <algorithm>
#include <cmath>
#include <vector>

#include "cuda_fp16.h"
#include "kernels/cuda/cuda_tc.h"
#include "tests/check.h"
extern "C" {
#include "kernels/base/fp6.h"
#include "kernels/cpu/attention.h"
#include "kernels/fp6_strips.h"
#include "kernels/tc_fpx.h"
#include "kernels/tiled_csl.h"
}

/* ---- attention --------------------------------------------------------------------------------------------------- */

enum mask_kind { NO_MASK, RANDOM_MASK, FIRST_TILE_MASKED, ALL_MASKED, QUERIES_MASKED };

struct attention_case {
    size_t batch, heads, d, lq, lk;
    bool causal = false;
    mask_kind mask = NO_MASK;
    bool pair_bias = false;
    float amplitude = 1; /* of q and of the biases */
    bool one_kv = false; /* the pictures share k and v */
    bool t5 = false;     /* pair bias by distance (t5_bias), scores not scaled */
};

static inline std::vector<float> random_floats(size_t n, float amplitude, uint64_t *seed) {
    std::vector<float> v(n);
    for (float &f : v) f = rnd(seed) * amplitude;
    return v;
}

static inline std::vector<float> mask_of(const attention_case &c, uint64_t *seed) {
    std::vector<float> bias = random_floats(c.batch * c.lk, c.amplitude, seed);
    for (size_t i = 0; i < bias.size(); i++) {
        const size_t key = i % c.lk;
        const bool off = c.mask == RANDOM_MASK         ? rnd(seed) > 0
                         : c.mask == FIRST_TILE_MASKED ? key < 64 || key + 3 > c.lk
                                                       : i < c.lk; /* the whole first picture */
        if (off) bias[i] = -INFINITY;
    }
    return bias;
}

/* T5's relative positions, both ways: 32 buckets, half of them for keys behind the query; of each half 8 are for one
 * distance each and 8 grow with its logarithm up to 128. Source: Raffel et al. 2020, section 2.1; transformers
 * T5Attention._relative_position_bucket. */
static inline size_t t5_bucket(size_t query, size_t key) {
    const double apart = fabs((double)key - (double)query);
    const size_t base = key > query ? 16 : 0;
    if (apart < 8) return base + (size_t)apart;
    const size_t wide = 8 + (size_t)(log(apart / 8) / log(16.0) * 8);
    return base + (wide < 15 ? wide : 15);
}
static inline std::vector<float> t5_bias(size_t heads, size_t lq, size_t lk, uint64_t *seed) {
    const std::vector<float> table = random_floats(32 * heads, 8, seed); /* [bucket, head], as in a checkpoint */
    std::vector<float> bias(heads * lq * lk);
    for (size_t i = 0; i < bias.size(); i++) bias[i] = table[t5_bucket(i / lk % lq, i % lk) * heads + i / lk / lq];
    return bias;
}

/* q, k and v inside one projection [batch, tokens, 3 * heads * d + 1], so that rows are not aligned. Largest difference
 * to the reference's result, in units of the largest |v|. */
static inline double attention_error(const attention_case &c, unsigned *range) {
    uint64_t seed = 99;
    const size_t wide = c.heads * c.d, row = 3 * wide + 1, tokens = c.lq > c.lk ? c.lq : c.lk;
    std::vector<float> qkv = random_floats(c.batch * tokens * row, 1, &seed);
    for (size_t i = 0; i < qkv.size(); i++)
        if (i % row < wide) qkv[i] *= c.amplitude;
    const std::vector<float> key_bias = mask_of(c, &seed);
    std::vector<float> pair = random_floats(c.pair_bias ? c.heads * c.lq * c.lk : 0, 3 * c.amplitude, &seed);
    if (c.t5) pair = t5_bias(c.heads, c.lq, c.lk, &seed);
    for (size_t i = 0; c.mask == QUERIES_MASKED && i < pair.size(); i++) /* every third query, its neighbour half */
        if (i / c.lk % 3 == 1 || (i / c.lk % 3 == 2 && i % c.lk < 100)) pair[i] = -INFINITY;
    std::vector<float> got(c.batch * c.lq * wide, NAN), ref(got.size());
    rung_attention_args a = {};
    a.batch = c.batch, a.heads = c.heads, a.d = c.d, a.lq = c.lq, a.lk = c.lk;
    a.q = qkv.data(), a.k = a.q + wide, a.v = a.k + wide;
    a.q_row = a.k_row = a.v_row = row;
    a.o_row = wide;
    a.q_batch = tokens * row;
    a.k_batch = a.v_batch = c.one_kv ? 0 : tokens * row;
    a.o_batch = c.lq * wide;
    a.scale = c.t5 ? 1 : 1 / sqrtf((float)c.d);
    a.key_bias = c.mask == NO_MASK || c.mask == QUERIES_MASKED ? nullptr : key_bias.data();
    a.pair_bias = pair.empty() ? nullptr : pair.data();
    a.causal = c.causal;

    std::vector<uint4> scratch(cuda_k_attention_scratch(&a) / sizeof(uint4) + 1);
    a.o = got.data();
    cuda_k_attention(nullptr, &a, scratch.data(), range);
    a.o = ref.data();
    for (size_t b = 0; b < c.batch; b++)
        for (size_t h = 0; h < c.heads; h++) attention_ref.block(&a, b, h, 0, c.lq, nullptr);
    double worst = 0;
    for (size_t i = 0; i < got.size(); i++) {
        const double error = fabs((double)got[i] - ref[i]);
        if (!(error <= worst)) worst = error; /* NaN stays */
        if (std::isnan(error)) return error;
    }
    return worst;
}

/* ---- products ---------------------------------------------------------------------------------------------------- */

enum product_kind { FPX, CSL, BITMAP };

struct product_case {
    product_kind kind;
    size_t m, n, k;
    unsigned splits = 1;
    bool bf16 = false;
    double density = 1;       /* of w, CSL and BITMAP */
    bool any_numbers = false; /* x and the scales as they come; else so that every sum is exact */
    size_t nonzeros = 0;      /* when not 0: just the first so many elements of w */
    bool two_parts = false;   /* x is the sum of two */
};

struct product_data {
    std::vector<uint8_t> codes; /* E3M2 [n, k] */
    std::vector<uint16_t> x;    /* [m, x_row], or [2, m, x_row] */
    std::vector<float> scale;
    size_t x_row, k8;
};

static inline float x_value(const product_case &c, uint16_t bits) {
    return c.bf16 ? cuda_host::bf16_to_f32(bits) : cuda_host::f16_to_f32(bits);
}

/* Exact: x in eighths up to 2, weights in sixteenths up to 28, sums below 2^24 / 128. */
static inline product_data product_data_of(const product_case &c) {
    product_data d;
    uint64_t seed = 5 + c.m + 3 * c.n + 7 * c.k;
    d.k8 = (c.k + 7) / 8 * 8;
    d.x_row = d.k8 + 8;
    d.codes.resize(c.n * c.k);
    d.x.resize((c.two_parts ? 2 : 1) * c.m * d.x_row);
    d.scale.resize(c.n);
    for (size_t i = 0; i < d.codes.size(); i++) {
        const double u = (rnd(&seed) + 1.0) / 2;
        uint8_t code = (uint8_t)((rnd(&seed) + 1) * 32);
        if (c.kind != FPX && u >= c.density) code = 0;
        if (c.nonzeros) code = i < c.nonzeros ? code | 1 : 0;
        d.codes[i] = code;
    }
    for (uint16_t &x : d.x) {
        const float v = c.any_numbers ? rnd(&seed) * 3 : floorf(rnd(&seed) * 16) / 8;
        x = c.bf16 ? cuda_host::f32_to_bf16(v) : cuda_host::f32_to_f16(v);
    }
    for (float &s : d.scale) s = c.any_numbers ? 1 + rnd(&seed) / 2 : exp2f(floorf(rnd(&seed) * 4));
    return d;
}

static inline void run_fpx(const cuda_tc_gemm &g, const product_case &c, const product_data &d) {
    const rung_fpx_shape shape = rung_fpx_shape_of(6, c.n, c.k, RUNG_FPX_TILE);
    std::vector<uint4> w(rung_fpx_bytes(&shape) / sizeof(uint4));
    rung_fpx_pack((unsigned char *)w.data(), d.codes.data(), &shape);
    cuda_k_fpx_gemm(nullptr, &g, w.data());
}

static inline void run_csl(const cuda_tc_gemm &g, const product_case &c, const product_data &d) {
    std::vector<uint16_t> w(c.n * c.k);
    for (size_t i = 0; i < w.size(); i++) {
        const float v = rung_e3m2_to_f32(d.codes[i]);
        w[i] = d.codes[i] == 0 ? 0 : c.bf16 ? cuda_host::f32_to_bf16(v) : cuda_host::f32_to_f16(v);
    }
    std::vector<int32_t> at = {0};
    std::vector<uint32_t> items, tile(RUNG_CSL_TILE);
    for (size_t r = 0; r < c.n; r += RUNG_CSL_ROWS)
        for (size_t k = 0; k < c.k; k += RUNG_CSL_COLS) {
            const size_t rows = c.n - r < RUNG_CSL_ROWS ? c.n - r : (size_t)RUNG_CSL_ROWS;
            const size_t cols = c.k - k < RUNG_CSL_COLS ? c.k - k : (size_t)RUNG_CSL_COLS;
            const size_t count = rung_csl_pack_tile(tile.data(), w.data() + r * c.k + k, c.k, rows, cols);
            items.insert(items.end(), tile.begin(), tile.begin() + (long)count);
            at.push_back((int32_t)(items.size() / RUNG_CSL_UNIT));
        }
    std::vector<uint4> aligned(items.size() / 4 + 1);
    std::copy(items.begin(), items.end(), (uint32_t *)aligned.data()); /* maybe none */
    cuda_k_spmm(nullptr, &g, (const uint32_t *)aligned.data(), at.data());
}

static inline void run_bitmap(const cuda_tc_gemm &g, const product_case &c, const product_data &d) {
    const size_t strips = rung_strips(c.n, c.k, 128);
    std::vector<uint32_t> at(strips + 1);
    std::vector<uint4> bitmap(strips * RUNG_STRIP_WORDS / 4);
    std::vector<uint4> codes(rung_strips_words(d.codes.data(), c.n, c.k) / 4 + 1);
    rung_strips_pack((uint32_t *)bitmap.data(), at.data(), (uint32_t *)codes.data(), d.codes.data(), c.n, c.k, 128);
    cuda_k_bitmap_gemm(nullptr, &g, (const uint32_t *)bitmap.data(), (const uint32_t *)codes.data(), at.data());
}

/* ||got - ref|| / ||ref||; 0 when every element is exactly right. Infinite when something else was written. */
static inline double product_error(const product_case &c) {
    const product_data d = product_data_of(c);
    const size_t row = c.n + 3;
    std::vector<float> sums(c.m * row, 77.0f), ref(c.m * c.n), got(c.m * c.n);
    std::vector<uint4> x(d.x.size() / 8); /* aligned */
    if (c.m) memcpy(x.data(), d.x.data(), d.x.size() * 2);
    cuda_tc_gemm g = {};
    std::vector<float> split;
    g.x = x.data(), g.x_row = d.x_row, g.bf16 = c.bf16, g.two_parts = c.two_parts;
    g.out.m = c.m, g.out.n = c.n, g.k = d.k8;
    g.out.y = sums.data(), g.out.y_row = row, g.out.scale = d.scale.data();
    g.splits = c.splits;
    if (cuda_tc_needs_split(&g)) split.assign(c.splits * cuda_tc_rows(&g) * c.n, NAN);
    g.split = split.data();
    if (c.kind == FPX) run_fpx(g, c, d);
    if (c.kind == CSL) run_csl(g, c, d);
    if (c.kind == BITMAP) run_bitmap(g, c, d);
    if (cudaGetLastError() != cudaSuccess) return INFINITY;
    for (size_t i = 0; i < c.m; i++) {
        for (size_t j = 0; j < 3; j++)
            if (sums[i * row + c.n + j] != 77.0f) return INFINITY;
        for (size_t j = 0; j < c.n; j++) {
            double v = 0;
            for (size_t t = 0; t < c.k; t++)
                for (size_t part = 0; part < (c.two_parts ? 2 : 1); part++)
                    v += (double)x_value(c, d.x[(part * c.m + i) * d.x_row + t]) *
                         rung_e3m2_to_f32(d.codes[j * c.k + t]);
            ref[i * c.n + j] = (float)(v * d.scale[j]);
            got[i * c.n + j] = sums[i * row + j];
        }
    }
    return rel_l2(got.data(), ref.data(), ref.size());
}
#endif
