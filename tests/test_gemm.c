/* tests/test_gemm.c - the pieces of the product that an instruction set brings: activations, expanders, tiles. */
#include "tests/guard.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/base/fp6.h"
#include "kernels/cpu/gemm.h"
#include "tests/check.h"

static uint64_t seed = 3;

/* Values that matter to exp and erf, then a dense sweep, then the ends of f32. */
static size_t sweep(float *x) {
    static const float edges[] = {0,      -0.0f,  1e-38f, -1e-38f, 1e-20f, 87,    -87,   86.5f,  -86.7f,   88.3f,
                                  88.72f, -88.8f, 89,     -104,    1e4f,   -1e4f, 1e30f, -1e30f, INFINITY, NAN};
    size_t n = 0;
    for (size_t i = 0; i < sizeof edges / sizeof *edges; i++) x[n++] = edges[i];
    for (int i = -120000; i <= 120000; i++) x[n++] = (float)i * 1e-4f;
    for (int i = -1000; i <= 1000; i++) x[n++] = (float)i * 0.1f;
    return n;
}

enum { SWEEP_MAX = 250000 };

static void activations(const gemm_kernels *k) {
    float *x = malloc(SWEEP_MAX * sizeof *x), *y = malloc(SWEEP_MAX * sizeof *y);
    const size_t n = sweep(x);
    for (rung_act act = RUNG_ACT_NONE; act < RUNG_ACT_GEGLU; act++) {
        const gemm_weights none = {0};
        const rung_epilogue ep = {.act = act};
        const gemm_out out = {&none, &ep, y, n};
        k->store(&out, x, NULL, 0, 0, 1, 0, n);
        double worst = 0;
        for (size_t i = 0; i < n; i++) {
            const double want = gemm_act_ref(x[i], act);
            if (!isfinite(want)) {
                if (!CHECK(isnan(want) ? isnan(y[i]) : y[i] == want)) fprintf(stderr, "  act %d of %g\n", act, x[i]);
            } else {
                worst = fmax(worst, isfinite(y[i]) ? fabs(y[i] - want) / (1 + fabs(want)) : INFINITY);
            }
        }
        if (!CHECK(worst <= 2.5e-7)) fprintf(stderr, "  act %d: %g\n", act, worst);
    }
    free(x);
    free(y);
}

/* Every panel of every type, expanded from any block on, holds the bits that the scalar reader gives. */
static void expanders(unsigned cpu, rung_store store) {
    const gemm_kernels *k = gemm_kernels_for(cpu);
    const size_t n = k->nr + 5, depth = 3 * GEMM_FP6_GROUP + 3;
    guard data = guard_floats(n * depth), out = guard_floats(4 * GEMM_FP6_GROUP * k->nr);
    for (size_t i = 0; i < n * depth; i++) data.p[i] = rnd(&seed);
    const rung_tensor t = {.dtype = RUNG_F32, .ndim = 2, .shape = {n, depth}, .data = data.p};
    const gemm_part part = {&t, NULL, 1};
    gemm_weights w;
    rung_err e = {0};
    if (!CHECK(gemm_weights_open(&w, &part, 1, store, cpu, &e) == RUNG_OK)) return;
    float row[4 * GEMM_FP6_GROUP];
    for (size_t k0 = 0; k0 < depth; k0 += GEMM_FP6_GROUP) {
        for (size_t panel = 0; panel < 2; panel++) {
            k->expand(&w, panel, k0, depth - k0, out.p);
            size_t wrong = 0;
            for (size_t c = 0; c < k->nr; c++) {
                gemm_weights_row(&w, panel * k->nr + c, k0, depth - k0, row);
                for (size_t i = 0; i < depth - k0; i++) wrong += memcmp(&row[i], &out.p[i * k->nr + c], 4) != 0;
            }
            if (!CHECK(wrong == 0))
                fprintf(stderr, "  store %d k0 %zu panel %zu: %zu wrong\n", store, k0, panel, wrong);
        }
    }
    gemm_weights_close(&w);
    guard_free(&data);
    guard_free(&out);
}

