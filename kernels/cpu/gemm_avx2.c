#include "kernels/cpu/gemm.h"
#include "kernels/cpu/sparse.h"
#include "kernels/cpu/vmath.h"

#define BODY_KERNELS gemm_avx2
#define BODY_MR      6
#define BODY_THIN    4
#define BODY_FEW     8

VINLINE vf load_f16(const uint16_t *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)); }

VINLINE vf load_bf16(const uint16_t *p) {
    const __m256i w = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(w, 16));
}

VINLINE __m256i bits_of(__m256i a, char mask) { return _mm256_and_si256(a, _mm256_set1_epi8(mask)); }

VINLINE __m256i bits16(__m256i a, uint16_t mask) { return _mm256_and_si256(a, _mm256_set1_epi16((short)mask)); }

VINLINE void fp6_words(const bool e2m3, const unsigned char *p, uint16_t *out) {
    const __m256i code = _mm256_set1_epi16((short)0x9f00);
    const __m256i w0 = _mm256_loadu_si256((const __m256i *)p), w1 = _mm256_loadu_si256((const __m256i *)(p + 32)),
                  w2 = _mm256_loadu_si256((const __m256i *)(p + 64));
    const __m256i left = _mm256_or_si256(bits_of(_mm256_srli_epi16(w0, 2), 0x18), bits_of(_mm256_srli_epi16(w1, 4), 6));
    const __m256i right =
        _mm256_or_si256(bits_of(_mm256_srli_epi16(w2, 5), 1), bits_of(_mm256_slli_epi16(w2, 1), (char)0x80));
    const __m256i upper[4] = {w0, w1, w2, _mm256_or_si256(left, right)};
    for (size_t i = 0; i < 8; i++) {
        const __m256i word = _mm256_and_si256(i % 2 ? _mm256_slli_epi16(upper[i / 2], 8) : upper[i / 2], code);
        const __m256i sign = bits16(word, 0x8000),
                      moved = _mm256_or_si256(sign, bits16(_mm256_srli_epi16(word, 1), 0x0f80));
        _mm256_store_si256((__m256i *)(out + i * 16), e2m3 ? moved : word);
    }
}

#include "kernels/cpu/gemm_body.inc"
