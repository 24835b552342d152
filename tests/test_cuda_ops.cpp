/* tests/test_cuda_ops.cpp - the CUDA backend's norms and memory-bound operations against the CPU's specification; also
 * with a host thread for each CUDA thread (CUDA_HOST_THREADS), where ThreadSanitizer watches the barriers. */
#include <cstring>

#include "tests/cuda_bed.h"

static const size_t widths[] = {1, 2, 7, 31, 32, 33, 64, 320, 333, 1280};

#ifdef CUDA_HOST_THREADS
enum { ROW_STEP = 4, SLOW = 1 }; /* a thread costs more than its work */
#else
enum { ROW_STEP = 30, SLOW = 0 };
#endif

static void test_layer_norm(bed &b) {
    uint64_t seed = 1;
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i += SLOW ? 4 : 1) {
        for (unsigned with = SLOW; with < 16; with += SLOW ? 14 : 1) {
            const size_t rows = 1 + i % 5 * ROW_STEP, n = widths[i], stride = n + 3, samples = rows / 7 + 1;
            const floats none;
            same_on_both(b,
                         {random_numbers(rows * n, 0.3f, 1.7f, &seed), floats(rows * n),
                          with & 1 ? random_numbers(n, 1, 0.5f, &seed) : none,
                          with & 2 ? random_numbers(n, 0, 1, &seed) : none,
                          with & 4 ? random_numbers(samples * stride, 0, 1, &seed) : none,
                          with & 8 ? random_numbers(samples * stride, 0, 1, &seed) : none},
                         with % 2 ? 0 : 1, 2e-6f, label("layer_norm", {rows, n, with}),
                         [=](rung_backend *be, const std::vector<float *> &p) {
                             be->ops->layer_norm(be, p[with % 2 ? 0 : 1], p[0], rows, n, p[2], p[3], 1e-5f, p[4], p[5],
                                                 stride, 7);
                         });
        }
    }
    if (SLOW) return;
    /* no rows; a row far longer than a block is wide */
    for (size_t rows : {(size_t)0, (size_t)2}) {
        const floats x = random_numbers(rows * 70001, 0.3f, 1.7f, &seed);
        same_on_both(b, {x, floats(x.size())}, 1, 3e-6f, label("layer_norm", {rows, 70001}),
                     [=](rung_backend *be, const std::vector<float *> &p) {
                         be->ops->layer_norm(be, p[1], p[0], rows, 70001, NULL, NULL, 1e-6f, NULL, NULL, 0, 1);
                     });
    }
    /* a large mean must not cancel */
    const floats far = random_numbers(40 * 320, 1e4f, 1.7f, &seed);
    same_on_both(b, {far, floats(far.size())}, 1, 3e-6f, "layer_norm, mean 1e4",
                 [](rung_backend *be, const std::vector<float *> &p) {
                     be->ops->layer_norm(be, p[1], p[0], 40, 320, NULL, NULL, 1e-6f, NULL, NULL, 0, 40);
                 });
}

static void test_rms_norm(bed &b) {
    uint64_t seed = 2;
    for (size_t n : widths) {
        const size_t rows = 1 + n % ROW_STEP;
        if (SLOW && n != 33) continue;
        same_on_both(b, {random_numbers(rows * n, 0, 3, &seed), random_numbers(n, 1, 1, &seed)}, 0, 2e-6f,
                     label("rms_norm", {rows, n}), [=](rung_backend *be, const std::vector<float *> &p) {
                         be->ops->rms_norm(be, p[0], p[0], rows, n, p[1], 1e-6f);
                     });
    }
}

static void group_case(bed &b, size_t batch, size_t pixels, size_t ch, size_t groups, float mean, bool plain) {
    uint64_t seed = ch + pixels;
    const floats none;
    const rung_act act = plain ? RUNG_ACT_NONE : RUNG_ACT_SILU;
    const std::vector<floats> in = {random_numbers(batch * pixels * ch, mean, 1.7f, &seed), floats(batch * pixels * ch),
                                    plain ? none : random_numbers(ch, 1, 0.5f, &seed),
                                    plain ? none : random_numbers(ch, 0, 1, &seed), floats(2 * batch * ch)};
    const std::string what = label("group_norm", {batch, pixels, ch, groups});
    for (size_t out : {(size_t)0, (size_t)1}) /* in place too */
        same_on_both(b, in, out, 3e-6f, what, [=](rung_backend *be, const std::vector<float *> &p) {
            be->ops->group_norm(be, p[out], p[0], batch, pixels, ch, groups, p[2], p[3], 1e-5f, act);
        });
    if (pixels)
        same_on_both(b, in, 4, 3e-6f, what + " affine", [=](rung_backend *be, const std::vector<float *> &p) {
            be->ops->group_norm_affine(be, p[4], p[4] ? p[4] + batch * ch : NULL, p[0], batch, pixels, ch, groups, p[2],
                                       p[3], 1e-5f);
        });
}

