#include "kernels/tiled_csl.h"

#include <string.h>

#include "kernels/base/size.h"

enum { BANKS = 32, BANK_ITEMS = RUNG_CSL_TILE / BANKS, GROUP = BANKS * RUNG_CSL_UNIT };

size_t rung_csl_tiles(size_t rows, size_t cols) {
    return size_div_up(rows, RUNG_CSL_ROWS) * size_div_up(cols, RUNG_CSL_COLS);
}

struct stacks {
    uint32_t items[BANKS][BANK_ITEMS];
    size_t count[BANKS];
    uint32_t zero[BANKS]; /* the bank's first zero position */
    bool has_zero[BANKS];
};

static size_t bank_of(uint32_t position) { return position % RUNG_CSL_COLS / 2; }

static void push(struct stacks *s, uint32_t position, uint16_t value) {
    const size_t bank = bank_of(position);
    s->items[bank][s->count[bank]++] = position << 16 | value;
}

static uint32_t take(struct stacks *s) {
    size_t fullest = 0;
    for (size_t b = 1; b < BANKS; b++)
        if (s->count[b] > s->count[fullest]) fullest = b;
    return s->items[fullest][--s->count[fullest]];
}

/* A bank that is not full has a zero position, and the emptiest is not full unless the count is a multiple anyway. */
static void push_zero(struct stacks *s) {
    size_t emptiest = 0;
    for (size_t b = 1; b < BANKS; b++)
        if (s->count[b] < s->count[emptiest]) emptiest = b;
    push(s, s->zero[emptiest], 0);
}

static size_t fill(struct stacks *s, const uint16_t *w, size_t w_row, size_t rows, size_t cols) {
    size_t count = 0;
    for (size_t r = 0; r < RUNG_CSL_ROWS; r++) {
        for (size_t c = 0; c < RUNG_CSL_COLS; c++) {
            const uint32_t position = rung_csl_position(r, c);
            const uint16_t value = r < rows && c < cols ? w[r * w_row + c] : 0;
            const size_t bank = bank_of(position);
            if (value) {
                push(s, position, value);
                count++;
            } else if (!s->has_zero[bank]) {
                s->has_zero[bank] = true;
                s->zero[bank] = position;
            }
        }
    }
    for (; count % RUNG_CSL_UNIT != 0; count++) push_zero(s);
    return count;
}

size_t rung_csl_pack_tile(uint32_t *items, const uint16_t *w, size_t w_row, size_t rows, size_t cols) {
    struct stacks s;
    memset(s.count, 0, sizeof s.count);
    memset(s.has_zero, 0, sizeof s.has_zero);
    const size_t count = fill(&s, w, w_row, rows, cols);
    const size_t groups = count / GROUP, rest = count % GROUP / RUNG_CSL_UNIT;
    for (size_t v = RUNG_CSL_UNIT; v-- > 0;)
        for (size_t b = 0; b < rest; b++) items[groups * GROUP + b * RUNG_CSL_UNIT + v] = take(&s);
    for (size_t r = groups; r-- > 0;)
        for (size_t v = RUNG_CSL_UNIT; v-- > 0;)
            for (size_t b = 0; b < BANKS; b++) items[r * GROUP + b * RUNG_CSL_UNIT + v] = take(&s);
    return count;
}

bool rung_csl_unpack_tile(uint16_t *tile, const uint32_t *items, size_t count) {
    memset(tile, 0, RUNG_CSL_TILE * sizeof *tile);
    for (size_t i = 0; i < count; i++) {
        const uint32_t position = items[i] >> 16;
        const uint16_t value = (uint16_t)items[i];
        if (position >= RUNG_CSL_TILE) return false;
        if (!value) continue;
        uint16_t *at = &tile[rung_csl_row(position) * RUNG_CSL_COLS + rung_csl_col(position)];
        if (*at) return false;
        *at = value;
    }
    for (size_t i = 0; i < count; i++) { /* an item of value 0 stands where nothing else does */
        const uint32_t position = items[i] >> 16;
        if (!(uint16_t)items[i] && tile[rung_csl_row(position) * RUNG_CSL_COLS + rung_csl_col(position)]) return false;
    }
    return true;
}
