#include "kernels/sparse.h"

#include <string.h>

#include "kernels/base/size.h"
#include "kernels/tiled_csl.h"

size_t rung_sparse_pack_codes(uint8_t *mask, uint8_t *held, const uint8_t *codes, size_t cols) {
    size_t n = 0;
    memset(mask, 0, rung_bitmap_bytes(cols));
    for (size_t c = 0; c < cols; c++) {
        if (!codes[c]) continue;
        mask[c / 8] |= (uint8_t)(1u << c % 8);
        held[n++] = codes[c];
    }
    return n;
}

size_t rung_sparse_pack_words(uint8_t *mask, uint16_t *held, const uint16_t *words, size_t cols) {
    size_t n = 0;
    memset(mask, 0, rung_bitmap_bytes(cols));
    for (size_t c = 0; c < cols; c++) {
        if (!words[c]) continue;
        mask[c / 8] |= (uint8_t)(1u << c % 8);
        held[n++] = words[c];
    }
    return n;
}

static size_t ones(const uint8_t *p, size_t bytes) {
    size_t n = 0;
    for (; bytes >= 8; bytes -= 8, p += 8) {
        uint64_t w;
        memcpy(&w, p, sizeof w);
        n += (size_t)__builtin_popcountll(w);
    }
    while (bytes-- > 0) n += (size_t)__builtin_popcount(*p++);
    return n;
}

bool rung_sparse_rows(size_t *row_at, const uint8_t *bitmap, size_t rows, size_t cols, size_t *bad_row) {
    const size_t bytes = rung_bitmap_bytes(cols);
    row_at[0] = 0;
    for (size_t r = 0; r < rows; r++, bitmap += bytes) {
        row_at[r + 1] = row_at[r] + ones(bitmap, bytes);
        if (cols % 8 && bitmap[bytes - 1] >> cols % 8) {
            *bad_row = r;
            return false;
        }
    }
    return true;
}

size_t rung_form_bytes(rung_form form, rung_dtype values, size_t rows, size_t cols, size_t held) {
    const size_t bits = rung_dtype_bits(values);
    if (form == RUNG_FORM_DENSE) return size_div_up(rows * cols * bits, 8);
    if (form == RUNG_FORM_BITMAP) return rows * rung_bitmap_bytes(cols) + size_div_up(held * bits, 8);
    const size_t tiles = rung_csl_tiles(rows, cols), items = held + 2 * tiles;
    return size_div_up(items * (16 + bits), 8) + 4 * (tiles + 1);
}

double rung_form_time(const rung_form_times *t, double sparsity) {
    const double at = sparsity * RUNG_FORM_STEPS;
    const size_t i = at > 0 ? (size_t)at : 0;
    if (i + 1 >= RUNG_FORM_STEPS) return t->sparse[RUNG_FORM_STEPS - 1];
    return t->sparse[i] + (at - (double)i) * (t->sparse[i + 1] - t->sparse[i]);
}

rung_form rung_form_choose(rung_dtype values, size_t rows, size_t cols, size_t held, const rung_form_times *times) {
    const double dense = (double)rung_form_bytes(RUNG_FORM_DENSE, values, rows, cols, held);
    const double bitmap = (double)rung_form_bytes(RUNG_FORM_BITMAP, values, rows, cols, held);
    const double csl = (double)rung_form_bytes(RUNG_FORM_TILED_CSL, values, rows, cols, held);
    const bool tiles = csl < bitmap && held / RUNG_CSL_UNIT < INT32_MAX; /* its offsets count to there */
    const double sparse = tiles ? csl : bitmap, held_share = (double)held / (double)rows / (double)cols;
    const double time = times ? rung_form_time(times, 1 - held_share) : 1;
    if (sparse > 0.95 * dense || sparse * time > dense) return RUNG_FORM_DENSE;
    return tiles ? RUNG_FORM_TILED_CSL : RUNG_FORM_BITMAP;
}
