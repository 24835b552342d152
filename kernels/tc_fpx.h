/* kernels/tc_fpx.h - TC-FPx pre-packing: six- or five-bit codes in the order in which a warp of mma.sync.m16n8k16 wants
 * them, cut into planes whose loads are aligned. A byte layout only: packed on the host, read by the CUDA kernels.
 *
 * The matrix is padded to [m, k] with zero codes. Planes lie one after the other, from the top bit of the code down:
 * six bits: 2 (S E2), then 4 (E1 E0 M1 M0); five bits: 1 (S), then 4. Each plane is made of little-endian u32 words:
 *
 *   slice s = row / 64 * (k / 16) + col / 16: 64 rows x 16 columns; lane t = 0..31, block b = 0..3, element j = 0..7:
 *     row = 64 * (s / (k / 16)) + 16 b + 8 (j >> 1 & 1) + t / 4
 *     col = 16 * (s % (k / 16)) +  8 (j >> 2)           + 2 (t % 4) + (j & 1)
 *   4-bit plane: word (4 s + b) * 32 + t holds the lane's 8 elements of a block;
 *   2-bit plane: word (2 s + b / 2) * 32 + t those of two blocks, e = 8 (b % 2) + j;
 *   1-bit plane: word s * 32 + t those of all four, e = 8 b + j.
 *   The slots of a word, the first in its most significant bits, hold the elements with odd column first: e % 4 = 1,
 *   3, 0, 2 in turn, and each of these ascending (4-bit: 1 5 3 7 0 4 2 6).
 *
 * So one mask and one shift turn a word into two pairs of f16 numbers. Source: Xia et al. 2024 (FP6-LLM, arXiv
 * 2401.14112), sections 5.2 and 5.3.
 */
#ifndef RUNG_TC_FPX_H
#define RUNG_TC_FPX_H
#include <stddef.h>
#include <stdint.h>

enum { RUNG_FPX_TILE = 64 };

typedef struct {
    unsigned bits;     /* 6 or 5 */
    size_t rows, cols; /* of the matrix */
    size_t m, k;       /* padded: rows <= m, cols <= k, multiples of RUNG_FPX_TILE */
} rung_fpx_shape;

/** The shape with its padding: m a multiple of row_multiple, which is a multiple of RUNG_FPX_TILE (the kernels' tiles
 * are 256 rows). */
rung_fpx_shape rung_fpx_shape_of(unsigned bits, size_t rows, size_t cols, size_t row_multiple);

size_t rung_fpx_bytes(const rung_fpx_shape *s);       /* of all planes: m * k * bits / 8 */
size_t rung_fpx_plane_bytes(const rung_fpx_shape *s); /* of the upper plane: where the 4-bit plane begins */

/** codes [rows, cols], one a byte, low bits; out: rung_fpx_bytes(), any alignment. */
void rung_fpx_pack(unsigned char *out, const uint8_t *codes, const rung_fpx_shape *s);
void rung_fpx_unpack(uint8_t *codes, const unsigned char *in, const rung_fpx_shape *s);
#endif
