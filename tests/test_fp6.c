/* tests/test_fp6.c - the six-bit codes against their formula, the encoder against a search, the bit order. */
#include <string.h>

#include "kernels/base/fp6.h"
#include "tests/check.h"

static float formula(unsigned code, unsigned mantissa_bits, int bias) {
    const unsigned ones = (1u << mantissa_bits) - 1, e = (code & 31) >> mantissa_bits, m = code & ones;
    const double f = (double)m / (ones + 1);
    const double a = e == 0 ? ldexp(f, 1 - bias) : ldexp(1 + f, (int)e - bias);
    return (float)(code & 32 ? -a : a);
}

static void decoding(void) {
    for (unsigned c = 0; c < 64; c++) {
        const float a = rung_e3m2_to_f32((uint8_t)c), b = rung_e2m3_to_f32((uint8_t)c);
        CHECK(a == formula(c, 2, 3) && b == formula(c, 3, 1));
        CHECK(!signbit(a) == (c < 32) && !signbit(b) == (c < 32));
    }
    CHECK(rung_e3m2_to_f32(31) == RUNG_E3M2_MAX);
}

/* Nearest by search, ties to the even code. */
static uint8_t nearest(float v) {
    uint8_t best = 0;
    for (uint8_t c = 1; c < 32; c++) {
        const double d = fabs(fabs((double)v) - (double)rung_e3m2_to_f32(c));
        const double found = fabs(fabs((double)v) - (double)rung_e3m2_to_f32(best));
        if (d < found || (d == found && c % 2 == 0)) best = c;
    }
    return signbit(v) ? best | 32 : best;
}

static void encoding(void) {
    int wrong = 0;
    for (unsigned c = 0; c < 64; c++) wrong += rung_f32_to_e3m2(rung_e3m2_to_f32((uint8_t)c)) != c;
    for (unsigned c = 0; c < 31; c++) { /* between two codes: the middle, and the floats beside it */
        const float mid = (rung_e3m2_to_f32((uint8_t)c) + rung_e3m2_to_f32((uint8_t)(c + 1))) / 2;
        const float around[3] = {nextafterf(mid, 0), mid, nextafterf(mid, 100)};
        for (int i = 0; i < 3; i++) wrong += rung_f32_to_e3m2(around[i]) != nearest(around[i]);
    }
    uint64_t s = 1;
    for (int i = 0; i < 200000; i++) {
        const float v = rnd(&s) * (i % 2 ? 40 : 1);
        wrong += rung_f32_to_e3m2(v) != nearest(v);
    }
    CHECK(wrong == 0);
    CHECK(rung_f32_to_e3m2(1e30f) == 31 && rung_f32_to_e3m2(-INFINITY) == 63 && rung_f32_to_e3m2(-0.0f) == 32);
}

static void bit_order(void) {
    const unsigned char ones[12] = {0x30, 0xC3, 0x0C, 0x30, 0xC3, 0x0C, 0x30, 0xC3, 0x0C, 0x30, 0xC3, 0x0C};
    for (size_t i = 0; i < 16; i++) CHECK(rung_e3m2_to_f32(rung_fp6_get(ones, i)) == 1);
    const unsigned char mixed[3] = {0xFC, 0x10, 0x83}; /* 111111 000001 000010 000011 */
    CHECK(rung_fp6_get(mixed, 0) == 63 && rung_fp6_get(mixed, 1) == 1 && rung_fp6_get(mixed, 2) == 2 &&
          rung_fp6_get(mixed, 3) == 3);
}

int main(void) {
    decoding();
    encoding();
    bit_order();
    return check_result();
}
