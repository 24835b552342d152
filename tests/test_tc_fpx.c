/* tests/test_tc_fpx.c - the TC-FPx planes against the published index maps, written out; and the steps in which a lane
 * turns its words into f16 pairs, run for every lane against mma.sync.m16n8k16's table of the A fragment. */
#include "kernels/tc_fpx.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/base/fp6.h"
#include "kernels/base/tensor.h"
#include "tests/check.h"

static const unsigned slot4[8] = {1, 5, 3, 7, 0, 4, 2, 6};
static const unsigned slot2[16] = {1, 5, 9, 13, 3, 7, 11, 15, 0, 4, 8, 12, 2, 6, 10, 14};
static const unsigned slot1[32] = {1, 5, 9, 13, 17, 21, 25, 29, 3, 7, 11, 15, 19, 23, 27, 31,
                                   0, 4, 8, 12, 16, 20, 24, 28, 2, 6, 10, 14, 18, 22, 26, 30};

static uint32_t word_at(const unsigned char *plane, size_t i) {
    uint32_t w = 0;
    for (unsigned b = 0; b < 4; b++) w |= (uint32_t)plane[4 * i + b] << 8 * b;
    return w;
}

/* Code of the padded matrix. */
static unsigned code_at(const uint8_t *codes, const rung_fpx_shape *s, size_t row, size_t col) {
    return row < s->rows && col < s->cols ? codes[row * s->cols + col] : 0;
}

static unsigned element(const uint8_t *codes, const rung_fpx_shape *s, size_t I, size_t J, unsigned t, unsigned k,
                        unsigned j) {
    return code_at(codes, s, 64 * I + 16 * k + 8 * (j >> 1 & 1) + t / 4, 16 * J + 8 * (j >> 2) + 2 * (t % 4) + (j & 1));
}

/* Every slot of every word. */
static void against_maps(const unsigned char *packed, const uint8_t *codes, const rung_fpx_shape *s) {
    const unsigned char *low = packed + rung_fpx_plane_bytes(s);
    size_t wrong = 0;
    for (size_t I = 0; I < s->m / 64; I++) {
        for (size_t J = 0; J < s->k / 16; J++) {
            const size_t slice = I * (s->k / 16) + J;
            for (unsigned t = 0; t < 32; t++) {
                for (unsigned k = 0; k < 4; k++)
                    for (unsigned q = 0; q < 8; q++)
                        wrong += (word_at(low, (slice * 4 + k) * 32 + t) >> (28 - 4 * q) & 15) !=
                                 (element(codes, s, I, J, t, k, slot4[q]) & 15);
                for (unsigned h = 0; s->bits == 6 && h < 2; h++)
                    for (unsigned q = 0; q < 16; q++)
                        wrong += (word_at(packed, (slice * 2 + h) * 32 + t) >> (30 - 2 * q) & 3) !=
                                 element(codes, s, I, J, t, 2 * h + slot2[q] / 8, slot2[q] % 8) >> 4;
                for (unsigned q = 0; s->bits == 5 && q < 32; q++)
                    wrong += (word_at(packed, slice * 32 + t) >> (31 - q) & 1) !=
                             element(codes, s, I, J, t, slot1[q] / 8, slot1[q] % 8) >> 4;
            }
        }
    }
    if (!CHECK(wrong == 0))
        fprintf(stderr, "  %u bits [%zu, %zu]: %zu slots wrong\n", s->bits, s->rows, s->cols, wrong);
}

static float f16_times_4096(uint32_t h) { return rung_f16_to_f32((uint16_t)h) * 4096; }

/* Steps 2k and 2k + 1 of a lane give a0, a1 and a2, a3 of block k: pairs at (row, col) and (row + 8, col), then the
 * same 8 columns on; the high half is the odd column. */
static void lane_steps(const unsigned char *packed, const uint8_t *codes, const rung_fpx_shape *s, size_t slice,
                       unsigned t) {
    const unsigned char *low = packed + rung_fpx_plane_bytes(s);
    const size_t row0 = slice / (s->k / 16) * 64 + t / 4, col0 = slice % (s->k / 16) * 16 + 2 * (t % 4);
    uint32_t w2 = 0, w4 = 0;
    for (unsigned i = 0; i < 8; i++) {
        w2 = i % 4 == 0 ? word_at(packed, (slice * 2 + i / 4) * 32 + t) : w2 << 2;
        w4 = i % 2 == 0 ? word_at(low, (slice * 4 + i / 2) * 32 + t) : w4 << 4;
        uint32_t p = (w2 & 0xc0c0c0c0) | (w4 & 0xf0f0f0f0) >> 2;
        for (unsigned half = 0; half < 2; half++, p <<= 8) {
            const uint32_t pair = (p & 0x80008000) | (p & 0x7c007c00) >> 2;
            const size_t row = row0 + 16 * (i / 2) + 8 * half, col = col0 + 8 * (i % 2);
            CHECK(f16_times_4096(pair & 0xffff) == rung_e3m2_to_f32((uint8_t)code_at(codes, s, row, col)));
            CHECK(f16_times_4096(pair >> 16) == rung_e3m2_to_f32((uint8_t)code_at(codes, s, row, col + 1)));
        }
    }
}

static void check_shape(unsigned bits, size_t rows, size_t cols, size_t multiple) {
    const rung_fpx_shape s = rung_fpx_shape_of(bits, rows, cols, multiple);
    const size_t bytes = rung_fpx_bytes(&s);
    CHECK(s.m % multiple == 0 && s.m >= rows && s.m < rows + multiple && s.k % 64 == 0 && s.k >= cols &&
          s.k < cols + 64 && bytes * 8 == s.m * s.k * bits && rung_fpx_plane_bytes(&s) * 8 == s.m * s.k * (bits - 4));
    uint8_t *codes = malloc(rows * cols), *back = malloc(rows * cols);
    unsigned char *packed = malloc(bytes);
    uint64_t seed = rows + cols;
    for (size_t i = 0; i < rows * cols; i++) {
        rnd(&seed);
        codes[i] = (uint8_t)(seed >> 40 & ((1u << bits) - 1));
    }
    memset(back, 255, rows * cols);
    rung_fpx_pack(packed, codes, &s);
    against_maps(packed, codes, &s);
    rung_fpx_unpack(back, packed, &s);
    CHECK(memcmp(codes, back, rows * cols) == 0);
    for (size_t slice = 0; bits == 6 && slice < s.m / 64 * (s.k / 16); slice++)
        for (unsigned t = 0; t < 32; t++) lane_steps(packed, codes, &s, slice, t);
    free(codes);
    free(back);
    free(packed);
}

int main(void) {
    check_shape(6, 128, 192, 64);
    check_shape(5, 128, 192, 64);
    check_shape(6, 320, 36, 256); /* SD's conv_in: 4 channels of 3x3 */
    check_shape(5, 70, 100, 64);
    check_shape(6, 1, 1, 64);
    return check_result();
}
