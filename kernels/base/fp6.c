#include "kernels/base/fp6.h"

#include <math.h>
#include <string.h>

/* Magnitudes by the low bits; a line holds one or two exponents. */
static const float e3m2[32] = {
    0,     0.0625f, 0.125f, 0.1875f, /* subnormal */
    0.25f, 0.3125f, 0.375f, 0.4375f, 0.5f, 0.625f, 0.75f, 0.875f, 1,  1.25f, 1.5f, 1.75f, 2,  2.5f,
    3,     3.5f,    4,      5,       6,    7,      8,     10,     12, 14,    16,   20,    24, 28,
};
static const float e2m3[32] = {
    0, 0.125f, 0.25f, 0.375f, 0.5f, 0.625f, 0.75f, 0.875f, /* subnormal */
    1, 1.125f, 1.25f, 1.375f, 1.5f, 1.625f, 1.75f, 1.875f, 2, 2.25f, 2.5f, 2.75f,
    3, 3.25f,  3.5f,  3.75f,  4,    4.5f,   5,     5.5f,   6, 6.5f,  7,    7.5f,
};

float rung_e3m2_to_f32(uint8_t code) { return code & 32 ? -e3m2[code & 31] : e3m2[code & 31]; }
float rung_e2m3_to_f32(uint8_t code) { return code & 32 ? -e2m3[code & 31] : e2m3[code & 31]; }
/* The five-bit formats lack the last mantissa bit of the six-bit ones. */
float rung_e3m1_to_f32(uint8_t code) { return rung_e3m2_to_f32(rung_e3m1_to_e3m2(code)); }
float rung_e2m2_to_f32(uint8_t code) { return rung_e2m3_to_f32(rung_e2m2_to_e2m3(code)); }

/* S, exponent, `mantissa` bits; `sign` is the sign's place, `top` the largest code without it, worth `max`. */
static inline uint8_t encode(float v, unsigned sign, unsigned mantissa, unsigned bias, uint32_t top, float max) {
    uint32_t u;
    memcpy(&u, &v, sizeof u);
    const uint32_t s = u >> 31 << sign;
    u &= 0x7fffffff;
    float a;
    memcpy(&a, &u, sizeof a);
    if (!(a < max)) return (uint8_t)(s | top);
    const float steps = (float)(1u << (mantissa + bias - 1)); /* subnormal codes in 1 */
    if (a * steps < (float)(1u << mantissa)) /* rounded to the nearest whole number, as the sum's last bits are */
        return (uint8_t)(s | (uint32_t)(a * steps + 0x1p23f - 0x1p23f));
    /* The exponent's bias moves from 127 and the last bits go, rounded to nearest even; a carry out of the mantissa
     * raises the exponent, as it should. */
    const unsigned drop = 23 - mantissa;
    u -= (uint32_t)(127 - bias) << 23;
    return (uint8_t)(s | (u + (1u << (drop - 1)) - 1 + (u >> drop & 1)) >> drop);
}

uint8_t rung_f32_to_e3m2(float v) { return encode(v, 5, 2, 3, 31, RUNG_E3M2_MAX); }
uint8_t rung_f32_to_e2m3(float v) { return encode(v, 5, 3, 1, 31, RUNG_E2M3_MAX); }
uint8_t rung_f32_to_e3m1(float v) { return encode(v, 4, 1, 3, 15, RUNG_E3M1_MAX); }
uint8_t rung_f32_to_e2m2(float v) { return encode(v, 4, 2, 1, 15, RUNG_E2M2_MAX); }

void rung_fp6_put(void *stream, size_t i, uint8_t code) {
    uint8_t *p = (uint8_t *)stream + i / 4 * 3;
    const unsigned w = (unsigned)code << (18 - 6 * (i % 4));
    p[0] |= (uint8_t)(w >> 16);
    p[1] |= (uint8_t)(w >> 8);
    p[2] |= (uint8_t)w;
}

void rung_fp5_put(void *stream, size_t i, uint8_t code) {
    uint8_t *p = (uint8_t *)stream + i / 8 * 5 + i % 8 * 5 / 8;
    const unsigned bit = i % 8 * 5 % 8, w = (unsigned)code << (11 - bit);
    p[0] |= (uint8_t)(w >> 8);
    if (bit > 3) p[1] |= (uint8_t)w;
}

rung_status rung_fp6_row_scale(const float *row, size_t n, float *scale, rung_err *err) {
    float top = 1e-12f;
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(row[i]))
            return rung_fail(err, RUNG_EFORMAT, "a weight is %g: six bits cannot hold it", (double)row[i]);
        top = fmaxf(top, fabsf(row[i]));
    }
    *scale = top / RUNG_E3M2_MAX;
    return RUNG_OK;
}
