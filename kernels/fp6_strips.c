#include "kernels/fp6_strips.h"

#include <string.h>

#include "kernels/base/size.h"

enum { BITS = 6, WORD = 32 };

size_t rung_strips(size_t rows, size_t cols, size_t row_multiple) {
    return size_div_up(rows, row_multiple) * (row_multiple / RUNG_STRIP_ROWS) * size_div_up(cols, RUNG_STRIP_COLS);
}

/* The elements of a strip that are not 0, in order, to `held` (room for 1024; NULL: only counted); their bits to `mask`
 * [32] unless NULL. */
static size_t collect(uint8_t *held, uint32_t *mask, const uint8_t *codes, size_t rows, size_t cols, size_t row0,
                      size_t col0) {
    size_t n = 0;
    for (size_t r = row0; r < size_min(rows, row0 + RUNG_STRIP_ROWS); r++) {
        for (size_t c = col0; c < size_min(cols, col0 + RUNG_STRIP_COLS); c++) {
            if (!codes[r * cols + c]) continue;
            if (mask) mask[2 * (r - row0) + (c - col0) / WORD] |= 1u << (c - col0) % WORD;
            if (held) held[n] = codes[r * cols + c];
            n++;
        }
    }
    return n;
}

static size_t pieces_of(size_t count) { return size_div_up(count * BITS, WORD * RUNG_STRIP_PIECE); }

size_t rung_strips_words(const uint8_t *codes, size_t rows, size_t cols) {
    size_t pieces = 0;
    for (size_t r = 0; r < rows; r += RUNG_STRIP_ROWS)
        for (size_t c = 0; c < cols; c += RUNG_STRIP_COLS)
            pieces += pieces_of(collect(NULL, NULL, codes, rows, cols, r, c));
    return pieces * RUNG_STRIP_PIECE;
}

static void put_codes(uint32_t *out, const uint8_t *held, size_t n) {
    memset(out, 0, pieces_of(n) * RUNG_STRIP_PIECE * sizeof *out);
    for (size_t i = 0; i < n; i++) {
        const size_t bit = i * BITS, over = bit % WORD + BITS > WORD;
        out[bit / WORD] |= (uint32_t)held[i] << bit % WORD;
        if (over) out[bit / WORD + 1] |= (uint32_t)held[i] >> (WORD - bit % WORD);
    }
}

bool rung_strips_pack(uint32_t *bitmap, uint32_t *strip_at, uint32_t *out, const uint8_t *codes, size_t rows,
                      size_t cols, size_t row_multiple) {
    const size_t strips = rung_strips(rows, cols, row_multiple), across = size_div_up(cols, RUNG_STRIP_COLS);
    uint8_t held[RUNG_STRIP_ROWS * RUNG_STRIP_COLS];
    size_t at = 0;
    memset(bitmap, 0, strips * RUNG_STRIP_WORDS * sizeof *bitmap);
    for (size_t s = 0; s < strips; s++) {
        const size_t n = collect(held, bitmap + s * RUNG_STRIP_WORDS, codes, rows, cols, s / across * RUNG_STRIP_ROWS,
                                 s % across * RUNG_STRIP_COLS);
        strip_at[s] = (uint32_t)at;
        put_codes(out + at * RUNG_STRIP_PIECE, held, n);
        at += pieces_of(n);
        if (at > UINT32_MAX) return false;
    }
    strip_at[strips] = (uint32_t)at;
    return true;
}
