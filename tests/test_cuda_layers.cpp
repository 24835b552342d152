/* tests/test_cuda_layers.cpp - linear layers, convolutions and attention of the CUDA backend against the CPU's
 * specification. Operands are exact in every type, so that what is left is the order of the sums (1e-5), a result that
 * cuDNN rounds to f16 (one part in 2^11), and attention's probabilities in f16. */
#include "tests/cuda_bed.h"
extern "C" {
#include "kernels/base/fp6.h"
#include "kernels/sparse.h"
}

static const char *const names[] = {"stored", "f32", "f16", "bf16", "fp6"};

/* A weight: stored as f32; six bits keep their own codes in both backends. */
struct weight {
    floats w, b;
    rung_tensor tw, tb;
    weight(std::initializer_list<size_t> shape, bool bias, rung_store store, uint64_t *seed) {
        size_t n = 1;
        for (size_t s : shape) n *= s;
        tw = tensor_of(RUNG_F32, shape, NULL);
        w = exact_numbers(n, seed);
        /* six bits: each row's largest is 28 * 2^-4, so that codes are exact multiples of a power of two */
        const size_t row = n / tw.shape[0];
        for (size_t r = 0; store == RUNG_STORE_FP6 && r < tw.shape[0]; r++)
            for (size_t k = 0; k < row; k++) w[r * row + k] = k == 0 ? 1.75f : floorf(w[r * row + k] * 2) / 4;
        tw.data = w.data();
        if (bias) b = exact_numbers(tw.shape[0], seed);
        tb = tensor_of(RUNG_F32, {tw.shape[0]}, b.data());
    }
};

/* Which parts an epilogue has: bits. */
enum { ADD = 1, GATE = 2, RESIDUAL = 4, IN_PLACE = 8, SCALE = 16 };

struct epilogue_case {
    rung_act act;
    unsigned with;
};
static const epilogue_case epilogues[] = {{RUNG_ACT_NONE, 0},
                                          {RUNG_ACT_RELU, 0},
                                          {RUNG_ACT_GELU_TANH, 0},
                                          {RUNG_ACT_GELU, 0},
                                          {RUNG_ACT_SILU, ADD},
                                          {RUNG_ACT_NONE, RESIDUAL},
                                          {RUNG_ACT_NONE, RESIDUAL | IN_PLACE},
                                          {RUNG_ACT_NONE, GATE | RESIDUAL | IN_PLACE},
                                          {RUNG_ACT_QUICK_GELU, ADD | GATE | RESIDUAL | SCALE},
                                          {RUNG_ACT_RELU, RESIDUAL},
                                          {RUNG_ACT_NONE, SCALE}};

/* p: y, sample rows [samples, n + 1] twice, residual [m, n]. */
static rung_epilogue epilogue_of(const epilogue_case &c, float *y, const float *rows, const float *residual, size_t n,
                                 size_t rows_per_sample) {
    rung_epilogue ep = {};
    ep.act = c.act;
    ep.rows_per_sample = rows_per_sample;
    if (c.with & ADD) ep.sample_add = rows, ep.sample_add_stride = n + 1;
    if (c.with & GATE) ep.gate = rows + 1, ep.gate_stride = n + 1;
    if (c.with & RESIDUAL) ep.residual = c.with & IN_PLACE ? y : residual;
    if (c.with & SCALE) ep.out_scale = 0.5f;
    return ep;
}

static void linear_case(bed &b, size_t m, size_t n, size_t k, rung_store store, bool bias, const epilogue_case &c) {
    uint64_t seed = m * 31 + n * 7 + k;
    const size_t x_row = k + 5, out = c.act == RUNG_ACT_GEGLU ? n / 2 : n, per = 3;
    const weight w({n, k}, bias, store, &seed);
    const rung_tensor *tw = &w.tw, *tb = bias ? &w.tb : NULL;
    same_on_both(b,
                 {exact_numbers(m * x_row, &seed), exact_numbers(m * out, &seed),
                  exact_numbers((m / per + 1) * (n + 1), &seed), exact_numbers(m * out, &seed)},
                 1, 2e-5f, std::string(names[store]) + label(" linear", {m, n, k, (size_t)c.act, c.with}),
                 [&](rung_backend *be, const std::vector<float *> &p) {
                     rung_linear *l = NULL;
                     rung_err e = {};
                     const rung_epilogue ep = epilogue_of(c, p[1], p[2], p[3], n, per);
                     if (!CHECK(be->ops->linear_open(be, &l, &tw, &tb, 1, store, &e) == RUNG_OK))
                         fprintf(stderr, "  %s\n", e.msg);
                     if (l) be->ops->linear(be, p[1], p[0], x_row, m, l, c.act || c.with ? &ep : NULL);
                     be->ops->sync(be, NULL);
                     be->ops->linear_close(be, &l);
                 });
}

