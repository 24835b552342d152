#include <string.h>

#include "kernels/base/size.h"
#include "kernels/cpu/simd.h"
#include "kernels/cpu/sparse.h"

#define BODY_KERNELS sparse_avx2

VINLINE vf load_f16(const uint16_t *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)); }

VINLINE vf load_bf16(const uint16_t *p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16));
}

/* A code in place as an f16 number is `unit` times too small: how far its magnitude moves, and the unit. */
typedef struct {
    int shift;
    float unit;
} code_table;

VINLINE code_table table_of(const sparse_panels *s) {
    return s->type == SPARSE_E3M2 ? (code_table){8, 0x1p12f} : (code_table){7, 0x1p14f};
}

VINLINE vf load_codes(const uint8_t *p, code_table t) {
    const __m128i c = _mm_cvtepu8_epi16(_mm_loadl_epi64((const __m128i *)p));
    const __m128i magnitude = _mm_sll_epi16(_mm_and_si128(c, _mm_set1_epi16(31)), _mm_cvtsi32_si128(t.shift));
    const __m128i sign = _mm_slli_epi16(_mm_and_si128(c, _mm_set1_epi16(32)), 10);
    return _mm256_mul_ps(_mm256_cvtph_ps(_mm_or_si128(magnitude, sign)), _mm256_set1_ps(t.unit));
}

/* Tables of 256 rows by mask: where lane i's number comes from, which is how many bits below it are set, negative
 * where its own is not; and the lane of the i-th bit that is set. */
#define BELOW(m, i)  __builtin_popcount((m) & ((1u << (i)) - 1))
#define SOURCE(m, i) ((m) >> (i)&1 ? BELOW(m, i) : -1)
#define SOURCES(m)                                                                                                     \
    { SOURCE(m, 0), SOURCE(m, 1), SOURCE(m, 2), SOURCE(m, 3), SOURCE(m, 4), SOURCE(m, 5), SOURCE(m, 6), SOURCE(m, 7) }
#define UP_TO(m, i, n) (BELOW(m, i) <= (n))
#define LANE(m, n)                                                                                                     \
    UP_TO(m, 1, n) + UP_TO(m, 2, n) + UP_TO(m, 3, n) + UP_TO(m, 4, n) + UP_TO(m, 5, n) + UP_TO(m, 6, n) + UP_TO(m, 7, n)
#define LANES(m)                                                                                                       \
    { LANE(m, 0), LANE(m, 1), LANE(m, 2), LANE(m, 3), LANE(m, 4), LANE(m, 5), LANE(m, 6), LANE(m, 7) }
#define ROWS4(of, m)  of(m), of((m) + 1), of((m) + 2), of((m) + 3)
#define ROWS16(of, m) ROWS4(of, m), ROWS4(of, (m) + 4), ROWS4(of, (m) + 8), ROWS4(of, (m) + 12)
#define ROWS64(of, m) ROWS16(of, m), ROWS16(of, (m) + 16), ROWS16(of, (m) + 32), ROWS16(of, (m) + 48)
#define ROWS256(of)   ROWS64(of, 0u), ROWS64(of, 64u), ROWS64(of, 128u), ROWS64(of, 192u)
static const int8_t sources[256][8] = {ROWS256(SOURCES)};
static const uint8_t lanes[256][8] = {ROWS256(LANES)};

VINLINE void held_lanes(uint32_t *out, uint32_t mask, const uint32_t step, uint32_t first) {
    const vi lane = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)lanes[mask]));
    const vi at = _mm256_mullo_epi32(lane, _mm256_set1_epi32((int)step));
    _mm256_storeu_si256((__m256i *)out, _mm256_add_epi32(at, _mm256_set1_epi32((int)first)));
}

VINLINE vf spread(uint32_t mask, const float *p) {
    const vi from = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)sources[mask]));
    const vi none = _mm256_srai_epi32(from, 31);
    return _mm256_andnot_ps(_mm256_castsi256_ps(none), _mm256_permutevar8x32_ps(vf_load(p), from));
}

#include "kernels/cpu/sparse_body.inc"
