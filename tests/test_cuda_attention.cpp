/* tests/test_cuda_attention.cpp - tensor-core attention on host threads against the scalar reference. */
#include "tests/cuda_cases.h"

/* |v| <= 1. f16 rounds q and k by 2^-11 of a score of about 1, the probabilities and v by 2^-11 of theirs. */
static void expect_close(const attention_case &c, double tolerance = 1.5e-3) {
    unsigned range = 0;
    const double e = attention_error(c, &range);
    if (!CHECK(e <= tolerance) || !CHECK(range == 0))
        fprintf(stderr, "  b %zu h %zu d %zu lq %zu lk %zu causal %d mask %d pair %d x%g: %g range %u\n", c.batch,
                c.heads, c.d, c.lq, c.lk, c.causal, c.mask, c.pair_bias, c.amplitude, e, range);
}

static void test_dimensions() {
    for (size_t d : {1u, 7u, 8u, 16u, 31u, 32u, 33u, 40u, 48u, 64u, 72u, 80u, 96u, 128u, 160u, 161u, 256u, 300u})
        expect_close({1, 2, d, 17, 70});
}

static void test_lengths() {
    for (size_t l : {1u, 2u, 15u, 16u, 63u, 64u, 65u, 127u, 129u, 200u}) {
        expect_close({1, 1, 40, l, l});
        expect_close({2, 1, 24, l, 77});
        expect_close({1, 1, 24, 5, l});
        expect_close({1, 2, 40, l, l, true});
    }
    expect_close({1, 1, 24, 70, 30, true}); /* more queries than keys, and the other way round */
    expect_close({1, 1, 24, 30, 150, true});
}

static void test_biases() {
    for (int mask = NO_MASK; mask <= ALL_MASKED; mask++)
        for (bool pair : {false, true})
            for (bool causal : {false, true}) expect_close({2, 2, 40, 70, 140, causal, (mask_kind)mask, pair});
    /* Scores and biases in the thousands: the maximum is taken with the biases. An error of 2^-11 of a score is then no
     * longer small, so only finite results are asked for, and the pair bias alone decides. */
    unsigned range = 0;
    CHECK(attention_error({1, 2, 40, 33, 70, false, RANDOM_MASK, true, 4000}, &range) < 1.5);
    expect_close({3, 2, 40, 20, 77, false, RANDOM_MASK, true, 1, true});
    expect_close({2, 1, 300, 70, 70, true, RANDOM_MASK, true});
}

/* T5's encoder: 64 channels a head, a bias for each distance, padding masked, scores as they are: they are eight times
 * larger than scaled ones, and so is what f16 rounds off them. One prompt of 120 tokens, and around the tiles. */
static void test_t5() {
    CHECK(t5_bucket(5, 5) == 0 && t5_bucket(5, 4) == 1 && t5_bucket(5, 6) == 17 && t5_bucket(20, 12) == 8);
    CHECK(t5_bucket(200, 73) == 15 && t5_bucket(0, 500) == 31 && t5_bucket(0, 91) == 31 && t5_bucket(0, 90) == 30);
    for (size_t l : {(size_t)1, (size_t)63, (size_t)65, (size_t)120, (size_t)300})
        for (mask_kind mask : {NO_MASK, RANDOM_MASK}) {
            attention_case c = {1 + l % 2, 3, 64, l, l, false, mask};
            c.t5 = true;
            expect_close(c, 4e-3);
        }
}

/* More keys than a sum of f16 could count, for one query and for as many as a block takes and one. */
static void test_many_keys() {
    for (size_t lq : {(size_t)1, (size_t)65}) {
        expect_close({1, 1, 40, lq, 9001});
        expect_close({1, 1, 130, lq, 4097, false, RANDOM_MASK, true});
    }
}

/* The shapes of tests/test_attention.c: every d with every lq, lk along another diagonal. */
static void test_shapes() {
    static const size_t d[] = {1, 7, 8, 13, 40, 64, 72, 80, 81, 160, 300};
    static const size_t l[] = {1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 77, 96, 97, 129, 200};
    enum { DS = sizeof d / sizeof *d, LS = sizeof l / sizeof *l };
    for (size_t i = 0; i < DS * LS; i++) {
        const size_t lq = l[i % LS], lk = i % 3 ? l[(i * 5 + i / LS) % LS] : lq;
        expect_close({1 + i % 2, 1 + i % 3, d[i / LS], lq, lk, i % 7 < 3, i % 2 ? RANDOM_MASK : NO_MASK, i % 5 < 2});
    }
    expect_close({1, 1, 1025, 3, 101});
    expect_close({1, 2, 16, 37, 120, true, QUERIES_MASKED, true});
}

static void test_empty() {
    expect_close({2, 2, 24, 5, 0}, 0);
    expect_close({2, 2, 24, 0, 5}, 0);
    expect_close({0, 2, 24, 5, 5}, 0);
}

static void test_range() {
    unsigned range = 0;
    attention_error({1, 1, 16, 4, 4, false, NO_MASK, false, 1e7f}, &range);
    CHECK(range == 1);
}

int main() {
    test_dimensions();
    test_lengths();
    test_biases();
    test_t5();
    test_many_keys();
    test_shapes();
    test_empty();
    test_range();
    cuda_host::set_order(1);
    expect_close({1, 2, 40, 70, 140, true, RANDOM_MASK, true});
    expect_close({1, 1, 200, 70, 140});
    return check_result();
}
