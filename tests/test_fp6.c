/* tests/test_fp6.c - the six- and five-bit codes against their formula, the encoders against a search, the bit order.
 */
#include <string.h>

#include "kernels/base/fp6.h"
#include "tests/check.h"

static const struct format {
    const char *name;
    unsigned bits, mantissa;
    int bias;
    float max;
    float (*decode)(uint8_t);
    uint8_t (*encode)(float);
} formats[] = {
    {"E3M2", 6, 2, 3, RUNG_E3M2_MAX, rung_e3m2_to_f32, rung_f32_to_e3m2},
    {"E2M3", 6, 3, 1, RUNG_E2M3_MAX, rung_e2m3_to_f32, rung_f32_to_e2m3},
    {"E3M1", 5, 1, 3, RUNG_E3M1_MAX, rung_e3m1_to_f32, rung_f32_to_e3m1},
    {"E2M2", 5, 2, 1, RUNG_E2M2_MAX, rung_e2m2_to_f32, rung_f32_to_e2m2},
};
enum { FORMATS = sizeof formats / sizeof *formats };

static unsigned half(const struct format *f) { return 1u << (f->bits - 1); } /* magnitudes; the sign's bit */

static float formula(const struct format *f, unsigned code) {
    const unsigned ones = (1u << f->mantissa) - 1, e = (code % half(f)) >> f->mantissa, m = code & ones;
    const double part = (double)m / (ones + 1);
    const double a = e == 0 ? ldexp(part, 1 - f->bias) : ldexp(1 + part, (int)e - f->bias);
    return (float)(code & half(f) ? -a : a);
}

static void decoding(const struct format *f) {
    for (unsigned c = 0; c < 2 * half(f); c++) {
        const float v = f->decode((uint8_t)c);
        CHECK(v == formula(f, c) && !signbit(v) == (c < half(f)));
    }
    CHECK(f->decode((uint8_t)(half(f) - 1)) == f->max);
}

/* Nearest by search over the formula, ties to the even code. */
static uint8_t nearest(const struct format *f, float v) {
    unsigned best = 0;
    for (unsigned c = 1; c < half(f); c++) {
        const double d = fabs(fabs((double)v) - (double)formula(f, c));
        const double found = fabs(fabs((double)v) - (double)formula(f, best));
        if (d < found || (d == found && c % 2 == 0)) best = c;
    }
    return (uint8_t)(signbit(v) ? best | half(f) : best);
}

static void encoding(const struct format *f) {
    int wrong = 0;
    for (unsigned c = 0; c < 2 * half(f); c++) wrong += f->encode(formula(f, c)) != c;
    for (unsigned c = 0; c + 1 < half(f); c++) { /* between two codes: the middle, and the floats beside it */
        const float mid = (formula(f, c) + formula(f, c + 1)) / 2;
        const float around[3] = {nextafterf(mid, 0), mid, nextafterf(mid, 100)};
        for (int i = 0; i < 3; i++) {
            wrong += f->encode(around[i]) != nearest(f, around[i]);
            wrong += f->encode(-around[i]) != nearest(f, -around[i]);
        }
        wrong += f->encode(mid) != c + c % 2;
    }
    uint64_t s = 1;
    for (int i = 0; i < 100000; i++) {
        const float v = rnd(&s) * (i % 3 == 0 ? 1.5f * f->max : i % 3 == 1 ? 2 : 0.3f);
        wrong += f->encode(v) != nearest(f, v);
    }
    for (uint32_t u = 0; u < 0x42000000; u += 9973) { /* every exponent up to 32, f32 subnormals too */
        float v;
        memcpy(&v, &u, sizeof v);
        wrong += f->encode(v) != nearest(f, v) || f->encode(-v) != nearest(f, -v);
    }
    if (!CHECK(wrong == 0)) fprintf(stderr, "  %s: %d wrong\n", f->name, wrong);
    const uint8_t top = (uint8_t)(half(f) - 1), minus = (uint8_t)half(f);
    CHECK(f->encode(f->max * 1.07f) == top && f->encode(1e30f) == top && f->encode(-INFINITY) == (top | minus));
    CHECK(f->encode(-0.0f) == minus && f->encode(-1e-40f) == minus && f->encode(1e-40f) == 0);
}

/* The five-bit formats are six-bit ones without the last bit. */
static void widening(void) {
    for (unsigned c = 0; c < 32; c++) {
        CHECK(rung_e3m2_to_f32(rung_e3m1_to_e3m2((uint8_t)c)) == formula(&formats[2], c));
        CHECK(rung_e2m3_to_f32(rung_e2m2_to_e2m3((uint8_t)c)) == formula(&formats[3], c));
    }
}

/* Bit b of the stream: the first is the most significant of the first byte. */
static unsigned bits_at(const unsigned char *stream, size_t first, unsigned n) {
    unsigned v = 0;
    for (size_t b = first; b < first + n; b++) v = v << 1 | (stream[b / 8] >> (7 - b % 8) & 1);
    return v;
}

static void bit_order(void) {
    const unsigned char ones[12] = {0x30, 0xC3, 0x0C, 0x30, 0xC3, 0x0C, 0x30, 0xC3, 0x0C, 0x30, 0xC3, 0x0C};
    for (size_t i = 0; i < 16; i++) CHECK(rung_e3m2_to_f32(rung_fp6_get(ones, i)) == 1);
    const unsigned char mixed[3] = {0xFC, 0x10, 0x83}; /* 111111 000001 000010 000011 */
    CHECK(rung_fp6_get(mixed, 0) == 63 && rung_fp6_get(mixed, 1) == 1 && rung_fp6_get(mixed, 2) == 2 &&
          rung_fp6_get(mixed, 3) == 3);
    enum { CODES = 64 };
    unsigned char six[CODES * 6 / 8] = {0}, five[CODES * 5 / 8] = {0};
    for (size_t i = 0; i < CODES; i++) {
        rung_fp6_put(six, i, (uint8_t)(i * 37 % 64));
        rung_fp5_put(five, i, (uint8_t)(i * 23 % 32));
    }
    for (size_t i = 0; i < CODES; i++) {
        CHECK(rung_fp6_get(six, i) == i * 37 % 64 && bits_at(six, 6 * i, 6) == i * 37 % 64);
        CHECK(rung_fp5_get(five, i) == i * 23 % 32 && bits_at(five, 5 * i, 5) == i * 23 % 32);
    }
}

int main(void) {
    for (int i = 0; i < FORMATS; i++) {
        decoding(&formats[i]);
        encoding(&formats[i]);
    }
    widening();
    bit_order();
    return check_result();
}