static void test_linear(bed &b) {
    static const size_t shapes[][3] = {{1, 1, 1},    {1, 320, 64}, {2, 3, 7},   {7, 40, 33},  {64, 65, 130},
                                       {16, 64, 64}, {77, 96, 48}, {5, 130, 8}, {130, 8, 72}, {3, 320, 320}};
    for (const auto &s : shapes) {
        for (int store = RUNG_STORE_F32; store <= RUNG_STORE_FP6; store++) {
            for (const epilogue_case &c : epilogues)
                linear_case(b, s[0], s[1], s[2], (rung_store)store, c.with != RESIDUAL, c);
            if (s[1] % 2 == 0) {
                linear_case(b, s[0], s[1], s[2], (rung_store)store, true, {RUNG_ACT_GEGLU, 0});
                linear_case(b, s[0], s[1], s[2], (rung_store)store, false, {RUNG_ACT_GEGLU, RESIDUAL});
            }
        }
    }
}

/* Sparse weights: half or nine in ten are 0. 16-bit numbers go through Tiled-CSL, six-bit codes through bitmap strips.
 */
static void sparse_case(bed &b, rung_dtype dtype, size_t m, size_t n, size_t k, float density, const epilogue_case &c) {
    uint64_t seed = m + n + k;
    std::vector<uint8_t> bitmap(n * rung_bitmap_bytes(k)), held_codes, codes(k);
    std::vector<uint16_t> held, words(k);
    std::vector<size_t> row_at(n + 1);
    for (size_t r = 0; r < n; r++) {
        uint8_t *mask = bitmap.data() + r * rung_bitmap_bytes(k);
        for (size_t i = 0; i < k; i++) {
            const float v = rnd(&seed) < 2 * density - 1 ? (rnd(&seed) < 0 ? -1.5f : 1.25f) : 0;
            words[i] = dtype == RUNG_BF16 ? rung_f32_to_bf16(v) : rung_f32_to_f16(v);
            codes[i] = rung_f32_to_e3m2(v);
        }
        std::vector<uint16_t> row(k);
        std::vector<uint8_t> row_codes(k);
        const size_t count = dtype == RUNG_F6_E3M2 ? rung_sparse_pack_codes(mask, row_codes.data(), codes.data(), k)
                                                   : rung_sparse_pack_words(mask, row.data(), words.data(), k);
        held.insert(held.end(), row.begin(), row.begin() + (long)count);
        held_codes.insert(held_codes.end(), row_codes.begin(), row_codes.begin() + (long)count);
        row_at[r + 1] = row_at[r] + count;
    }
    std::vector<uint8_t> stream((held_codes.size() + 3) / 4 * 3 + 8);
    for (size_t i = 0; i < held_codes.size(); i++) rung_fp6_put(stream.data(), i, held_codes[i]);
    rung_tensor t = tensor_of(dtype, {n, k}, dtype == RUNG_F6_E3M2 ? (const void *)stream.data() : held.data());
    t.bitmap = bitmap.data();
    t.row_at = row_at.data();
    const rung_tensor *w = &t;
    same_on_both(b,
                 {exact_numbers(m * k, &seed), floats(m * n), exact_numbers((m / 3 + 1) * (n + 1), &seed),
                  exact_numbers(m * n, &seed)},
                 1, 2e-5f, label("sparse linear", {(size_t)dtype, m, n, k, (size_t)(100 * density)}),
                 [&](rung_backend *be, const std::vector<float *> &p) {
                     rung_linear *l = NULL;
                     rung_err e = {};
                     const rung_epilogue ep = epilogue_of(c, p[1], p[2], p[3], n, 3);
                     if (!CHECK(be->ops->linear_open(be, &l, &w, NULL, 1, RUNG_STORE_STORED, &e) == RUNG_OK))
                         fprintf(stderr, "  %s\n", e.msg);
                     if (l) be->ops->linear(be, p[1], p[0], k, m, l, &ep);
                     be->ops->sync(be, NULL);
                     be->ops->linear_close(be, &l);
                 });
}

