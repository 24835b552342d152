/* kernels/base/fp6.h - six- and five-bit floating point: the codes and the byte streams of a model file.
 *
 *         bits      bias  smallest > 0  largest
 *   E3M2  S EEE MM    3   1/16          28
 *   E2M3  S EE MMM    1   1/8           7.5
 *   E3M1  S EEE M     3   1/8           24       every value is an E3M2 value too
 *   E2M2  S EE MM     1   1/4           7        every value is an E2M3 value too
 *
 * A value is (-1)^S * (E == 0 ? M/2^m * 2^(1-bias) : (1 + M/2^m) * 2^(E-bias)), m the bits of M. No infinity, no NaN.
 * Streams: row-major over the whole tensor, each code after the one before, the most significant bit first; so 4 codes
 * of six bits are 3 bytes, 8 codes of five bits are 5. Sixteen ones in E3M2 (001100) are the bytes 30 C3 0C 30 C3 0C ...
 * A stored weight is value * scale[row], one f32 scale for each output row (shape[0]).
 * Source: Xia et al. 2024 (FP6-LLM, arXiv 2401.14112); the bit order inside the bytes is ours.
 */
#ifndef RUNG_FP6_H
#define RUNG_FP6_H
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/err.h"

#define RUNG_E3M2_MAX 28.0f
#define RUNG_E2M3_MAX 7.5f
#define RUNG_E3M1_MAX 24.0f
#define RUNG_E2M2_MAX 7.0f

float rung_e3m2_to_f32(uint8_t code); /* code 0..63 */
float rung_e2m3_to_f32(uint8_t code);
float rung_e3m1_to_f32(uint8_t code); /* code 0..31 */
float rung_e2m2_to_f32(uint8_t code);

/** The nearest code, ties to the even one, saturating at the largest; -0 keeps its sign. NaN is the caller's to refuse
 * (gives the largest). */
uint8_t rung_f32_to_e3m2(float v);
uint8_t rung_f32_to_e2m3(float v);
uint8_t rung_f32_to_e3m1(float v);
uint8_t rung_f32_to_e2m2(float v);

/** The six-bit code of the same value: E3M1 as E3M2, E2M2 as E2M3. */
static inline uint8_t rung_e3m1_to_e3m2(uint8_t code) { return (uint8_t)(code << 1); }
static inline uint8_t rung_e2m2_to_e2m3(uint8_t code) { return (uint8_t)(code << 1); }

/** Code `i` of a six-bit stream. */
static inline uint8_t rung_fp6_get(const void *stream, size_t i) {
    const uint8_t *p = (const uint8_t *)stream + i / 4 * 3;
    const unsigned w = (unsigned)p[0] << 16 | (unsigned)p[1] << 8 | p[2];
    return (uint8_t)(w >> (18 - 6 * (i % 4)) & 63);
}

/** Code `i` of a five-bit stream. */
static inline uint8_t rung_fp5_get(const void *stream, size_t i) {
    const uint8_t *p = (const uint8_t *)stream + i / 8 * 5;
    const size_t bit = i % 8 * 5, byte = bit / 8;
    const unsigned w = (unsigned)p[byte] << 8 | (bit % 8 > 3 ? p[byte + 1] : 0);
    return (uint8_t)(w >> (11 - bit % 8) & 31);
}

/** *scale: what makes the largest of row [n] the largest E3M2 code. RUNG_EFORMAT: one is not finite. */
rung_status rung_fp6_row_scale(const float *row, size_t n, float *scale, rung_err *err);

/** ORs code `i` into a stream whose bytes were 0. */
void rung_fp6_put(void *stream, size_t i, uint8_t code);
void rung_fp5_put(void *stream, size_t i, uint8_t code);
#endif
