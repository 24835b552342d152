/* kernels/base/fp6.h - six-bit floating point: the codes and the byte stream of a model file.
 *
 * E3M2, bits S EEE MM, bias 3: (-1)^S * (E == 0 ? M * 2^-4 : (1 + M/4) * 2^(E-3)). No infinity, no NaN, largest 28.
 * Stream: row-major over the whole tensor, 8 codes in 6 bytes, the first code in the most significant bits; the
 * element count is a multiple of 4. Sixteen ones (001100) are the bytes 30 C3 0C 30 C3 0C ...
 * A stored weight is value * scale[row], one f32 scale for each output row (shape[0]).
 * Source: Xia et al. 2024 (FP6-LLM, arXiv 2401.14112); the bit order inside the bytes is ours.
 */
#ifndef RUNG_FP6_H
#define RUNG_FP6_H
#include <stddef.h>
#include <stdint.h>

float rung_e3m2_to_f32(uint8_t code); /* code 0..63 */
float rung_e2m3_to_f32(uint8_t code);

#define RUNG_E3M2_MAX 28.0f

/** The nearest code, ties to even, saturating at 28; -0 keeps its sign. NaN is the caller's to refuse (gives 28). */
uint8_t rung_f32_to_e3m2(float v);

/** Code `i` of a stream. */
static inline uint8_t rung_fp6_get(const void *stream, size_t i) {
    const uint8_t *p = (const uint8_t *)stream + i / 4 * 3;
    const unsigned w = (unsigned)p[0] << 16 | (unsigned)p[1] << 8 | p[2];
    return (uint8_t)(w >> (18 - 6 * (i % 4)) & 63);
}
#endif