static void test_sparse(bed &b) {
    static const size_t shapes[][3] = {{1, 64, 64}, {7, 130, 96}, {40, 65, 200}};
    for (const auto &s : shapes) {
        for (float density : {0.1f, 0.3f}) {
            for (rung_dtype dtype : {RUNG_F16, RUNG_BF16, RUNG_F6_E3M2}) {
                sparse_case(b, dtype, s[0], s[1], s[2], density, {RUNG_ACT_NONE, 0});
                sparse_case(b, dtype, s[0], s[1], s[2], density, {RUNG_ACT_SILU, ADD | GATE | RESIDUAL});
            }
        }
    }
}

/* So many rows that packed weights are expanded for cuBLASLt (CUDA_PACKED_LARGE), and one row fewer. */
static void test_many_rows(bed &b) {
    for (size_t m : {(size_t)511, (size_t)512}) {
        linear_case(b, m, 70, 33, RUNG_STORE_FP6, true, {RUNG_ACT_GEGLU, 0});
        linear_case(b, m, 129, 72, RUNG_STORE_FP6, true, {RUNG_ACT_SILU, ADD | GATE | RESIDUAL});
        for (rung_dtype dtype : {RUNG_F16, RUNG_BF16, RUNG_F6_E3M2})
            sparse_case(b, dtype, m, 131, 100, 0.3f, {RUNG_ACT_NONE, 0});
    }
}

/* Around the tiles of the kernels and of cuBLASLt's stand-in, no rows, one number, very long sums: what is summed is a
 * multiple of 2^-10 below 2^14, so exact in any order. */
static void test_boundaries(bed &b) {
    static const size_t shapes[][3] = {{0, 64, 64},   {0, 7, 5},     {1, 1, 1},     {1, 2, 20011},
                                       {2, 65, 4097}, {63, 127, 63}, {65, 129, 65}, {8, 255, 7}};
    for (const auto &s : shapes)
        for (int store = RUNG_STORE_F32; store <= RUNG_STORE_FP6; store++) {
            linear_case(b, s[0], s[1], s[2], (rung_store)store, true, {RUNG_ACT_NONE, 0});
            linear_case(b, s[0], s[1], s[2], (rung_store)store, false, {RUNG_ACT_NONE, GATE | RESIDUAL});
        }
    for (rung_dtype dtype : {RUNG_F16, RUNG_BF16, RUNG_F6_E3M2})
        for (const auto &s : shapes) sparse_case(b, dtype, s[0], s[1], s[2], 0.3f, {RUNG_ACT_NONE, RESIDUAL});
}

/* Numbers that the types have to round: a TF32 or f16 operand is off by 2^-11, two bf16 parts by 2^-17. */
static void test_rounding(bed &b) {
    static const float tol[] = {0, 2e-3f, 2e-3f, 4e-5f};
    uint64_t seed = 8;
    const floats w = random_numbers(48 * 64, 0, 1, &seed), x = random_numbers(20 * 64, 0, 1, &seed);
    for (int store = RUNG_STORE_F32; store <= RUNG_STORE_BF16; store++) {
        const rung_tensor t = tensor_of(RUNG_F32, {48, 64}, w.data());
        const rung_tensor *tw = &t;
        same_on_both(b, {x, floats(20 * 48)}, 1, tol[store], names[store],
                     [&](rung_backend *be, const std::vector<float *> &p) {
                         rung_linear *l = NULL;
                         CHECK(be->ops->linear_open(be, &l, &tw, NULL, 1, (rung_store)store, NULL) == RUNG_OK);
                         be->ops->linear(be, p[1], p[0], 64, 20, l, NULL);
                         be->ops->sync(be, NULL);
                         be->ops->linear_close(be, &l);
                     });
    }
}

