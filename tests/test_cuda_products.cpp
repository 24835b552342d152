/* tests/test_cuda_products.cpp - the tensor-core products with six-bit and sparse weights, on host threads. Data are
 * chosen so that every product and sum is exact: the results must be equal to the reference, whatever the order. */
#include "tests/cuda_cases.h"

static void expect_exact(const product_case &c) {
    const double e = product_error(c);
    if (!CHECK(e == 0))
        fprintf(stderr, "  kind %d m %zu n %zu k %zu splits %u bf16 %d density %g: error %g\n", c.kind, c.m, c.n, c.k,
                c.splits, c.bf16, c.density, e);
}

static void test_shapes(product_kind kind) {
    static const size_t ms[] = {1, 7, 8, 9, 16, 17, 33, 64, 65, 77};
    for (size_t m : ms) expect_exact({kind, m, 64, 128, 1, m % 2 == 0, 0.4});
    static const size_t ns[] = {1, 15, 63, 65, 128, 129, 200, 255, 257, 320};
    for (size_t n : ns) expect_exact({kind, 9, n, 72, 1, n % 2 == 0, 0.4});
    static const size_t ks[] = {1, 5, 8, 36, 63, 64, 65, 120, 129, 320};
    for (size_t k : ks) expect_exact({kind, 5, 70, k, 1, k % 2 == 0, 0.4});
    for (size_t n : {320u, 640u, 1280u}) expect_exact({kind, 2, n, n, 1, false, 0.4});
    for (size_t one : {1u, 2u}) expect_exact({kind, one, 1, 1});
    expect_exact({kind, 3, 66, 20011, 1, false, 0.4});
    expect_exact({kind, 1, 66, 20011, 16, true, 0.4});
    for (unsigned splits : {1u, 3u}) expect_exact({kind, 0, 70, 200, splits, false, 0.4});
}

static void test_splits(product_kind kind) {
    for (unsigned splits : {2u, 3u, 5u, 16u}) {
        expect_exact({kind, 3, 70, 320, splits, false, 0.4}); /* 5 steps: some parts have none */
        expect_exact({kind, 70, 130, 130, splits, true, 0.4});
    }
}

/* Activations in two parts, around a tile's 64 rows of x. */
static void test_two_parts(product_kind kind) {
    for (size_t m : {0u, 1u, 5u, 31u, 32u, 33u, 70u})
        for (unsigned splits : {1u, 3u}) expect_exact({kind, m, 130, 200, splits, true, 0.4, false, 0, true});
}

static void test_density(product_kind kind) {
    for (double density : {0.0, 1.0 / 8192, 0.02, 0.2, 0.49, 0.5, 0.51, 0.8, 1.0}) {
        expect_exact({kind, 4, 130, 200, 1, false, density});
        expect_exact({kind, 4, 130, 200, 2, true, density});
    }
}

/* One tile of 128 x 64 with exactly so many items: more than a thread holds in registers, up to a full one; two tiles
 * of which the second is empty. */
static void test_counts(product_kind kind) {
    for (size_t count : {1u, 3u, 4u, 5u, 2047u, 2048u, 2049u, 4095u, 4096u, 4097u, 8191u, 8192u})
        for (size_t n : {128u, 256u}) expect_exact({kind, 3, n, 64, 1, false, 1, false, count});
}

/* Numbers as they come: what the rounding of f32 sums leaves. */
static void test_any_numbers(product_kind kind) {
    for (bool bf16 : {false, true}) {
        const double e = product_error({kind, 20, 200, 640, 2, bf16, 0.5, true});
        if (!CHECK(e < 1e-6)) fprintf(stderr, "  kind %d bf16 %d: %g\n", kind, bf16, e);
    }
}

/* Six-bit weights as f16, for the libraries: every code in every place. */
static void test_expand(size_t n, size_t k) {
    const size_t even = (k + 7) / 8 * 8;
    const rung_fpx_shape shape = rung_fpx_shape_of(6, n, k, RUNG_FPX_TILE);
    std::vector<uint8_t> codes(n * k);
    for (size_t i = 0; i < codes.size(); i++) codes[i] = (uint8_t)(i * 29 % 64);
    std::vector<uint4> w(rung_fpx_bytes(&shape) / sizeof(uint4));
    std::vector<uint16_t> y(n * even + 1, 0x7777);
    rung_fpx_pack((unsigned char *)w.data(), codes.data(), &shape);
    cuda_k_fpx_expand(nullptr, y.data(), w.data(), n, even);
    size_t wrong = y[n * even] != 0x7777;
    for (size_t i = 0; i < n * even; i++) {
        const float want = i % even < k ? rung_e3m2_to_f32(codes[i / even * k + i % even]) : 0;
        wrong += y[i] != cuda_host::f32_to_f16(want);
    }
    CHECK(wrong == 0);
}

static void test_split_choice() {
    CHECK(cuda_tc_splits(1, 4096, 4096, 256, 108) == 13);   /* 16 blocks for 108 multiprocessors */
    CHECK(cuda_tc_splits(4096, 4096, 4096, 256, 108) == 1); /* enough blocks */
    CHECK(cuda_tc_splits(1, 320, 320, 256, 108) == 1);      /* five steps are too few */
    CHECK(cuda_tc_splits(1, 256, 1 << 20, 256, 108) == 16);
    CHECK(cuda_tc_splits(0, 0, 0, 256, 108) == 1);
}

int main() {
    for (product_kind kind : {FPX, CSL, BITMAP}) {
        test_shapes(kind);
        test_splits(kind);
        test_two_parts(kind);
        if (kind != FPX) test_density(kind);
        test_counts(kind);
        test_any_numbers(kind);
    }
    for (size_t n : {1u, 64u, 65u, 200u})
        for (size_t k : {1u, 8u, 63u, 64u, 100u}) test_expand(n, k);
    test_split_choice();
    cuda_host::set_order(1);
    expect_exact({FPX, 9, 130, 200});
    expect_exact({CSL, 9, 130, 200, 1, false, 0.7});
    expect_exact({BITMAP, 9, 130, 200, 1, false, 0.7});
    return check_result();
}