static void test_group_norm(bed &b) {
    static const size_t shapes[][4] = {{1, 1, 1, 1},      {2, 3, 4, 2},    {1, 17, 8, 8},    {3, 5, 15, 3},
                                       {2, 64, 17, 1},    {2, 81, 33, 11}, {1, 300, 64, 32}, {2, 1024, 320, 32},
                                       {2, 64, 1280, 32}, {1, 9, 2000, 5}, {1, 0, 32, 4},    {0, 4, 32, 4},
                                       {1, 7000, 3, 1},   {5, 600, 40, 10}};
    for (const auto &s : shapes) {
        if (SLOW && s[2] != 33 && s[1] != 300) continue;
        group_case(b, s[0], s[1], s[2], s[3], 0.3f, false);
        if (SLOW) continue;
        group_case(b, s[0], s[1], s[2], s[3], 0.3f, true);
    }
    if (!SLOW) group_case(b, 2, 1024, 64, 8, 1e4f, true);
}

static void test_elementwise(bed &b) {
    uint64_t seed = 3;
    /* the last: one more than a launch has threads (MOST_BLOCKS * NT) */
    for (size_t n : {(size_t)0, (size_t)1, (size_t)255, (size_t)257, (size_t)1000, ((size_t)1 << 21) + 1}) {
        if (SLOW && n != 1) continue;
        const floats x = random_numbers(n, 0, 6, &seed), z = random_numbers(n, 0, 1, &seed);
        for (int act = RUNG_ACT_NONE; act <= RUNG_ACT_QUICK_GELU; act++)
            same_on_both(b, {x, floats(n)}, 1, 2e-6f, label("act", {(size_t)act, n}),
                         [=](rung_backend *be, const std::vector<float *> &p) {
                             be->ops->act(be, p[1], p[0], n, (rung_act)act);
                         });
        same_on_both(b, {x, z}, 1, 0, label("add", {n}),
                     [=](rung_backend *be, const std::vector<float *> &p) { be->ops->add(be, p[1], p[0], p[1], n); });
    }
    same_on_both(
        b, {random_numbers(12 * 9, 0, 1, &seed), random_numbers(4 * 9, 0, 1, &seed)}, 0, 0, "add_rows",
        [](rung_backend *be, const std::vector<float *> &p) { be->ops->add_rows(be, p[0], p[0], p[1], 12, 4, 9); });
    same_on_both(b, {random_numbers(7 * 11, 0, 1, &seed), floats(7 * 20)}, 1, 0, "copy2d",
                 [](rung_backend *be, const std::vector<float *> &p) {
                     be->ops->act(be, p[1], p[1], 7 * 20, RUNG_ACT_NONE);
                     be->ops->copy2d(be, p[1] + 5, 20, p[0], 11, 7, 10);
                 });
    for (size_t p : {(size_t)1, (size_t)2, (size_t)3})
        same_on_both(b, {random_numbers(2 * 3 * 5 * p * p * 4, 0, 1, &seed), floats(2 * 3 * 5 * p * p * 4)}, 1, 0,
                     label("unpatchify", {p}), [=](rung_backend *be, const std::vector<float *> &m) {
                         be->ops->unpatchify(be, m[1], m[0], 2, 3, 5, p, 4);
                     });
}

/* A table of every dtype, rows of an odd number of codes, with and without factors; bit for bit. */
static void test_lookup(bed &b) {
    enum { ROWS = 10, N = 13 };
    uint64_t seed = 4;
    const floats numbers = exact_numbers(ROWS * N, &seed), scale = random_numbers(ROWS, 0, 2, &seed);
    static const int32_t ids[] = {3, 0, 9, 3, 7};
    for (int type = RUNG_F64; type <= RUNG_F5_E2M2; type++) {
        std::vector<unsigned char> bytes(ROWS * N * 8);
        for (size_t i = 0; i < ROWS * N; i++) {
            const double d = numbers[i];
            const uint16_t h = type == RUNG_F16 ? rung_f32_to_f16(numbers[i]) : rung_f32_to_bf16(numbers[i]);
            if (type == RUNG_F64) memcpy(&bytes[i * 8], &d, 8);
            if (type == RUNG_F32) memcpy(&bytes[i * 4], &numbers[i], 4);
            if (type == RUNG_F16 || type == RUNG_BF16) memcpy(&bytes[i * 2], &h, 2);
            if (type > RUNG_BF16) bytes[i] = (unsigned char)(i * 89 + 7) & 0xbb; /* no NaN in eight bits */
        }
        for (bool scaled : {false, true}) {
            rung_tensor t = tensor_of((rung_dtype)type, {ROWS, N}, bytes.data());
            t.scale = scaled ? scale.data() : NULL;
            for (size_t rows : {(size_t)5, (size_t)1, (size_t)0})
                same_on_both(b, {floats(5 * N)}, 0, 0, label("lookup", {(size_t)type, scaled, rows}),
                             [&](rung_backend *be, const std::vector<float *> &p) {
                                 rung_table *table = NULL;
                                 rung_err e = {};
                                 if (CHECK(be->ops->table_open(be, &table, &t, &e) == RUNG_OK))
                                     be->ops->lookup(be, p[0], table, ids, rows);
                                 be->ops->table_close(be, &table);
                             });
        }
        if (SLOW) return;
    }
    const rung_tensor whole = tensor_of(RUNG_I32, {ROWS, N}, numbers.data());
    const rung_tensor flat = tensor_of(RUNG_F32, {ROWS}, numbers.data());
    rung_table *table = NULL;
    CHECK(b.gpu->ops->table_open(b.gpu, &table, &whole, NULL) == RUNG_EFORMAT && !table);
    CHECK(b.gpu->ops->table_open(b.gpu, &table, &flat, NULL) == RUNG_ESHAPE && !table);
}

