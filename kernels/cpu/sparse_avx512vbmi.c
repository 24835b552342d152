#include "kernels/cpu/sparse_avx512.inc"

#define BODY_KERNELS sparse_avx512vbmi
#define BODY_PLACES  32
#define BODY_SPREAD  2 /* rows of 32: one mask of 64 bits */

VINLINE void held_lanes(uint16_t *out, uint32_t mask, uint16_t step, uint16_t first) {
    static const uint16_t lane[32] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                                      16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31};
    const __m512i steps = _mm512_mullo_epi16(_mm512_loadu_si512(lane), _mm512_set1_epi16((short)step));
    const __m512i all = _mm512_add_epi16(steps, _mm512_set1_epi16((short)first));
    _mm512_storeu_si512(out, _mm512_maskz_compress_epi16(mask, all));
}

VINLINE __m512i in_place(const bool e2m3, __m512i words) {
    const __m512i sign = _mm512_set1_epi16((short)0x8000);
    if (!e2m3) return words;
    return _mm512_and_si512(_mm512_ternarylogic_epi32(sign, words, _mm512_srli_epi16(words, 1), 0xca),
                            _mm512_set1_epi16((short)0x8f80));
}

VINLINE const uint8_t *spread_codes(const bool e2m3, uint16_t *words, const unsigned char *mask, const uint8_t *p) {
    static const uint8_t upper[128] = {
#define PAIR(i)  0, (i)
#define PAIRS(i) PAIR(i), PAIR((i) + 1), PAIR((i) + 2), PAIR((i) + 3)
        PAIRS(0),  PAIRS(4),  PAIRS(8),  PAIRS(12), PAIRS(16), PAIRS(20), PAIRS(24), PAIRS(28),
        PAIRS(32), PAIRS(36), PAIRS(40), PAIRS(44), PAIRS(48), PAIRS(52), PAIRS(56), PAIRS(60),
    };
    uint64_t m;
    memcpy(&m, mask, sizeof m);
    const __m512i codes = _mm512_maskz_expand_epi8(m, _mm512_loadu_si512(p));
    const __mmask64 odd = 0xaaaaaaaaaaaaaaaa;
    for (size_t i = 0; i < 2; i++) {
        const __m512i from = _mm512_loadu_si512(upper + 64 * i);
        _mm512_store_si512(words + 32 * i, in_place(e2m3, _mm512_maskz_permutexvar_epi8(odd, from, codes)));
    }
    return p + __builtin_popcountll(m);
}

#include "kernels/cpu/sparse_body.inc"
