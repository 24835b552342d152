#include <string.h>

#include "kernels/base/size.h"
#include "kernels/cpu/simd.h"
#include "kernels/cpu/sparse.h"

#define BODY_KERNELS sparse_avx512

VINLINE vf load_f16(const uint16_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }

VINLINE vf load_bf16(const uint16_t *p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16));
}

/* The 32 magnitudes in two registers. */
typedef struct {
    vf low, high;
} code_table;

VINLINE code_table table_of(const sparse_panels *s) {
    return (code_table){vf_load(s->magnitude), vf_load(s->magnitude + VL)};
}

VINLINE vf load_codes(const uint8_t *p, code_table t) {
    const vi c = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
    const vi magnitude = _mm512_castps_si512(_mm512_permutex2var_ps(t.low, c, t.high)); /* bits 0..4 of c count */
    return _mm512_castsi512_ps(_mm512_ternarylogic_epi32(magnitude, _mm512_slli_epi32(c, 26),
                                                         _mm512_set1_epi32((int)0x80000000), 0xf8)); /* a | (b & c) */
}

VINLINE vf spread(uint32_t mask, const float *p) { return _mm512_maskz_expand_ps((vmask)mask, vf_load(p)); }

VINLINE void held_lanes(uint32_t *out, uint32_t mask, const uint32_t step, uint32_t first) {
    const vi lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const vi all =
        _mm512_add_epi32(_mm512_mullo_epi32(lane, _mm512_set1_epi32((int)step)), _mm512_set1_epi32((int)first));
    _mm512_storeu_si512(out, _mm512_maskz_compress_epi32((vmask)mask, all));
}

#include "kernels/cpu/sparse_body.inc"