/* What a sampling step is made of; torch.manual_seed(0); torch.randn(10, device="cuda") and its second call. */
static void test_step_math(bed &b) {
    uint64_t seed = 6;
    for (size_t dim : {(size_t)1, (size_t)2, (size_t)7, (size_t)256, (size_t)320}) {
        if (SLOW && dim != 7) continue;
        const floats t = {0, 1, 999, 437.25f, 1024};
        for (int form = 0; form < 4; form++) {
            if (dim < 4 && form % 2) continue; /* shift = dim / 2 divides by 0 */
            same_on_both(b, {t, floats(5 * dim)}, 1, 2e-7f, label("sinusoids", {dim, (size_t)form}),
                         [=](rung_backend *be, const std::vector<float *> &p) {
                             be->ops->sinusoids(be, p[1], p[0], 5, dim, form / 2, form % 2);
                         });
        }
    }
    for (size_t n : {(size_t)0, (size_t)1, (size_t)257, (size_t)4 * 64 * 64}) {
        if (SLOW && n != 257) continue;
        const floats x = random_numbers(n, 0, 6, &seed), z = random_numbers(n, 0, 1, &seed);
        for (size_t count = 1; count <= RUNG_MOST_TERMS; count += SLOW ? 7 : 1)
            for (size_t out : {(size_t)0, (size_t)2}) /* in place too */
                same_on_both(b, {x, z, floats(n)}, out, 1e-6f, label("combine", {n, count, out}),
                             [=](rung_backend *be, const std::vector<float *> &p) {
                                 rung_term terms[RUNG_MOST_TERMS];
                                 for (size_t j = 0; j < count; j++) terms[j] = {1.5f - 0.4f * (float)j, p[j % 2]};
                                 be->ops->combine(be, p[out], terms, count, 0.7f, n);
                             });
        for (uint64_t offset : {(uint64_t)0, (uint64_t)3, (uint64_t)1 << 33})
            same_on_both(b, {floats(n)}, 0, 2e-6f, label("normal", {n, (size_t)offset}),
                         [=](rung_backend *be, const std::vector<float *> &p) {
                             be->ops->normal(be, p[0], n, 0x123456789abcull, offset);
                         });
    }
    static const float first[] = {-0.924662f, -0.425344f, -2.643846f, 0.145184f,  -0.120867f,
                                  -0.579726f, -0.622852f, -0.328387f, -1.074542f, -0.363144f};
    static const float second[] = {0.180826f, -0.552263f, 0.923813f, -0.734970f};
    memory m(b.gpu, floats(10));
    b.gpu->ops->normal(b.gpu, m.p, 10, 0, 0);
    CHECK(close_all(m.read().data(), first, 10, 1e-6f));
    b.gpu->ops->normal(b.gpu, m.p, 4, 0, 1);
    CHECK(close_all(m.read().data(), second, 4, 1e-6f));
}

/* More than the pinned memory holds at once; odd sizes. */
static void test_transfers(bed &b) {
    uint64_t seed = 5;
    for (size_t n : {(size_t)1, (size_t)77, (size_t)5 << 20}) {
        if (SLOW && n > 77) continue;
        const floats v = random_numbers(n, 0, 1, &seed);
        memory m(b.gpu, v);
        memory small(b.gpu, floats(3, 1.5f));
        CHECK(m.read() == v);
        CHECK(small.read() == floats(3, 1.5f));
    }
}

int main() {
    bed b;
    if (!b.gpu) return check_result();
    test_layer_norm(b);
    test_rms_norm(b);
    test_group_norm(b);
    test_elementwise(b);
    test_lookup(b);
    test_step_math(b);
    test_transfers(b);
    return check_result();
}
