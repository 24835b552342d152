#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/fp6.h"
#include "kernels/base/size.h"
#include "kernels/cpu/gemm.h"

enum { PANEL_ALIGN = 64 };

static bool is_eight_bit(rung_dtype t) { return t == RUNG_F8_E4M3 || t == RUNG_F8_E5M2; }
static bool is_six_bit(rung_dtype t) { return t == RUNG_F6_E3M2 || t == RUNG_F6_E2M3; }

/* The codes of these fit the packed type exactly, so that the row scale can stay a factor of its own. */
static bool keeps_codes(rung_dtype from, gemm_dtype to) {
    if (to == GEMM_FP6) return from == RUNG_F6_E3M2;
    return to == GEMM_F16 && (is_eight_bit(from) || is_six_bit(from) || from == RUNG_F16);
}

static gemm_dtype stored_dtype(rung_dtype t) {
    if (t == RUNG_F6_E3M2) return GEMM_FP6;
    if (t == RUNG_F16 || is_eight_bit(t) || is_six_bit(t)) return GEMM_F16;
    return t == RUNG_BF16 ? GEMM_BF16 : GEMM_F32;
}

/* One packed type for the whole stack; parts that disagree meet in f16 when that is exact for all, else in f32. */
static gemm_dtype packed_dtype(const gemm_part *parts, size_t count, rung_store store) {
    if (store == RUNG_STORE_F32) return GEMM_F32;
    if (store == RUNG_STORE_F16) return GEMM_F16;
    if (store == RUNG_STORE_BF16) return GEMM_BF16;
    if (store == RUNG_STORE_FP6) return GEMM_FP6;
    gemm_dtype t = stored_dtype(parts[0].w->dtype);
    for (size_t i = 1; i < count; i++) {
        const gemm_dtype u = stored_dtype(parts[i].w->dtype);
        const bool both_small = (t == GEMM_FP6 || t == GEMM_F16) && (u == GEMM_FP6 || u == GEMM_F16);
        if (u != t) t = both_small ? GEMM_F16 : GEMM_F32;
    }
    return t;
}

static rung_status check_parts(const gemm_part *parts, size_t count, size_t *n, size_t *k, rung_err *err) {
    char shape[128];
    *n = 0;
    for (size_t i = 0; i < count; i++) {
        const rung_tensor *w = parts[i].w;
        if (w->ndim < 2)
            return rung_fail(err, RUNG_ESHAPE, "layer weight is %s, wanted 2 dimensions or more",
                             rung_tensor_shape_text(w, shape, sizeof shape));
        size_t cols = 1;
        for (int d = 1; d < w->ndim; d++)
            if (!size_mul(cols, w->shape[d], &cols)) return rung_fail(err, RUNG_ESHAPE, "layer weight is too large");
        if (cols == 0 || w->shape[0] == 0 || (i > 0 && cols != *k))
            return rung_fail(err, RUNG_ESHAPE, "layer weight %zu of a stack is %s, wanted [n, %zu], not empty", i,
                             rung_tensor_shape_text(w, shape, sizeof shape), i > 0 ? *k : cols);
        *k = cols;
        if (__builtin_add_overflow(*n, w->shape[0], n)) return rung_fail(err, RUNG_ESHAPE, "layer weight is too large");
        const rung_tensor *b = parts[i].bias;
        if (b && rung_tensor_count(b) != w->shape[0])
            return rung_fail(err, RUNG_ESHAPE, "layer bias is %s, wanted [%zu]",
                             rung_tensor_shape_text(b, shape, sizeof shape), w->shape[0]);
    }
    return RUNG_OK;
}

static rung_status allocate(gemm_weights *w, bool scale, bool bias, rung_err *err) {
    const size_t panels = size_div_up(w->n, w->nr), cols = panels * w->nr;
    const size_t k = w->dtype == GEMM_FP6 ? size_div_up(w->k, GEMM_FP6_GROUP) : w->k;
    const size_t unit = w->dtype == GEMM_FP6 ? 3 * w->nr : (w->dtype == GEMM_F32 ? 4 : 2) * w->nr;
    size_t bytes;
    if (!size_mul(k, unit, &w->panel_bytes) || !size_mul(w->panel_bytes, panels, &bytes) ||
        bytes > SIZE_MAX - PANEL_ALIGN)
        return rung_fail(err, RUNG_ESHAPE, "layer weight [%zu, %zu] is too large", w->n, w->k);
    bytes = size_div_up(bytes, PANEL_ALIGN) * PANEL_ALIGN;
    w->panels = aligned_alloc(PANEL_ALIGN, bytes);
    w->scale = scale ? calloc(cols, sizeof *w->scale) : NULL;
    w->bias = bias ? calloc(cols, sizeof *w->bias) : NULL;
    if (!w->panels || (scale && !w->scale) || (bias && !w->bias))
        return rung_fail(err, RUNG_ENOMEM, "no memory for a layer weight [%zu, %zu]", w->n, w->k);
    memset(w->panels, 0, bytes);
    return RUNG_OK;
}

