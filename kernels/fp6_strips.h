/* kernels/fp6_strips.h - bitmap + six-bit codes in strips: what the CUDA kernel for sparse six-bit weights reads. A
 * byte layout, made on the host.
 *
 * The matrix is padded with zeros to strips of 16 rows x 64 columns; strip S = row / 16 * (padded columns / 64) +
 * col / 64. Its bitmap is 32 words: word 2 * (row % 16) + (col % 64) / 32 has bit col % 32 set when the element is not
 * +0. Its codes are those elements' in the order of the words and bits, six bits each, the first in the lowest bits of
 * a stream of little-endian words, which begins at a multiple of 4 words: strip_at [strips + 1] counts in such pieces
 * of 16 bytes. So a warp's lane finds its codes by counting bits, and no strip needs another. Bytes for a weight at
 * density d: 1/8 + 0.75 d, and 12 for each strip of 1024 on average.
 */
#ifndef RUNG_FP6_STRIPS_H
#define RUNG_FP6_STRIPS_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { RUNG_STRIP_ROWS = 16, RUNG_STRIP_COLS = 64, RUNG_STRIP_WORDS = 32, RUNG_STRIP_PIECE = 4 /* words */ };

/* Strips of a matrix with `rows` padded to a multiple of row_multiple, which is a multiple of 16. */
size_t rung_strips(size_t rows, size_t cols, size_t row_multiple);

/** Words that the codes of codes [rows, cols], one a byte, take: the size of `out` below. */
size_t rung_strips_words(const uint8_t *codes, size_t rows, size_t cols);

/** bitmap [strips, 32], strip_at [strips + 1], out [rung_strips_words()]. False: more than 2^32 pieces. */
bool rung_strips_pack(uint32_t *bitmap, uint32_t *strip_at, uint32_t *out, const uint8_t *codes, size_t rows,
                      size_t cols, size_t row_multiple);
#endif
