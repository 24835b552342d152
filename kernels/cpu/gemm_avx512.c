#include "kernels/cpu/gemm.h"
#include "kernels/cpu/sparse.h"
#include "kernels/cpu/vmath.h"

#define BODY_KERNELS gemm_avx512
#define BODY_MR      14
#define BODY_THIN    8
#define BODY_FEW     8

VINLINE vf load_f16(const uint16_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }

VINLINE vf load_bf16(const uint16_t *p) {
    const __m512i w = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(w, 16));
}

VINLINE __m512i pick(__m512i mask, __m512i yes, __m512i no) { return _mm512_ternarylogic_epi32(mask, yes, no, 0xca); }

VINLINE void fp6_words(const bool e2m3, const unsigned char *p, uint16_t *out) {
    const __m512i code = _mm512_set1_epi16((short)0x9f00);
    const __m512i w0 = _mm512_loadu_si512(p), w1 = _mm512_loadu_si512(p + 64), w2 = _mm512_loadu_si512(p + 128);
    const __m512i sign_last = pick(_mm512_set1_epi8((char)0x80), _mm512_slli_epi16(w2, 1), _mm512_srli_epi16(w2, 5));
    const __m512i next = pick(_mm512_set1_epi8(0x06), _mm512_srli_epi16(w1, 4), sign_last);
    const __m512i rest = pick(_mm512_set1_epi8(0x18), _mm512_srli_epi16(w0, 2), next);
    const __m512i upper[4] = {w0, w1, w2, rest};
    for (size_t i = 0; i < 8; i++) {
        const __m512i word = i % 2 ? _mm512_slli_epi16(upper[i / 2], 8) : upper[i / 2];
        const __m512i moved = pick(_mm512_set1_epi16((short)0x8000), word, _mm512_srli_epi16(word, 1));
        _mm512_store_si512(out + i * 32, e2m3 ? _mm512_and_si512(moved, _mm512_set1_epi16((short)0x8f80))
                                              : _mm512_and_si512(word, code));
    }
}

#include "kernels/cpu/gemm_body.inc"
