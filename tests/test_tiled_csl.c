/* tests/test_tiled_csl.c - Tiled-CSL: the worked example byte for byte, the order against the rule written out over
 * sorted lists, nothing lost at any density, hostile tiles refused. */
#include "kernels/tiled_csl.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/base/tensor.h"
#include "tests/check.h"

static uint64_t seed = 5;

static void worked_example(void) {
    uint16_t w[RUNG_CSL_TILE] = {0};
    uint32_t items[RUNG_CSL_TILE];
    w[5] = rung_f32_to_f16(1);
    w[64 + 5] = rung_f32_to_f16(2);
    w[9 * 64] = rung_f32_to_f16(-1);
    static const uint32_t want[4] = {0x004d4000, 0x0248bc00, 0x00053c00, 0x00000000};
    CHECK(rung_csl_pack_tile(items, w, 64, 128, 64) == 4 && memcmp(items, want, sizeof want) == 0);
}

/* The rule over plain lists: item lists of the banks in order of rows, then places in the order in which they are
 * filled, each from the end of the longest list. */
static size_t literal(uint32_t *out, const uint16_t *w) {
    static uint32_t list[32][RUNG_CSL_TILE];
    size_t n[32] = {0}, count = 0, places = 0, place[RUNG_CSL_TILE];
    uint32_t zero[32];
    for (int b = 0; b < 32; b++) zero[b] = UINT32_MAX;
    for (uint32_t row = 0; row < 128; row++) {
        for (uint32_t col = 0; col < 64; col++) {
            const uint32_t swizzled = col ^ ((row % 8) << 3), bank = swizzled / 2 % 32, value = w[row * 64 + col];
            if (value)
                list[bank][n[bank]++] = (row * 64 + swizzled) << 16 | value, count++;
            else if (zero[bank] == UINT32_MAX)
                zero[bank] = row * 64 + swizzled;
        }
    }
    while (count % 4) {
        int best = 0;
        for (int b = 1; b < 32; b++)
            if (n[b] < n[best]) best = b;
        list[best][n[best]++] = zero[best] << 16;
        count++;
    }
    const size_t vectors = count / 4, full = vectors / 32, rest = vectors % 32;
    for (int v = 3; v >= 0; v--)
        for (size_t b = 0; b < rest; b++) place[places++] = full * 128 + 4 * b + (size_t)v;
    for (size_t r = full; r-- > 0;)
        for (int v = 3; v >= 0; v--)
            for (size_t b = 0; b < 32; b++) place[places++] = r * 128 + 4 * b + (size_t)v;
    for (size_t i = 0; i < places; i++) {
        int best = 0;
        for (int b = 1; b < 32; b++)
            if (n[b] > n[best]) best = b;
        out[place[i]] = list[best][--n[best]];
    }
    return count;
}

/* All classes of f16: NaN, infinities, subnormals, -0; `nonzeros` of them at random places. */
static void random_tile(uint16_t *w, size_t nonzeros) {
    memset(w, 0, RUNG_CSL_TILE * sizeof *w);
    for (size_t left = nonzeros; left > 0;) {
        rnd(&seed);
        const size_t i = seed >> 33 & (RUNG_CSL_TILE - 1);
        const uint16_t v = (uint16_t)(seed >> 17);
        if (w[i] || !v) continue;
        w[i] = left % 50 == 0 ? 0x8000 : left % 50 == 1 ? 0x7e01 : v;
        left--;
    }
}

static void one_count(size_t nonzeros) {
    static uint16_t w[RUNG_CSL_TILE], back[RUNG_CSL_TILE];
    static uint32_t items[RUNG_CSL_TILE], want[RUNG_CSL_TILE];
    random_tile(w, nonzeros);
    memset(items, 255, sizeof items);
    const size_t n = rung_csl_pack_tile(items, w, 64, 128, 64);
    if (!CHECK(n == (nonzeros + 3) / 4 * 4)) fprintf(stderr, "  %zu nonzeros, %zu items\n", nonzeros, n);
    CHECK(literal(want, w) == n && memcmp(items, want, n * sizeof *want) == 0);
    memset(back, 255, sizeof back);
    CHECK(rung_csl_unpack_tile(back, items, n) && memcmp(w, back, sizeof w) == 0);
}

/* A tile at the matrix' edge: what is missing is zero, rows are w_row apart. */
static void edge_tile(void) {
    enum { ROWS = 37, COLS = 50, STRIDE = 77 };
    static uint16_t w[ROWS * STRIDE], back[RUNG_CSL_TILE];
    uint32_t items[RUNG_CSL_TILE];
    for (size_t i = 0; i < ROWS * STRIDE; i++) w[i] = (uint16_t)(i % 3 ? 0 : i + 1);
    const size_t n = rung_csl_pack_tile(items, w, STRIDE, ROWS, COLS);
    size_t wrong = 0;
    CHECK(rung_csl_unpack_tile(back, items, n));
    for (size_t r = 0; r < 128; r++)
        for (size_t c = 0; c < 64; c++) wrong += back[r * 64 + c] != (r < ROWS && c < COLS ? w[r * STRIDE + c] : 0);
    CHECK(wrong == 0 && n < ROWS * COLS);
    CHECK(rung_csl_tiles(128, 64) == 1 && rung_csl_tiles(129, 64) == 2 && rung_csl_tiles(129, 65) == 4);
}

static void hostile(void) {
    static uint16_t tile[RUNG_CSL_TILE];
    const uint32_t outside[4] = {0x00053c00, RUNG_CSL_TILE << 16 | 0x3c00, 0, 0};
    const uint32_t outside_zero[4] = {0x00053c00, 0xffff0000, 0, 0};
    const uint32_t twice[4] = {0x00053c00, 0x00063c00, 0x00054000, 0};
    const uint32_t zero_after[4] = {0x00053c00, 0x00063c00, 0x00050000, 0};
    const uint32_t zero_before[4] = {0x00050000, 0x00063c00, 0x00053c00, 0};
    const uint32_t zeros_meet[4] = {0x00053c00, 0x00070000, 0x00070000, 0x00070000};
    CHECK(!rung_csl_unpack_tile(tile, outside, 4) && !rung_csl_unpack_tile(tile, outside_zero, 4));
    CHECK(!rung_csl_unpack_tile(tile, twice, 4));
    CHECK(!rung_csl_unpack_tile(tile, zero_after, 4) && !rung_csl_unpack_tile(tile, zero_before, 4));
    CHECK(rung_csl_unpack_tile(tile, zeros_meet, 4) && tile[5] == 0x3c00);
}

int main(void) {
    static const size_t counts[] = {0,    1,    2,    3,    4,    5,    127,  128,  129,  819,
                                    2458, 4014, 4095, 4096, 4097, 4178, 6554, 8190, 8191, 8192};
    worked_example();
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) one_count(counts[i]);
    edge_tile();
    hostile();
    return check_result();
}