/* All 64 codes survive packing and expanding; the row scale stays apart. */
static void codes(unsigned cpu, rung_dtype dtype) {
    const gemm_kernels *k = gemm_kernels_for(cpu);
    const bool e3m2 = dtype == RUNG_F6_E3M2;
    unsigned char stream[48] = {0};
    for (unsigned i = 0; i < 64; i++) {
        unsigned char *p = stream + i / 4 * 3;
        const unsigned at = i % 4 * 6, word = i << (18 - at);
        for (unsigned b = 0; b < 3; b++) p[b] |= (unsigned char)(word >> (16 - 8 * b));
    }
    const float scale = 0.3f;
    const rung_tensor t = {.dtype = dtype, .ndim = 2, .shape = {1, 64}, .data = stream, .scale = &scale};
    const gemm_part part = {&t, NULL, 1};
    gemm_weights w;
    rung_err e = {0};
    if (!CHECK(gemm_weights_open(&w, &part, 1, RUNG_STORE_STORED, cpu, &e) == RUNG_OK)) return;
    guard out = guard_floats(64 * k->nr);
    k->expand(&w, 0, 0, 64, out.p);
    for (uint8_t i = 0; i < 64; i++) {
        const float want = e3m2 ? rung_e3m2_to_f32(i) : rung_e2m3_to_f32(i);
        CHECK(memcmp(&out.p[i * k->nr], &want, sizeof want) == 0);
    }
    CHECK(w.dtype == (e3m2 ? GEMM_FP6 : GEMM_E2M3) && w.scale[0] == scale && w.panel_bytes == 64 * k->nr * 6 / 8);
    gemm_weights_close(&w);
    guard_free(&out);
}

static void tiles(const gemm_kernels *k) {
    enum { DEPTH = 37, LDC = 50 };
    for (size_t rows = 1; rows <= k->mr; rows++) {
        guard a = guard_floats((rows - 1) * GEMM_LDA + DEPTH), b = guard_floats(DEPTH * k->nr);
        guard c = guard_floats((rows - 1) * LDC + k->nr);
        for (size_t i = 0; i < (rows - 1) * GEMM_LDA + DEPTH; i++) a.p[i] = rnd(&seed);
        for (size_t i = 0; i < DEPTH * k->nr; i++) b.p[i] = rnd(&seed);
        for (int add = 0; add <= 1; add++) {
            k->tile(rows, DEPTH, a.p, GEMM_LDA, b.p, c.p, LDC, add, b.p);
            double worst = 0;
            for (size_t i = 0; i < rows * k->nr; i++) {
                const size_t r = i / k->nr, col = i % k->nr;
                double want = 0;
                for (size_t d = 0; d < DEPTH; d++) want += (double)a.p[r * GEMM_LDA + d] * b.p[d * k->nr + col];
                worst = fmax(worst, fabs(c.p[r * LDC + col] - want * (1 + add)));
            }
            if (!CHECK(worst < 1e-5)) fprintf(stderr, "  rows %zu add %d: %g\n", rows, add, worst);
        }
        guard_free(&a);
        guard_free(&b);
        guard_free(&c);
    }
}

/* Every f32 near a code against the nearest one, ties to the even code. */
static void encoder(void) {
    size_t wrong = 0;
    for (int i = 0; i <= 400000; i++) {
        const float a = (float)i * (40.0f / 400000);
        unsigned best = 0;
        for (unsigned c = 1; c < 32; c++) {
            const float d = fabsf(rung_e3m2_to_f32((uint8_t)c) - a), known = fabsf(rung_e3m2_to_f32((uint8_t)best) - a);
            if (d < known || (d == known && c % 2 == 0)) best = c;
        }
        wrong += rung_f32_to_e3m2(a) != best || rung_f32_to_e3m2(-a) != (best | 32);
    }
    CHECK(wrong == 0);
    for (unsigned c = 0; c < 31; c++) {
        const float tie = (rung_e3m2_to_f32((uint8_t)c) + rung_e3m2_to_f32((uint8_t)(c + 1))) / 2;
        CHECK(rung_f32_to_e3m2(tie) == (c % 2 ? c + 1 : c));
    }
    CHECK(rung_f32_to_e3m2(1e30f) == 31 && rung_f32_to_e3m2(-INFINITY) == 63 && rung_f32_to_e3m2(-0.0f) == 32);
}

int main(void) {
    static const unsigned levels[] = {RUNG_CPU_AVX2, RUNG_CPU_AVX2 | RUNG_CPU_AVX512};
    encoder();
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
        if (levels[i] & ~rung_cpu_detect()) {
            fprintf(stderr, "SKIP %s: not on this machine\n", rung_cpu_name(levels[i]));
            continue;
        }
        const gemm_kernels *k = gemm_kernels_for(levels[i]);
        activations(k);
        expanders(levels[i], RUNG_STORE_F16);
        expanders(levels[i], RUNG_STORE_BF16);
        expanders(levels[i], RUNG_STORE_FP6);
        codes(levels[i], RUNG_F6_E3M2);
        codes(levels[i], RUNG_F6_E2M3);
        tiles(k);
    }
    return check_result();
}
