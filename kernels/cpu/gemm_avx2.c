#include "kernels/cpu/gemm.h"
#include "kernels/cpu/vmath.h"

#define BODY_KERNELS gemm_avx2
#define BODY_MR      6

VINLINE vf load_f16(const uint16_t *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)); }

VINLINE vf load_bf16(const uint16_t *p) {
    const __m256i w = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(w, 16));
}

/* 16 codes S EEE MM, one a byte, to f32: with two zero bits between sign and exponent they are f16 numbers 2^12 too
 * small, subnormal codes too. */
VINLINE void fp6_codes(__m128i codes, vf out[2]) {
    const __m256i w = _mm256_cvtepu8_epi16(codes);
    const __m256i sign = _mm256_and_si256(_mm256_slli_epi16(w, 10), _mm256_set1_epi16((short)0x8000));
    const __m256i h = _mm256_or_si256(sign, _mm256_and_si256(_mm256_slli_epi16(w, 8), _mm256_set1_epi16(0x1f00)));
    const vf up = vf_set(4096.0f);
    out[0] = vf_mul(_mm256_cvtph_ps(_mm256_castsi256_si128(h)), up);
    out[1] = vf_mul(_mm256_cvtph_ps(_mm256_extracti128_si256(h, 1)), up);
}

VINLINE void fp6_group(const unsigned char *p, vf (*out)[2]) {
    const __m128i low = _mm_set1_epi8(63), top = _mm_set1_epi8((char)0xc0);
    const __m128i p0 = _mm_loadu_si128((const __m128i *)p), p1 = _mm_loadu_si128((const __m128i *)(p + 16)),
                  p2 = _mm_loadu_si128((const __m128i *)(p + 32));
    const __m128i last =
        _mm_or_si128(_mm_or_si128(_mm_srli_epi16(_mm_and_si128(p0, top), 6), _mm_srli_epi16(_mm_and_si128(p1, top), 4)),
                     _mm_srli_epi16(_mm_and_si128(p2, top), 2));
    fp6_codes(_mm_and_si128(p0, low), out[0]);
    fp6_codes(_mm_and_si128(p1, low), out[1]);
    fp6_codes(_mm_and_si128(p2, low), out[2]);
    fp6_codes(last, out[3]);
}

#include "kernels/cpu/gemm_body.inc"
