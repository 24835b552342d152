#include "kernels/tc_fpx.h"

#include <stdbool.h>
#include <string.h>

#include "kernels/base/size.h"

enum { SLICE_COLS = 16, LANES = 32, BLOCKS = 4, ELEMENTS = 8, LOW_BITS = 4 };

rung_fpx_shape rung_fpx_shape_of(unsigned bits, size_t rows, size_t cols, size_t row_multiple) {
    return (rung_fpx_shape){.bits = bits,
                            .rows = rows,
                            .cols = cols,
                            .m = size_div_up(rows, row_multiple) * row_multiple,
                            .k = size_div_up(cols, RUNG_FPX_TILE) * RUNG_FPX_TILE};
}

size_t rung_fpx_bytes(const rung_fpx_shape *s) { return s->m / 8 * s->k * s->bits; }
size_t rung_fpx_plane_bytes(const rung_fpx_shape *s) { return s->m / 8 * s->k * (s->bits - LOW_BITS); }

/* Element j of block b in lane t of a slice, and where its code lies. */
struct place {
    size_t row, col;
    size_t word[2]; /* in the upper plane, in the 4-bit plane */
    unsigned shift[2];
};

/* Of `count` elements a word the odd columns come first: e % 4 = 1, 3, 0, 2, each ascending. */
static unsigned slot_of(unsigned e, unsigned count) {
    static const unsigned quarter[4] = {2, 0, 3, 1};
    return quarter[e % 4] * (count / 4) + e / 4;
}

static struct place place_of(const rung_fpx_shape *s, size_t slice, unsigned t, unsigned b, unsigned j) {
    const unsigned high_bits = s->bits - LOW_BITS, blocks = 2 / high_bits * 2; /* blocks that share an upper word */
    const size_t across = s->k / SLICE_COLS;
    struct place p;
    p.row = slice / across * RUNG_FPX_TILE + 16 * b + 8 * (j >> 1 & 1) + t / 4;
    p.col = slice % across * SLICE_COLS + 8 * (j >> 2) + 2 * (t % 4) + (j & 1);
    p.word[0] = (slice * (BLOCKS / blocks) + b / blocks) * LANES + t;
    p.word[1] = (slice * BLOCKS + b) * LANES + t;
    p.shift[0] = 32 - high_bits * (slot_of(b % blocks * ELEMENTS + j, blocks * ELEMENTS) + 1);
    p.shift[1] = 32 - LOW_BITS * (slot_of(j, ELEMENTS) + 1);
    return p;
}

static uint32_t load_word(const unsigned char *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void or_word(unsigned char *p, uint32_t w) {
    for (unsigned i = 0; i < 4; i++) p[i] |= (unsigned char)(w >> 8 * i);
}

/* Places number `at`, in the order of slices, lanes, blocks and elements; false: it lies in the padding. */
static bool next_place(const rung_fpx_shape *s, size_t at, struct place *p) {
    *p = place_of(s, at / (LANES * BLOCKS * ELEMENTS), at / (BLOCKS * ELEMENTS) % LANES, at / ELEMENTS % BLOCKS,
                  at % ELEMENTS);
    return p->row < s->rows && p->col < s->cols;
}

void rung_fpx_pack(unsigned char *out, const uint8_t *codes, const rung_fpx_shape *s) {
    unsigned char *low = out + rung_fpx_plane_bytes(s);
    struct place p;
    memset(out, 0, rung_fpx_bytes(s));
    for (size_t i = 0; i < s->m * s->k; i++) {
        if (!next_place(s, i, &p)) continue;
        const uint32_t code = codes[p.row * s->cols + p.col];
        or_word(out + 4 * p.word[0], (code >> LOW_BITS) << p.shift[0]);
        or_word(low + 4 * p.word[1], (code & 15) << p.shift[1]);
    }
}

void rung_fpx_unpack(uint8_t *codes, const unsigned char *in, const rung_fpx_shape *s) {
    const unsigned char *low = in + rung_fpx_plane_bytes(s);
    const uint32_t high_mask = (1u << (s->bits - LOW_BITS)) - 1;
    struct place p;
    for (size_t i = 0; i < s->m * s->k; i++) {
        if (!next_place(s, i, &p)) continue;
        const uint32_t high = load_word(in + 4 * p.word[0]) >> p.shift[0] & high_mask;
        const uint32_t four = load_word(low + 4 * p.word[1]) >> p.shift[1] & 15;
        codes[p.row * s->cols + p.col] = (uint8_t)(high << LOW_BITS | four);
    }
}
