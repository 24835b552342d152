#include "kernels/base/tensor.h"

#include <stdio.h>
#include <string.h>

#include "kernels/base/fp6.h"
#include "kernels/base/size.h"

static const struct {
    const char *name;
    unsigned bits;
} dtypes[RUNG_DTYPES] = {
    {"F64", 64},    {"F32", 32},    {"F16", 16},    {"BF16", 16}, {"F8_E4M3", 8}, {"F8_E5M2", 8}, {"F6_E3M2", 6},
    {"F6_E2M3", 6}, {"F5_E3M1", 5}, {"F5_E2M2", 5}, {"I64", 64},  {"I32", 32},    {"I16", 16},    {"I8", 8},
    {"U64", 64},    {"U32", 32},    {"U16", 16},    {"U8", 8},    {"BOOL", 8},
};

unsigned rung_dtype_bits(rung_dtype t) { return dtypes[t].bits; }
const char *rung_dtype_name(rung_dtype t) { return dtypes[t].name; }
bool rung_dtype_is_float(rung_dtype t) { return t <= RUNG_F5_E2M2; }

bool rung_dtype_from_name(const char *name, rung_dtype *out) {
    for (int i = 0; i < RUNG_DTYPES; i++) {
        if (strcmp(name, dtypes[i].name) == 0) {
            *out = (rung_dtype)i;
            return true;
        }
    }
    return false;
}

size_t rung_tensor_count(const rung_tensor *t) {
    size_t n = 1;
    for (int i = 0; i < t->ndim; i++) n *= t->shape[i];
    return n;
}

size_t rung_tensor_row(const rung_tensor *t) {
    size_t n = 1;
    for (int i = 1; i < t->ndim; i++) n *= t->shape[i];
    return n;
}

size_t rung_tensor_bytes(const rung_tensor *t) {
    const size_t rows = t->ndim ? t->shape[0] : 1;
    const size_t held = t->bitmap ? t->row_at[rows] - t->row_at[0] : rung_tensor_count(t);
    const size_t mask = t->bitmap ? rows * size_div_up(rung_tensor_row(t), 8) : 0;
    return size_div_up(held * rung_dtype_bits(t->dtype), 8) + mask + (t->scale ? rows * sizeof *t->scale : 0);
}

const char *rung_tensor_shape_text(const rung_tensor *t, char *buf, size_t cap) {
    size_t at = (size_t)snprintf(buf, cap, "[");
    for (int i = 0; i < t->ndim && at < cap; i++)
        at += (size_t)snprintf(buf + at, cap - at, "%s%zu", i ? ", " : "", t->shape[i]);
    if (at < cap) snprintf(buf + at, cap - at, "]");
    return buf;
}

