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

rung_form rung_form_choose(rung_dtype values, size_t rows, size_t cols, size_t held) {
    const size_t dense = rung_form_bytes(RUNG_FORM_DENSE, values, rows, cols, held);
    const size_t bitmap = rung_form_bytes(RUNG_FORM_BITMAP, values, rows, cols, held);
    const size_t csl = rung_form_bytes(RUNG_FORM_TILED_CSL, values, rows, cols, held);
    if (size_min(bitmap, csl) > dense / 100 * 95) return RUNG_FORM_DENSE;
    return csl < bitmap ? RUNG_FORM_TILED_CSL : RUNG_FORM_BITMAP;
}
