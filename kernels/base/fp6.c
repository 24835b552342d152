#include "kernels/base/fp6.h"

#include <string.h>

/* Magnitudes by the low five bits; a line holds one or two exponents. */
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

uint8_t rung_f32_to_e3m2(float v) {
    uint32_t u;
    memcpy(&u, &v, sizeof u);
    const uint32_t sign = u >> 26 & 32;
    u &= 0x7fffffff;
    float a;
    memcpy(&a, &u, sizeof a);
    if (!(a < RUNG_E3M2_MAX)) return (uint8_t)(sign | 31);
    if (a < 0.25f) /* steps of 2^-4: rounded to the nearest whole number of them, as the sum's last bits are */
        return (uint8_t)(sign | (uint32_t)(a * 16 + 0x1p23f - 0x1p23f));
    /* The exponent's bias moves from 127 to 3 and 21 bits go, rounded to nearest even; a carry out of the mantissa
     * raises the exponent, as it should. */
    u -= (uint32_t)(127 - 3) << 23;
    return (uint8_t)(sign | (u + (1u << 20) - 1 + (u >> 21 & 1)) >> 21);
}