static float from_bits(uint32_t u) {
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static uint32_t to_bits(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

/* Inline, so that the loops below become vector code; without subnormal operands, which cost a hundred cycles each. */
static inline float f16_value(uint16_t h) {
    const uint32_t m = (uint32_t)(h & 0x7fff) << 13, e = m & 0x0f800000;
    const uint32_t special = e == 0x0f800000 ? 112u << 23 : 0; /* infinity and NaN: up to the largest exponent */
    const float normal = from_bits(m + (112u << 23) + special);
    const float small = from_bits(m + (113u << 23)) - 0x1p-14f; /* 2^-14 + m 2^-24, less the 2^-14 */
    return from_bits(to_bits(e ? normal : small) | (uint32_t)(h & 0x8000) << 16);
}

static inline float e4m3_value(uint8_t c) {
    /* In place as an f16 it is the value times 2^-8 (bias 15 against 7). */
    const float v = f16_value((uint16_t)((c & 0x80) << 8 | (c & 0x7f) << 7)) * 256;
    return (c & 0x7f) == 0x7f ? from_bits((uint32_t)(c & 0x80) << 24 | 0x7fc00000) : v;
}

float rung_f16_to_f32(uint16_t h) { return f16_value(h); }

uint16_t rung_f32_to_f16(float f) {
    const uint32_t u = to_bits(f), a = u & 0x7fffffff;
    const uint16_t sign = (uint16_t)(u >> 16 & 0x8000);
    if (a > 0x7f800000) return sign | 0x7e00;
    if (a >= 0x47800000) return sign | 0x7c00; /* 2^16; what rounds up to it carries into infinity below */
    if (a < 0x38800000) {                      /* below 2^-14: adding 1/2 leaves steps of 2^-24 in the mantissa */
        return sign | (uint16_t)(to_bits(from_bits(a) + 0.5f) - to_bits(0.5f));
    }
    const uint32_t odd = a >> 13 & 1;
    return sign | (uint16_t)((a - (112u << 23) + 0xfff + odd) >> 13);
}

float rung_bf16_to_f32(uint16_t h) { return from_bits((uint32_t)h << 16); }

uint16_t rung_f32_to_bf16(float f) {
    const uint32_t u = to_bits(f);
    if ((u & 0x7fffffff) > 0x7f800000) return (uint16_t)(u >> 16 | 0x40); /* rounding could carry a NaN into infinity */
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

float rung_f8_e4m3_to_f32(uint8_t c) { return e4m3_value(c); }
float rung_f8_e5m2_to_f32(uint8_t c) { return f16_value((uint16_t)(c << 8)); }

/* Codes [first, first + n) of a stream, four from three bytes. */
static void six_bits(const unsigned char *p, size_t first, size_t n, float *out, float (*decode)(uint8_t)) {
    float table[64];
    for (int c = 0; c < 64; c++) table[c] = decode((uint8_t)c);
    size_t i = 0;
    for (; i < n && (first + i) % 4 != 0; i++) out[i] = table[rung_fp6_get(p, first + i)];
    for (; n - i >= 4; i += 4) {
        const unsigned char *q = p + (first + i) / 4 * 3;
        const unsigned w = (unsigned)q[0] << 16 | (unsigned)q[1] << 8 | q[2];
        for (unsigned k = 0; k < 4; k++) out[i + k] = table[w >> (18 - 6 * k) & 63];
    }
    for (; i < n; i++) out[i] = table[rung_fp6_get(p, first + i)];
}

static void five_bits(const unsigned char *p, size_t first, size_t n, float *out, float (*decode)(uint8_t)) {
    float table[32];
    for (int c = 0; c < 32; c++) table[c] = decode((uint8_t)c);
    for (size_t i = 0; i < n; i++) out[i] = table[rung_fp5_get(p, first + i)];
}

static void scale_rows(const rung_tensor *t, size_t first, size_t n, float *out) {
    const size_t row_len = rung_tensor_row(t);
    for (size_t i = 0; i < n;) {
        const size_t row = (first + i) / row_len, end = size_min(n, (row + 1) * row_len - first);
        float s;
        memcpy(&s, (const char *)t->scale + row * sizeof s, sizeof s);
        for (; i < end; i++) out[i] *= s;
    }
}

/* Elements [first, first + n) of `data`, unscaled. */
static rung_status decode(const rung_tensor *t, size_t first, size_t n, float *out, rung_err *err) {
    const unsigned bits = rung_dtype_bits(t->dtype);
    const unsigned char *p = t->data;
    if (n == 0) return RUNG_OK;
    if (bits % 8 == 0) p += first * (bits / 8);
    switch (t->dtype) {
    case RUNG_F64:
        for (size_t i = 0; i < n; i++) {
            double d;
            memcpy(&d, p + i * sizeof d, sizeof d);
            out[i] = (float)d;
        }
        break;
    case RUNG_F32:
        memcpy(out, p, n * sizeof *out);
        break;
    case RUNG_F16:
        for (size_t i = 0; i < n; i++) {
            uint16_t h;
            memcpy(&h, p + i * sizeof h, sizeof h);
            out[i] = f16_value(h);
        }
        break;
    case RUNG_BF16:
        for (size_t i = 0; i < n; i++) {
            uint16_t h;
            memcpy(&h, p + i * sizeof h, sizeof h);
            out[i] = from_bits((uint32_t)h << 16);
        }
        break;
    case RUNG_F8_E4M3:
        for (size_t i = 0; i < n; i++) out[i] = e4m3_value(p[i]);
        break;
    case RUNG_F8_E5M2:
        for (size_t i = 0; i < n; i++) out[i] = f16_value((uint16_t)(p[i] << 8));
        break;
    case RUNG_F6_E3M2:
        six_bits(p, first, n, out, rung_e3m2_to_f32);
        break;
    case RUNG_F6_E2M3:
        six_bits(p, first, n, out, rung_e2m3_to_f32);
        break;
    case RUNG_F5_E3M1:
        five_bits(p, first, n, out, rung_e3m1_to_f32);
        break;
    case RUNG_F5_E2M2:
        five_bits(p, first, n, out, rung_e2m2_to_f32);
        break;
    default:
        return rung_fail(err, RUNG_EFORMAT, "dtype is %s, wanted floating-point numbers", rung_dtype_name(t->dtype));
    }
    return RUNG_OK;
}

static unsigned is_held(const uint8_t *mask, size_t c) { return mask[c / 8] >> c % 8 & 1; }

static size_t held_before(const uint8_t *mask, size_t c) {
    size_t n = 0;
    for (size_t i = 0; i < c / 8; i++) n += (size_t)__builtin_popcount(mask[i]);
    return c % 8 ? n + (size_t)__builtin_popcount(mask[c / 8] & ((1u << c % 8) - 1)) : n;
}

/* Elements [c0, c1) of a row: its values side by side first, then, from the end, each to its place. */
static rung_status spread(const rung_tensor *t, size_t row, size_t c0, size_t c1, float *out, rung_err *err) {
    const uint8_t *mask = t->bitmap + row * size_div_up(rung_tensor_row(t), 8);
    const size_t before = held_before(mask, c0);
    size_t held = held_before(mask, c1) - before;
    RUNG_TRY(decode(t, t->row_at[row] + before, held, out, err));
    for (size_t c = c1; c-- > c0;) { /* nothing to predict: which bits are set is not known before */
        const size_t bit = is_held(mask, c);
        held -= bit;
        const float v = out[held];
        out[c - c0] = bit ? v : 0;
    }
    return RUNG_OK;
}

rung_status rung_tensor_to_f32(const rung_tensor *t, size_t first, size_t n, float *out, rung_err *err) {
    if (!t->bitmap) RUNG_TRY(decode(t, first, n, out, err));
    const size_t row_len = rung_tensor_row(t);
    for (size_t i = 0; t->bitmap && i < n;) {
        const size_t row = (first + i) / row_len, c0 = (first + i) % row_len, c1 = size_min(row_len, c0 + n - i);
        RUNG_TRY(spread(t, row, c0, c1, out + i, err));
        i += c1 - c0;
    }
    if (t->scale) scale_rows(t, first, n, out);
    return RUNG_OK;
}
