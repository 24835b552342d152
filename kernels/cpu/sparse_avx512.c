#include "kernels/cpu/sparse_avx512.inc"

#define BODY_KERNELS sparse_avx512
#define BODY_PLACES  16

VINLINE void held_lanes(uint16_t *out, uint32_t mask, uint16_t step, uint16_t first) {
    const vi lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const vi held = _mm512_maskz_compress_epi32((vmask)mask, lane);
    const __m256i at = _mm256_mullo_epi16(_mm512_cvtepi32_epi16(held), _mm256_set1_epi16((short)step));
    _mm256_storeu_si256((__m256i *)out, _mm256_add_epi16(at, _mm256_set1_epi16((short)first)));
}

#include "kernels/cpu/sparse_body.inc"