/* Row `col` of W to its place in the panel. */
static void put_row(const gemm_weights *w, size_t col, const float *row) {
    unsigned char *panel = w->panels + col / w->nr * w->panel_bytes;
    const size_t j = col % w->nr, nr = w->nr;
    if (w->dtype == GEMM_F32) {
        float *p = (float *)panel + j;
        for (size_t k = 0; k < w->k; k++) p[k * nr] = row[k];
    } else if (w->dtype == GEMM_F16) {
        uint16_t *p = (uint16_t *)panel + j;
        for (size_t k = 0; k < w->k; k++) p[k * nr] = rung_f32_to_f16(row[k]);
    } else if (w->dtype == GEMM_BF16) {
        uint16_t *p = (uint16_t *)panel + j;
        for (size_t k = 0; k < w->k; k++) p[k * nr] = rung_f32_to_bf16(row[k]);
    } else {
        unsigned char *p = panel + gemm_fp6_slot(j, nr);
        for (size_t k = 0; k < w->k; k++) {
            const unsigned code = rung_f32_to_e3m2(row[k]);
            unsigned char *g = p + k / GEMM_FP6_GROUP * 3 * nr;
            if (k % GEMM_FP6_GROUP < 3) {
                g[k % GEMM_FP6_GROUP * nr] |= (unsigned char)code;
            } else {
                for (size_t plane = 0; plane < 3; plane++)
                    g[plane * nr] |= (unsigned char)((code >> (2 * plane) & 3) << 6);
            }
        }
    }
}

/* Divides a row by the scale that makes its largest element the largest code; that scale. */
static rung_status normalise(float *row, size_t k, float *scale, rung_err *err) {
    float top = 1e-12f;
    for (size_t i = 0; i < k; i++) {
        if (!isfinite(row[i])) return rung_fail(err, RUNG_EFORMAT, "a weight is %g: six bits cannot hold it", row[i]);
        top = fmaxf(top, fabsf(row[i]));
    }
    *scale = top / RUNG_E3M2_MAX;
    for (size_t i = 0; i < k; i++) row[i] /= *scale;
    return RUNG_OK;
}

static void channels_last(float *out, const float *in, size_t channels, size_t taps) {
    for (size_t t = 0; t < taps; t++)
        for (size_t c = 0; c < channels; c++) out[t * channels + c] = in[c * taps + t];
}

/* rows f32 [2 * k]: room to read and to reorder one row. */
static rung_status pack_part(gemm_weights *w, const gemm_part *part, size_t first, float *rows, rung_err *err) {
    rung_tensor codes = *part->w;
    const bool exact = keeps_codes(codes.dtype, w->dtype);
    if (exact) codes.scale = NULL;
    float *in = rows, *out = rows + w->k;
    for (size_t r = 0; r < codes.shape[0]; r++) {
        float scale = 1;
        RUNG_TRY(rung_tensor_to_f32(&codes, r * w->k, w->k, in, err));
        if (exact && part->w->scale) memcpy(&scale, (const char *)part->w->scale + r * sizeof scale, sizeof scale);
        if (w->dtype == GEMM_FP6 && !exact) RUNG_TRY(normalise(in, w->k, &scale, err));
        channels_last(out, in, w->k / part->taps, part->taps);
        put_row(w, first + r, out);
        if (w->scale) w->scale[first + r] = scale;
    }
    return part->bias ? rung_tensor_to_f32(part->bias, 0, codes.shape[0], w->bias + first, err) : RUNG_OK;
}

rung_status gemm_weights_open(gemm_weights *out, const gemm_part *parts, size_t count, rung_store store, size_t nr,
                              rung_err *err) {
    gemm_weights w = {.nr = nr};
    rung_status st;
    float *rows = NULL;
    size_t bytes;
    *out = w;
    RUNG_TRY_GOTO(st, done, check_parts(parts, count, &w.n, &w.k, err));
    w.dtype = packed_dtype(parts, count, store);
    bool scale = w.dtype == GEMM_FP6, bias = false;
    for (size_t i = 0; i < count; i++) {
        scale |= parts[i].w->scale && keeps_codes(parts[i].w->dtype, w.dtype);
        bias |= parts[i].bias != NULL;
    }
    RUNG_TRY_GOTO(st, done, allocate(&w, scale, bias, err));
    rows = size_mul(w.k, 2 * sizeof *rows, &bytes) ? malloc(bytes) : NULL;
    if (!rows) {
        st = rung_fail(err, RUNG_ENOMEM, "no memory to pack a layer weight [%zu, %zu]", w.n, w.k);
        goto done;
    }
    for (size_t i = 0, first = 0; i < count; first += parts[i++].w->shape[0])
        RUNG_TRY_GOTO(st, done, pack_part(&w, &parts[i], first, rows, err));
    *out = w;
    w = (gemm_weights){0};
done:
    free(rows);
    gemm_weights_close(&w);
    return st;
}

void gemm_weights_close(gemm_weights *w) {
    free(w->panels);
    free(w->scale);
    free(w->bias);
    *w = (gemm_weights){0};
}

void gemm_weights_row(const gemm_weights *w, size_t col, size_t k0, size_t kn, float *out) {
    const unsigned char *panel = w->panels + col / w->nr * w->panel_bytes;
    const size_t j = col % w->nr, nr = w->nr;
    for (size_t i = 0; i < kn; i++) {
        const size_t k = k0 + i;
        if (w->dtype == GEMM_F32) {
            out[i] = ((const float *)panel)[k * nr + j];
        } else if (w->dtype == GEMM_F16) {
            out[i] = rung_f16_to_f32(((const uint16_t *)panel)[k * nr + j]);
        } else if (w->dtype == GEMM_BF16) {
            out[i] = rung_bf16_to_f32(((const uint16_t *)panel)[k * nr + j]);
        } else {
            const unsigned char *g = panel + k / GEMM_FP6_GROUP * 3 * nr + gemm_fp6_slot(j, nr);
            const unsigned last = g[0] >> 6 | g[nr] >> 6 << 2 | g[2 * nr] >> 6 << 4;
            out[i] = rung_e3m2_to_f32((uint8_t)(k % GEMM_FP6_GROUP < 3 ? g[k % GEMM_FP6_GROUP * nr] & 63 : last));
        }
    }
}
