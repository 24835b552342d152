#include "kernels/cpu/gemm.h"
#include "kernels/cpu/sparse.h"
#include "kernels/cpu/vmath.h"

#define BODY_KERNELS  gemm_avx2
#define BODY_SPARSE   sparse_avx2
#define BODY_MR       6
#define BODY_THIN     4
#define BODY_FP6_UNIT 4096.0f

VINLINE vf load_f16(const uint16_t *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)); }

VINLINE vf load_bf16(const uint16_t *p) {
    const __m256i w = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(w, 16));
}

/* 32 codes S EEE MM in the low six bits of bytes, 16 of one k and 16 of the next. With two zero bits between sign and
 * exponent a code is the upper byte of an f16 number 2^12 too small (BODY_FP6_UNIT), subnormal codes too. */
VINLINE void fp6_codes(__m256i codes, vf (*out)[2]) {
    const __m256i magnitude = _mm256_and_si256(codes, _mm256_set1_epi8(0x1f));
    const __m256i sign = _mm256_slli_epi16(_mm256_and_si256(codes, _mm256_set1_epi8(0x20)), 2);
    const __m256i high = _mm256_or_si256(magnitude, sign), zero = _mm256_setzero_si256();
    const __m256i left = _mm256_unpacklo_epi8(zero, high), right = _mm256_unpackhi_epi8(zero, high);
    out[0][0] = _mm256_cvtph_ps(_mm256_castsi256_si128(left));
    out[0][1] = _mm256_cvtph_ps(_mm256_castsi256_si128(right));
    out[1][0] = _mm256_cvtph_ps(_mm256_extracti128_si256(left, 1));
    out[1][1] = _mm256_cvtph_ps(_mm256_extracti128_si256(right, 1));
}

VINLINE void fp6_group(const unsigned char *p, vf (*out)[2]) {
    const __m128i top = _mm_set1_epi8((char)0xc0);
    const __m256i p01 = _mm256_loadu_si256((const __m256i *)p);
    const __m128i p0 = _mm256_castsi256_si128(p01), p1 = _mm256_extracti128_si256(p01, 1),
                  p2 = _mm_loadu_si128((const __m128i *)(p + 32));
    const __m128i last =
        _mm_or_si128(_mm_or_si128(_mm_srli_epi16(_mm_and_si128(p0, top), 6), _mm_srli_epi16(_mm_and_si128(p1, top), 4)),
                     _mm_srli_epi16(_mm_and_si128(p2, top), 2));
    fp6_codes(p01, out);
    fp6_codes(_mm256_set_m128i(last, p2), out + 2);
}

#include "kernels/cpu/gemm_body.inc"
