#include "kernels/cpu/gemm.h"
#include "kernels/cpu/sparse.h"
#include "kernels/cpu/vmath.h"

#define BODY_KERNELS  gemm_avx512
#define BODY_SPARSE   sparse_avx512
#define BODY_MR       14
#define BODY_THIN     8
#define BODY_FP6_UNIT 1.0f

VINLINE vf load_f16(const uint16_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }

VINLINE vf load_bf16(const uint16_t *p) {
    const __m512i w = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(w, 16));
}

/* The bf16 words of the 32 magnitudes: exact, and a bf16 word is the upper half of an f32. */
static const uint16_t e3m2_bf16[32] = {
    0x0000, 0x3d80, 0x3e00, 0x3e40, 0x3e80, 0x3ea0, 0x3ec0, 0x3ee0, 0x3f00, 0x3f20, 0x3f40,
    0x3f60, 0x3f80, 0x3fa0, 0x3fc0, 0x3fe0, 0x4000, 0x4020, 0x4040, 0x4060, 0x4080, 0x40a0,
    0x40c0, 0x40e0, 0x4100, 0x4120, 0x4140, 0x4160, 0x4180, 0x41a0, 0x41c0, 0x41e0,
};

/* 32 codes in the low six bits of bytes, columns i and i + 16 side by side: two columns share a 32-bit lane as words.
 */
VINLINE void fp6_codes(__m256i codes, vf out[2]) {
    const __m512i w = _mm512_cvtepu8_epi16(codes);
    const __m512i magnitude = _mm512_permutexvar_epi16(w, _mm512_loadu_si512(e3m2_bf16)); /* bits 0..4 of w count */
    const __m512i words = _mm512_ternarylogic_epi32(magnitude, _mm512_slli_epi16(w, 10),
                                                    _mm512_set1_epi16((short)0x8000), 0xf8); /* a | (b & c) */
    out[0] = _mm512_castsi512_ps(_mm512_slli_epi32(words, 16));
    out[1] = _mm512_castsi512_ps(_mm512_and_si512(words, _mm512_set1_epi32((int)0xffff0000)));
}

VINLINE void fp6_group(const unsigned char *p, vf (*out)[2]) {
    const __m256i top = _mm256_set1_epi8((char)0xc0);
    const __m256i p0 = _mm256_loadu_si256((const __m256i *)p), p1 = _mm256_loadu_si256((const __m256i *)(p + 32)),
                  p2 = _mm256_loadu_si256((const __m256i *)(p + 64));
    const __m256i last = _mm256_or_si256(_mm256_or_si256(_mm256_srli_epi16(_mm256_and_si256(p0, top), 6),
                                                         _mm256_srli_epi16(_mm256_and_si256(p1, top), 4)),
                                         _mm256_srli_epi16(_mm256_and_si256(p2, top), 2));
    fp6_codes(p0, out[0]);
    fp6_codes(p1, out[1]);
    fp6_codes(p2, out[2]);
    fp6_codes(last, out[3]);
}

#include "kernels/cpu/gemm_body.inc"