struct conv_case {
    size_t batch, h, w, ic, oc, kh, kw, stride, uh, uw, top, left, bottom, right;
    bool affine;
};
static const conv_case convs[] = {
    {1, 8, 8, 4, 16, 3, 3, 1, 0, 0, 1, 1, 1, 1, false},    {2, 9, 7, 16, 24, 3, 3, 1, 0, 0, 1, 1, 1, 1, true},
    {1, 8, 8, 16, 8, 3, 3, 2, 0, 0, 1, 1, 1, 1, false},    {2, 8, 6, 8, 12, 3, 3, 2, 0, 0, 0, 0, 1, 1, false},
    {1, 5, 6, 24, 24, 3, 3, 1, 10, 12, 1, 1, 1, 1, false}, {1, 3, 5, 8, 8, 3, 3, 1, 7, 9, 1, 1, 1, 1, true},
    {2, 6, 6, 16, 32, 1, 1, 1, 0, 0, 0, 0, 0, 0, true},    {1, 6, 4, 12, 20, 1, 1, 1, 0, 0, 0, 0, 0, 0, false},
    {2, 8, 8, 4, 32, 2, 2, 2, 0, 0, 0, 0, 0, 0, false},    {1, 6, 6, 32, 3, 3, 3, 1, 0, 0, 1, 1, 1, 1, true},
    {1, 5, 5, 3, 5, 3, 3, 1, 0, 0, 0, 1, 1, 1, true},      {1, 7, 7, 5, 4, 5, 3, 1, 0, 0, 2, 1, 2, 1, false},
    {1, 2, 2, 8, 8, 1, 1, 1, 4, 4, 0, 0, 0, 0, false},     {1, 4, 4, 8, 8, 1, 1, 1, 0, 0, 1, 1, 1, 1, true},
    {1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, false},     {1, 1, 1, 9, 7, 3, 3, 1, 0, 0, 1, 1, 1, 1, true},
    {1, 3, 2, 2563, 9, 3, 3, 1, 0, 0, 1, 1, 1, 1, false},
};

static void one_conv(bed &b, const conv_case &s, rung_store store, const epilogue_case &c) {
    uint64_t seed = s.h * 31 + s.ic * 7 + s.oc;
    const size_t uh = s.uh ? s.uh : s.h, uw = s.uw ? s.uw : s.w;
    const size_t oh = (uh + s.top + s.bottom - s.kh) / s.stride + 1, ow = (uw + s.left + s.right - s.kw) / s.stride + 1;
    const size_t m = s.batch * oh * ow;
    const weight w({s.oc, s.ic, s.kh, s.kw}, true, store, &seed);
    /* Exact operands: what is left is that cuDNN rounds f16 sums. The affine's results are rounded one by one,
     * numbers up to 6. Either error is 2^-11 of a sum that grows with the square root of its count. */
    const float ulp = 0x1p-11f * sqrtf((float)(s.ic * s.kh * s.kw));
    const float tol = s.affine ? 4 * ulp : store == RUNG_STORE_F32 || store == RUNG_STORE_BF16 ? 2e-5f : 2 * ulp;
    const std::string what = std::string(names[store]) +
                             label(" conv", {s.batch, s.h, s.w, s.ic, s.oc, s.kh, s.stride, (size_t)c.act, c.with});
    same_on_both(b,
                 {exact_numbers(s.batch * s.h * s.w * s.ic, &seed), exact_numbers(m * s.oc, &seed),
                  exact_numbers(s.batch * (s.oc + 1), &seed), exact_numbers(m * s.oc, &seed),
                  s.affine ? exact_numbers(2 * s.batch * s.ic, &seed) : floats()},
                 1, tol, what, [&](rung_backend *be, const std::vector<float *> &p) {
                     rung_conv *conv = NULL;
                     rung_err e = {};
                     const rung_epilogue ep = epilogue_of(c, p[1], p[2], p[3], s.oc, oh * ow);
                     rung_conv_args a = {};
                     a.batch = s.batch, a.h = s.h, a.w = s.w, a.uh = s.uh, a.uw = s.uw, a.stride = s.stride;
                     a.pad_top = s.top, a.pad_left = s.left, a.pad_bottom = s.bottom, a.pad_right = s.right;
                     if (s.affine) a.in_scale = p[4], a.in_shift = p[4] + s.batch * s.ic, a.in_act = RUNG_ACT_SILU;
                     if (!CHECK(be->ops->conv_open(be, &conv, &w.tw, &w.tb, store, &e) == RUNG_OK))
                         fprintf(stderr, "  %s\n", e.msg);
                     if (conv) be->ops->conv(be, p[1], p[0], conv, &a, c.act || c.with ? &ep : NULL);
                     be->ops->sync(be, NULL);
                     be->ops->conv_close(be, &conv);
                 });
}

