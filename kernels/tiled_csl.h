/* kernels/tiled_csl.h - Flash-LLM's Tiled-CSL: the nonzeros of a matrix in tiles of 128 rows x 64 columns, ordered so
 * that a warp's stores to shared memory meet in few banks. A byte layout: what the CUDA kernel reads, and what a very
 * sparse tensor is in a model file (docs/WEIGHT_FILES.md).
 *
 * The matrix is padded with zeros to whole tiles; tile T = row / 128 * (padded columns / 64) + col / 64. An item is a
 * u32: the low half a 16-bit value (f16, or a code of six bits), the high half its position
 *     (row % 128) * 64 + ((col % 64) ^ ((row % 8) << 3)),
 * shared memory's swizzle for ldmatrix. A tile has a multiple of 4 items; those that fill it up have the value 0 at a
 * position that is zero anyway. Tile offsets count in fours.
 *
 * Order: bank = position % 64 / 2. The items go to 32 stacks, one a bank, row by row; zeros fill the emptiest stack at
 * its bank's first zero position. take() pops the fullest stack, the lowest of equals. With V = items / 4, R = V / 32,
 * rem = V % 32: first out[128 R + 4 b + v] for v = 3..0, b = 0..rem-1, then out[128 r + 4 b + v] for r = R-1..0,
 * v = 3..0, b = 0..31. Source: Xia et al. 2023 (Flash-LLM, arXiv 2309.10285), section 4.2, and its packing routine.
 */
#ifndef RUNG_TILED_CSL_H
#define RUNG_TILED_CSL_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { RUNG_CSL_ROWS = 128, RUNG_CSL_COLS = 64, RUNG_CSL_TILE = RUNG_CSL_ROWS * RUNG_CSL_COLS, RUNG_CSL_UNIT = 4 };

static inline uint32_t rung_csl_position(size_t row, size_t col) {
    return (uint32_t)(row * RUNG_CSL_COLS + (col ^ (row % 8) << 3));
}
/* Row and column in the tile of a position. */
static inline size_t rung_csl_row(uint32_t position) { return position / RUNG_CSL_COLS; }
static inline size_t rung_csl_col(uint32_t position) {
    return (position ^ position / RUNG_CSL_COLS % 8 << 3) % RUNG_CSL_COLS;
}

size_t rung_csl_tiles(size_t rows, size_t cols);

/**
 * One tile. w [rows, cols], rows w_row apart, rows <= 128, cols <= 64: what is missing is 0. A word of 0 is no item; -0
 * and NaN are items. items: room for RUNG_CSL_TILE. Returns how many, a multiple of RUNG_CSL_UNIT: 0 for an empty tile.
 */
size_t rung_csl_pack_tile(uint32_t *items, const uint16_t *w, size_t w_row, size_t rows, size_t cols);

/**
 * tile [128 * 64] written in full, not swizzled. False, and the tile undefined, when a position lies outside of the
 * tile, or an item's position is another nonzero item's.
 */
bool rung_csl_unpack_tile(uint16_t *tile, const uint32_t *items, size_t count);
#endif
