#include "kernels/base/rng.h"

#include <math.h>

#include "kernels/base/philox.h"

enum { MT_N = 624, MT_M = 397 };

static const double two_pi = 6.283185307179586476925;

void rung_rng_seed(rung_rng *g, rung_rng_kind kind, uint64_t seed) {
    *g = (rung_rng){.kind = kind, .seed = seed, .at = MT_N};
    if (kind != RUNG_RNG_CPU) return;
    g->mt[0] = (uint32_t)seed;
    for (uint32_t j = 1; j < MT_N; j++) g->mt[j] = 1812433253u * (g->mt[j - 1] ^ (g->mt[j - 1] >> 30)) + j;
}

static void mt_refill(rung_rng *g) {
    for (int i = 0; i < MT_N; i++) {
        const uint32_t y = (g->mt[i] & 0x80000000u) | (g->mt[(i + 1) % MT_N] & 0x7fffffffu);
        g->mt[i] = g->mt[(i + MT_M) % MT_N] ^ (y >> 1) ^ ((y & 1) ? 0x9908b0dfu : 0);
    }
    g->at = 0;
}

static uint32_t mt_next(rung_rng *g) {
    if (g->at >= MT_N) mt_refill(g);
    uint32_t y = g->mt[g->at++];
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c5680u;
    y ^= (y << 15) & 0xefc60000u;
    return y ^ (y >> 18);
}

/* [0, 1) with 24 bits, as torch.rand in f32 */
static float mt_uniform_f32(rung_rng *g) { return (float)(mt_next(g) & 0xffffffu) * 0x1p-24f; }

/* [0, 1) with 53 bits of two draws, the first one high */
static double mt_uniform_f64(rung_rng *g) {
    const uint64_t high = mt_next(g);
    const uint64_t both = high << 32 | mt_next(g);
    return (double)(both & ((1ull << 53) - 1)) * 0x1p-53;
}

/* 16 uniforms become 16 normals: element j pairs with j + 8 */
static void box_muller_16(float *u) {
    for (int j = 0; j < 8; j++) {
        const float r = sqrtf(-2.0f * logf(1.0f - u[j]));
        const float theta = (float)two_pi * u[j + 8];
        u[j] = r * cosf(theta);
        u[j + 8] = r * sinf(theta);
    }
}

static void cpu_normal_blocks(rung_rng *g, float *out, size_t n) {
    for (size_t i = 0; i < n; i++) out[i] = mt_uniform_f32(g);
    for (size_t i = 0; i + 16 <= n; i += 16) box_muller_16(out + i);
    if (n % 16 == 0) return;
    for (size_t i = n - 16; i < n; i++) out[i] = mt_uniform_f32(g); /* the last 16 are drawn again */
    box_muller_16(out + n - 16);
}

static float cpu_normal_one(rung_rng *g) {
    if (g->has_cached) {
        g->has_cached = 0;
        return (float)g->cached;
    }
    const double u1 = mt_uniform_f64(g), u2 = mt_uniform_f64(g);
    const double r = sqrt(-2.0 * log1p(-u2)), theta = two_pi * u1;
    g->cached = r * sin(theta);
    g->has_cached = 1;
    return (float)(r * cos(theta));
}

void rung_philox_normal(float *out, size_t n, uint64_t seed, uint64_t offset) {
    for (size_t i = 0; i < n; i++) {
        const philox_pair p = philox_normal_bits(seed, offset, i);
        out[i] = sqrtf(-2.0f * logf(p.u)) * sinf(p.v);
    }
}

void rung_rng_normal(rung_rng *g, float *out, size_t n) {
    if (n == 0) return;
    if (g->kind == RUNG_RNG_CUDA) {
        rung_philox_normal(out, n, g->seed, g->offset++);
    } else if (n >= 16) {
        cpu_normal_blocks(g, out, n);
    } else {
        for (size_t i = 0; i < n; i++) out[i] = cpu_normal_one(g);
    }
}

void rung_rng_uniform(rung_rng *g, float *out, size_t n) {
    for (size_t i = 0; i < n; i++) out[i] = mt_uniform_f32(g);
}
