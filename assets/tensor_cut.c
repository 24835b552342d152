#include "assets/tensor_cut.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/base/fp6.h"
#include "kernels/base/size.h"
#include "kernels/sparse.h"

bool tensor_rows(const rung_tensor *t, rung_share rows, rung_tensor *out) {
    const size_t bits = rung_dtype_bits(t->dtype), n = rung_tensor_row(t);
    if (!t->bitmap && (rows.first * n * bits % 8 || rows.count * n * bits % 8)) return false;
    *out = *t;
    out->shape[0] = rows.count;
    if (t->scale) out->scale = (const float *)((const char *)t->scale + rows.first * sizeof(float));
    if (t->bitmap) { /* the values stay together: its rows know where they begin */
        out->bitmap += rows.first * rung_bitmap_bytes(n);
        out->row_at += rows.first;
    } else {
        out->data = (const char *)t->data + rows.first * n * bits / 8;
    }
    return true;
}

/* n elements of `bits` bits each from place `from` of src to place `to` of dst, whose bytes were 0. */
static void copy_elements(void *dst, size_t to, const void *src, size_t from, size_t n, size_t bits) {
    const size_t whole = bits == 6 ? 4 : bits == 5 ? 8 : 1; /* so many are whole bytes */
    if (to % whole == 0 && from % whole == 0 && n % whole == 0) {
        memcpy((char *)dst + to * bits / 8, (const char *)src + from * bits / 8, n * bits / 8);
    } else if (bits == 6) {
        for (size_t i = 0; i < n; i++) rung_fp6_put(dst, to + i, rung_fp6_get(src, from + i));
    } else {
        for (size_t i = 0; i < n; i++) rung_fp5_put(dst, to + i, rung_fp5_get(src, from + i));
    }
}

static rung_status no_memory(const rung_tensor *t, rung_err *err) {
    return rung_fail(err, RUNG_ENOMEM, "no memory to cut a tensor of %zu rows", t->shape[0]);
}

/* Room for `elements` of `bits` bits behind `front` bytes, all 0. NULL: out of memory. */
static void *room(size_t front, size_t elements, size_t bits) {
    size_t total;
    return size_mul(elements, bits, &total) ? calloc(1, front + total / 8 + 8) : NULL;
}

static rung_status cut_dense(const rung_tensor *t, rung_share part, rung_tensor *out, void **owned, rung_err *err) {
    const size_t n = rung_tensor_row(t), bits = rung_dtype_bits(t->dtype);
    *owned = room(0, t->shape[0] * part.count, bits);
    if (!*owned) return no_memory(t, err);
    for (size_t r = 0; r < t->shape[0]; r++)
        copy_elements(*owned, r * part.count, t->data, r * n + part.first, part.count, bits);
    out->data = *owned;
    return RUNG_OK;
}

/* Row starts, values, bitmap of the part. */
static rung_status cut_sparse(const rung_tensor *t, rung_share part, rung_tensor *out, void **owned, rung_err *err) {
    const size_t rows = t->shape[0], n = rung_tensor_row(t), bits = rung_dtype_bits(t->dtype);
    const size_t held = t->row_at[rows] - t->row_at[0], mask_bytes = rung_bitmap_bytes(part.count);
    const size_t front = (rows + 1) * sizeof(size_t) + rows * mask_bytes;
    size_t *row_at = *owned = room(front + 64, held, bits);
    if (!row_at) return no_memory(t, err);
    uint8_t *bitmap = (uint8_t *)(row_at + rows + 1), *data = bitmap + rows * mask_bytes;
    size_t at = 0;
    for (size_t r = 0; r < rows; r++) {
        const uint8_t *from = t->bitmap + r * rung_bitmap_bytes(n);
        size_t value = t->row_at[r];
        row_at[r] = at;
        for (size_t c = 0; c < part.first + part.count; c++) {
            if (!(from[c / 8] >> c % 8 & 1)) continue;
            if (c >= part.first) {
                const size_t own = c - part.first;
                bitmap[r * mask_bytes + own / 8] |= (uint8_t)(1u << own % 8);
                copy_elements(data, at++, t->data, value, 1, bits);
            }
            value++;
        }
    }
    row_at[rows] = at;
    out->row_at = row_at;
    out->bitmap = bitmap;
    out->data = data;
    return RUNG_OK;
}

/* Each row by the largest of all its columns: as the backend does it. */
static rung_status quantise(const rung_tensor *t, rung_share part, rung_tensor *out, void **owned, rung_err *err) {
    const size_t rows = t->shape[0], n = rung_tensor_row(t);
    float *row = malloc(size_max(n, 1) * sizeof *row),
          *scale = *owned = room(rows * sizeof *scale, rows * part.count, 6);
    rung_status st = row && scale ? RUNG_OK : no_memory(t, err);
    void *data = scale ? scale + rows : NULL;
    for (size_t r = 0; !st && r < rows; r++) {
        st = rung_tensor_to_f32(t, r * n, n, row, err);
        if (!st) st = rung_fp6_row_scale(row, n, &scale[r], err);
        for (size_t i = 0; !st && i < part.count; i++)
            rung_fp6_put(data, r * part.count + i, rung_f32_to_e3m2(row[part.first + i] / scale[r]));
    }
    free(row);
    out->dtype = RUNG_F6_E3M2;
    out->scale = scale;
    out->data = data;
    out->bitmap = NULL;
    out->row_at = NULL;
    return st;
}

rung_status tensor_cols(const rung_tensor *t, rung_share cols, bool as_fp6, rung_tensor *out, void **owned,
                        rung_err *err) {
    const size_t n = rung_tensor_row(t), inner = t->ndim > 1 && t->shape[1] ? n / t->shape[1] : 1;
    const rung_share part = {cols.first * inner, cols.count * inner}; /* of a row */
    *owned = NULL;
    *out = *t;
    out->shape[1] = cols.count;
    if (as_fp6 && t->dtype != RUNG_F6_E3M2) return quantise(t, part, out, owned, err);
    return t->bitmap ? cut_sparse(t, part, out, owned, err) : cut_dense(t, part, out, owned, err);
}