static void test_conv(bed &b) {
    static const epilogue_case some[] = {{RUNG_ACT_NONE, 0},
                                         {RUNG_ACT_RELU, 0},
                                         {RUNG_ACT_SILU, ADD},
                                         {RUNG_ACT_NONE, RESIDUAL | SCALE},
                                         {RUNG_ACT_NONE, RESIDUAL | IN_PLACE}};
    for (const conv_case &s : convs)
        for (int store = RUNG_STORE_F32; store <= RUNG_STORE_FP6; store++)
            for (const epilogue_case &c : some) one_conv(b, s, (rung_store)store, c);
}

/* bits: 1 key bias, 2 pair bias, 4 causal, 8 one k and v for all pictures */
static void attention_case(bed &b, size_t batch, size_t heads, size_t d, size_t lq, size_t lk, unsigned with) {
    uint64_t seed = d + lq + lk;
    const size_t row = heads * d, shared = with & 8 ? 0 : 1;
    floats key_bias = exact_numbers(batch * lk, &seed);
    for (size_t i = 0; i < key_bias.size(); i += 3) key_bias[i] = -INFINITY;
    same_on_both(b,
                 {exact_numbers(batch * lq * 3 * row, &seed), exact_numbers(batch * lk * 2 * row, &seed),
                  floats(batch * lq * row), key_bias, exact_numbers(heads * lq * lk, &seed)},
                 2, 3e-3f, label("attention", {batch, heads, d, lq, lk, with}),
                 [=](rung_backend *be, const std::vector<float *> &p) {
                     rung_attention_args a = {};
                     a.batch = batch, a.heads = heads, a.d = d, a.lq = lq, a.lk = lk;
                     a.q = p[0], a.k = p[1], a.v = p[1] + row, a.o = p[2];
                     a.q_row = 3 * row, a.k_row = a.v_row = 2 * row, a.o_row = row;
                     a.q_batch = lq * 3 * row, a.k_batch = a.v_batch = shared * lk * 2 * row, a.o_batch = lq * row;
                     a.scale = 1 / sqrtf((float)d);
                     a.key_bias = with & 1 ? p[3] : NULL;
                     a.pair_bias = with & 2 ? p[4] : NULL;
                     a.causal = with & 4;
                     be->ops->attention(be, &a);
                 });
}

static void test_attention(bed &b) {
    static const size_t shapes[][5] = {{1, 1, 8, 1, 1},     {2, 3, 40, 17, 17}, {1, 2, 64, 65, 77}, {2, 2, 72, 33, 5},
                                       {1, 1, 160, 20, 70}, {1, 2, 5, 9, 130},  {1, 1, 512, 9, 40}, {0, 2, 40, 5, 5},
                                       {2, 2, 24, 0, 9},    {2, 2, 24, 5, 0},   {1, 1, 1, 1, 4097}};
    for (const auto &s : shapes)
        for (unsigned with : {0u, 1u, 2u, 4u, 7u, 8u}) attention_case(b, s[0], s[1], s[2], s[3], s[4], with);
}

int main() {
    bed b;
    if (!b.gpu) return check_result();
    test_linear(b);
    test_sparse(b);
    test_many_rows(b);
    test_boundaries(b);
    test_rounding(b);
    test_conv(b);
    test_attention(b);
    return check_result();
}
