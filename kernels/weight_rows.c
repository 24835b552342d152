#include "kernels/weight_rows.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/base/fp6.h"
#include "kernels/base/size.h"
#include "kernels/sparse.h"

static bool is_eight_bit(rung_dtype t) { return t == RUNG_F8_E4M3 || t == RUNG_F8_E5M2; }
static bool is_six_bit(rung_dtype t) { return t >= RUNG_F6_E3M2 && t <= RUNG_F5_E2M2; } /* or five */
static bool fits_e3m2(rung_dtype t) { return t == RUNG_F6_E3M2 || t == RUNG_F5_E3M1; }

/* The codes of these fit the packed type exactly, so that the row scale can stay a factor of its own. */
static bool keeps_codes(rung_dtype from, gemm_dtype to) {
    if (to == GEMM_FP6) return fits_e3m2(from);
    return to == GEMM_F16 && (is_eight_bit(from) || is_six_bit(from) || from == RUNG_F16);
}

static gemm_dtype stored_dtype(rung_dtype t) {
    if (fits_e3m2(t)) return GEMM_FP6;
    if (t == RUNG_F16 || is_eight_bit(t) || is_six_bit(t)) return GEMM_F16;
    return t == RUNG_BF16 ? GEMM_BF16 : GEMM_F32;
}

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

static bool fits_e2m3(rung_dtype t) { return t == RUNG_F6_E2M3 || t == RUNG_F5_E2M2; }

/* `--type fp6` asks for six bits a weight: a sparse six-bit tensor has fewer. */
static void keep_sparse(weight_stack *s, const gemm_part *parts, size_t count, rung_store store) {
    size_t dense = 0;
    s->values = parts[0].w->dtype;
    if (store != RUNG_STORE_STORED && !(store == RUNG_STORE_FP6 && is_six_bit(s->values))) return;
    for (size_t i = 0; i < count; i++) {
        const rung_tensor *w = parts[i].w;
        if (w->dtype != s->values) return;
        s->held += w->bitmap ? w->row_at[w->shape[0]] - w->row_at[0] : rung_tensor_count(w);
        dense += !w->bitmap;
    }
    if (dense) /* E2M3 has no dense form here but f16, twice the size */
        s->sparse = fits_e2m3(s->values) && store == RUNG_STORE_STORED;
    else
        s->sparse = fits_e2m3(s->values) || rung_form_choose(s->values, s->n, s->k, s->held, NULL) != RUNG_FORM_DENSE;
}

rung_status weight_stack_of(weight_stack *out, const gemm_part *parts, size_t count, rung_store store, rung_err *err) {
    *out = (weight_stack){0};
    RUNG_TRY(check_parts(parts, count, &out->n, &out->k, err));
    keep_sparse(out, parts, count, store);
    out->dtype = packed_dtype(parts, count, out->sparse ? RUNG_STORE_STORED : store);
    out->scale = out->dtype == GEMM_FP6;
    for (size_t i = 0; i < count; i++) {
        out->scale |= parts[i].w->scale && keeps_codes(parts[i].w->dtype, out->dtype);
        out->bias |= parts[i].bias != NULL;
    }
    return RUNG_OK;
}

/* Divides a row by the scale that makes its largest element the largest code; that scale. */
static rung_status normalise(float *row, size_t k, float *scale, rung_err *err) {
    RUNG_TRY(rung_fp6_row_scale(row, k, scale, err));
    for (size_t i = 0; i < k; i++) row[i] /= *scale;
    return RUNG_OK;
}

static void channels_last(float *out, const float *in, size_t channels, size_t taps) {
    for (size_t t = 0; t < taps; t++)
        for (size_t c = 0; c < channels; c++) out[t * channels + c] = in[c * taps + t];
}

/* rows f32 [2 * k]: room to read and to reorder one row. */
static rung_status read_part(const weight_stack *s, const gemm_part *part, size_t first, weight_row_fn *put, void *user,
                             float *rows, rung_err *err) {
    rung_tensor codes = *part->w;
    const bool exact = keeps_codes(codes.dtype, s->dtype);
    if (exact) codes.scale = NULL;
    float *in = rows, *out = rows + s->k;
    for (size_t r = 0; r < codes.shape[0]; r++) {
        float scale = 1;
        RUNG_TRY(rung_tensor_to_f32(&codes, r * s->k, s->k, in, err));
        if (exact && part->w->scale) memcpy(&scale, (const char *)part->w->scale + r * sizeof scale, sizeof scale);
        if (s->dtype == GEMM_FP6 && !exact) RUNG_TRY(normalise(in, s->k, &scale, err));
        channels_last(out, in, s->k / part->taps, part->taps);
        RUNG_TRY(put(user, first + r, out, scale, err));
    }
    return RUNG_OK;
}

rung_status weight_stack_read(const weight_stack *s, const gemm_part *parts, size_t count, weight_row_fn *put,
                              void *user, float *bias, rung_err *err) {
    size_t bytes, first = 0;
    rung_status st = RUNG_OK;
    float *rows = size_mul(s->k, 2 * sizeof *rows, &bytes) ? malloc(bytes) : NULL;
    if (!rows) return rung_fail(err, RUNG_ENOMEM, "no memory to pack a layer weight [%zu, %zu]", s->n, s->k);
    for (size_t i = 0; i < count && !st; first += parts[i++].w->shape[0]) {
        st = read_part(s, &parts[i], first, put, user, rows, err);
        if (!st && parts[i].bias) st = rung_tensor_to_f32(parts[i].bias, 0, parts[i].w->shape[0], bias + first, err);
    }
    free(rows);
    return st;
}
