/* tests/test_rng.c - torch's random numbers. Values: torch 2.13.0, torch.randn(n, generator=
 * torch.Generator().manual_seed(seed)); Philox: the CUDA generator as its open re-implementations give it. */
#include <stdlib.h>
#include <string.h>

#include "kernels/base/rng.h"
#include "tests/check.h"

static int equals(rung_rng_kind kind, uint64_t seed, size_t n, const float *want, size_t shown) {
    rung_rng g;
    float *got = malloc(n * sizeof *got);
    rung_rng_seed(&g, kind, seed);
    rung_rng_normal(&g, got, n);
    const int same = close_all(got, want, shown, 1e-6f);
    free(got);
    return same;
}

static void uniform_is_torch_rand(void) {
    static const float want[] = {0.496256590f, 0.768221796f, 0.0884774327f, 0.132030487f};
    rung_rng g;
    float got[4];
    rung_rng_seed(&g, RUNG_RNG_CPU, 0);
    rung_rng_uniform(&g, got, 4);
    CHECK(memcmp(got, want, sizeof want) == 0);
}

static const float five[] = {1.540996f, -0.293429f, -2.178789f, 0.568431f, -1.084522f};

static void few_are_drawn_one_by_one(void) {
    CHECK(equals(RUNG_RNG_CPU, 0, 5, five, 5));
    rung_rng g;
    float got[5], many[32];
    rung_rng_seed(&g, RUNG_RNG_CPU, 0);
    rung_rng_normal(&g, got, 3);
    rung_rng_normal(&g, got + 3, 2);
    CHECK(close_all(got, five, 5, 1e-6f));

    rung_rng_seed(&g, RUNG_RNG_CPU, 0); /* the sine of the second pair survives a large draw in between */
    rung_rng_normal(&g, got, 3);
    rung_rng_normal(&g, many, 32);
    rung_rng_normal(&g, got + 3, 1);
    CHECK(close_all(got, five, 4, 1e-6f));
}

static void many_are_drawn_in_blocks(void) {
    static const float seventeen[] = {-1.12584f, -1.695931f, 0.566651f, 0.793508f,  0.598839f,  -1.555095f,
                                      -0.34136f, 1.853006f,  0.468096f, -0.585498f, -0.173397f, 0.183478f,
                                      1.389366f, 1.586334f,  0.946298f, -0.843677f, 0.931827f};
    static const float latents[] = {1.926915f, 1.487284f,  0.900717f,  -2.105521f,
                                    0.678418f, -1.234545f, -0.043067f, -1.604667f};
    static const float seed_0[] = {-1.125840f, -1.152360f, -0.250579f, -0.433879f,
                                   0.848710f,  0.692009f,  -0.316013f, -2.115219f};
    static const float seed_5[] = {1.842330f, 0.518887f, -1.711921f, -1.701379f};
    CHECK(equals(RUNG_RNG_CPU, 0, 17, seventeen, 17));
    CHECK(equals(RUNG_RNG_CPU, 42, 4 * 64 * 64, latents, 8));
    CHECK(equals(RUNG_RNG_CPU, 0, 768, seed_0, 8));
    CHECK(equals(RUNG_RNG_CPU, (1ull << 32) + 5, 33, seed_5, 4)); /* only the low 32 bits count */
    CHECK(equals(RUNG_RNG_CPU, 5, 33, seed_5, 4));
}

static void cuda_is_philox(void) {
    static const float seed_0[] = {-0.924662f, -0.425344f, -2.643846f, 0.145184f,  -0.120867f,
                                   -0.579726f, -0.622852f, -0.328387f, -1.074542f, -0.363144f};
    static const float seed_42[] = {0.194019f, 2.161374f, -0.172051f, 0.849060f};
    static const float second[] = {0.180826f, -0.552263f, 0.923813f, -0.734970f};
    CHECK(equals(RUNG_RNG_CUDA, 0, 10, seed_0, 10));
    CHECK(equals(RUNG_RNG_CUDA, 42, 4, seed_42, 4));
    rung_rng g;
    float got[4];
    rung_rng_seed(&g, RUNG_RNG_CUDA, 0);
    rung_rng_normal(&g, got, 4);
    rung_rng_normal(&g, got, 4);
    CHECK(close_all(got, second, 4, 1e-6f));
}

static void moments_are_normal(rung_rng_kind kind) {
    enum { N = 1 << 16 };
    float *x = malloc(N * sizeof *x);
    rung_rng g;
    double sum = 0, squares = 0;
    rung_rng_seed(&g, kind, 7);
    rung_rng_normal(&g, x, N);
    for (int i = 0; i < N; i++) {
        sum += (double)x[i];
        squares += (double)x[i] * x[i];
    }
    CHECK(fabs(sum / N) < 0.015 && fabs(squares / N - 1) < 0.02);
    free(x);
}

int main(void) {
    uniform_is_torch_rand();
    few_are_drawn_one_by_one();
    many_are_drawn_in_blocks();
    cuda_is_philox();
    moments_are_normal(RUNG_RNG_CPU);
    moments_are_normal(RUNG_RNG_CUDA);
    return check_result();
}
