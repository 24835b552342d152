/* tests/test_tensor.c - dtypes and their conversion to f32, against torch (tests/golden/assets/numbers.safetensors). */
#include <stdlib.h>
#include <string.h>

#include "assets/weights.h"
#include "kernels/base/tensor.h"
#include "tests/check.h"

static uint32_t bits_of(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static bool same(float a, float b) { return bits_of(a) == bits_of(b) || (isnan(a) && isnan(b)); }

static void names(void) {
    rung_dtype t;
    for (int i = 0; i < RUNG_DTYPES; i++)
        CHECK(rung_dtype_from_name(rung_dtype_name((rung_dtype)i), &t) && (int)t == i);
    CHECK(!rung_dtype_from_name("F4", &t) && !rung_dtype_from_name("", &t) && !rung_dtype_from_name("f32", &t));
    CHECK(rung_dtype_bits(RUNG_F64) == 64 && rung_dtype_bits(RUNG_F6_E2M3) == 6 && rung_dtype_bits(RUNG_BOOL) == 8);
    CHECK(rung_dtype_is_float(RUNG_F64) && rung_dtype_is_float(RUNG_F6_E2M3) && !rung_dtype_is_float(RUNG_I64));
}

static void shape_text(void) {
    const rung_tensor t = {.ndim = 3, .shape = {320, 4, 3}};
    char buf[100], small[8];
    CHECK(strcmp(rung_tensor_shape_text(&t, buf, sizeof buf), "[320, 4, 3]") == 0);
    CHECK(strcmp(rung_tensor_shape_text(&t, small, sizeof small), "[320, 4") == 0);
    CHECK(strcmp(rung_tensor_shape_text(&(rung_tensor){0}, buf, sizeof buf), "[]") == 0);
    CHECK(rung_tensor_count(&t) == 3840 && rung_tensor_count(&(rung_tensor){0}) == 1);
}

/* Tensor `name` converted, against the f32 tensor `want`; read in two pieces. */
static void against_torch(rung_weights *w, const char *name, const char *want) {
    const rung_tensor *t = rung_weights_find(w, name), *ref = rung_weights_find(w, want);
    rung_err e = {0};
    if (!CHECK(t && ref && rung_tensor_count(t) == rung_tensor_count(ref))) return;
    const size_t n = rung_tensor_count(t), cut = n / 3;
    float *a = malloc(n * sizeof *a), *b = malloc(n * sizeof *b);
    CHECK(rung_tensor_to_f32(t, 0, cut, a, &e) == RUNG_OK &&
          rung_tensor_to_f32(t, cut, n - cut, a + cut, &e) == RUNG_OK);
    CHECK(rung_tensor_to_f32(ref, 0, n, b, &e) == RUNG_OK);
    size_t wrong = 0;
    for (size_t i = 0; i < n; i++) wrong += !same(a[i], b[i]);
    if (!CHECK(wrong == 0)) fprintf(stderr, "  %s: %zu of %zu differ\n", name, wrong, n);
    free(b);
    free(a);
}

/* The 16-bit values that torch rounds to. */
static void rounding(rung_weights *w) {
    const rung_tensor *x = rung_weights_find(w, "x");
    const rung_tensor *h = rung_weights_find(w, "x_f16"), *b = rung_weights_find(w, "x_bf16");
    if (!CHECK(x && h && b)) return;
    size_t wrong_h = 0, wrong_b = 0;
    const size_t n = rung_tensor_count(x);
    for (size_t i = 0; i < n; i++) {
        float f;
        uint16_t want;
        memcpy(&f, (const char *)x->data + 4 * i, 4);
        memcpy(&want, (const char *)h->data + 2 * i, 2);
        wrong_h += rung_f32_to_f16(f) != want;
        memcpy(&want, (const char *)b->data + 2 * i, 2);
        wrong_b += rung_f32_to_bf16(f) != want;
    }
    CHECK(n > 3000 && wrong_h == 0 && wrong_b == 0);
}

static void sixteen_bits_return(void) {
    unsigned wrong = 0;
    for (unsigned i = 0; i < 65536; i++) {
        const float h = rung_f16_to_f32((uint16_t)i), b = rung_bf16_to_f32((uint16_t)i);
        wrong += isnan(h) ? !isnan(rung_f16_to_f32(rung_f32_to_f16(h))) : rung_f32_to_f16(h) != i;
        wrong += isnan(b) ? !isnan(rung_bf16_to_f32(rung_f32_to_bf16(b))) : rung_f32_to_bf16(b) != i;
        const int e = (int)(i >> 10 & 31);
        const double m = (double)(i & 1023), want = e ? ldexp(1024 + m, e - 25) : ldexp(m, -24);
        if (e < 31) wrong += h != (float)(i & 0x8000 ? -want : want);
    }
    CHECK(wrong == 0);
}

/* Six bits: 2 rows of 6 codes from an odd address, with scales at an odd address. */
static void six_bits_and_scale(void) {
    const uint8_t codes[12] = {12, 31, 1, 0, 44, 4, 12, 12, 12, 12, 12, 63};
    unsigned char stream[1 + 9] = {0}, scale[1 + 8];
    const float scales[2] = {0.5f, 3};
    for (int i = 0; i < 12; i++)
        for (int k = 0; k < 6; k++)
            stream[1 + (6 * i + k) / 8] |= (unsigned char)((codes[i] >> (5 - k) & 1) << (7 - (6 * i + k) % 8));
    memcpy(scale + 1, scales, 8);
    const rung_tensor t = {.dtype = RUNG_F6_E3M2,
                           .ndim = 2,
                           .shape = {2, 6},
                           .data = stream + 1,
                           .scale = (const float *)(const void *)(scale + 1)};
    const float want[12] = {0.5f, 14, 0.03125f, 0, -0.5f, 0.125f, 3, 3, 3, 3, 3, -84};
    float got[12];
    rung_err e = {0};
    for (size_t first = 0; first < 12; first++) {
        CHECK(rung_tensor_to_f32(&t, first, 12 - first, got, &e) == RUNG_OK);
        CHECK(memcmp(got, want + first, (12 - first) * sizeof *got) == 0);
    }
    rung_tensor other = t;
    other.dtype = RUNG_F6_E2M3;
    other.scale = NULL;
    CHECK(rung_tensor_to_f32(&other, 0, 2, got, &e) == RUNG_OK && got[0] == 1.5f && got[1] == 7.5f);
}

static void integers_are_refused(void) {
    const int64_t v = 3;
    float f;
    rung_err e = {0};
    const rung_tensor t = {.dtype = RUNG_I64, .ndim = 1, .shape = {1}, .data = &v};
    CHECK(rung_tensor_to_f32(&t, 0, 1, &f, &e) == RUNG_EFORMAT && strstr(e.msg, "I64"));
}

int main(void) {
    names();
    shape_text();
    sixteen_bits_return();
    six_bits_and_scale();
    integers_are_refused();
    rung_err e = {0};
    rung_weights *w;
    if (CHECK(rung_weights_open(&w, RUNG_TEST_DIR "/golden/assets/numbers.safetensors", &e) == RUNG_OK)) {
        against_torch(w, "e4m3", "e4m3_f32");
        against_torch(w, "e5m2", "e5m2_f32");
        rounding(w);
    }
    rung_weights_close(&w);
    return check_result();
}
