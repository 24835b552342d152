#include <string.h>

#include "kernels/base/size.h"
#include "kernels/cpu/simd.h"
#include "kernels/cpu/sparse.h"

#define BODY_KERNELS sparse_avx2
#define BODY_SPREAD  1
#define BODY_PLACES  8

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
    const __m128i sign = _mm_slli_epi16(_mm_and_si128(c, _mm_set1_epi16(128)), 8);
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

VINLINE void held_lanes(uint16_t *out, uint32_t mask, uint16_t step, uint16_t first) {
    const __m128i lane = _mm_cvtepu8_epi16(_mm_loadl_epi64((const __m128i *)lanes[mask]));
    const __m128i at = _mm_mullo_epi16(lane, _mm_set1_epi16((short)step));
    _mm_storeu_si128((__m128i *)out, _mm_add_epi16(at, _mm_set1_epi16((short)first)));
}

VINLINE vf spread(uint32_t mask, const float *p) {
    const vi from = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)sources[mask]));
    const vi none = _mm256_srai_epi32(from, 31);
    return _mm256_andnot_ps(_mm256_castsi256_ps(none), _mm256_permutevar8x32_ps(vf_load(p), from));
}

VINLINE __m256i bits_of(__m256i a, char mask) { return _mm256_and_si256(a, _mm256_set1_epi8(mask)); }

VINLINE void chunk_codes(const unsigned char *p, uint8_t *out) {
    const __m256i p0 = _mm256_loadu_si256((const __m256i *)p), p1 = _mm256_loadu_si256((const __m256i *)(p + 32)),
                  p2 = _mm256_loadu_si256((const __m256i *)(p + 64));
    const __m256i left = _mm256_or_si256(bits_of(_mm256_srli_epi16(p0, 2), 0x18), bits_of(_mm256_srli_epi16(p1, 4), 6));
    const __m256i right =
        _mm256_or_si256(bits_of(_mm256_srli_epi16(p2, 5), 1), bits_of(_mm256_slli_epi16(p2, 1), (char)0x80));
    const __m256i codes[4] = {p0, p1, p2, _mm256_or_si256(left, right)};
    for (size_t i = 0; i < 4; i++) _mm256_storeu_si256((__m256i *)(out + 32 * i), bits_of(codes[i], (char)0x9f));
}

VINLINE __m128i in_place(const bool e2m3, __m128i words) {
    const __m128i sign = _mm_set1_epi16((short)0x8000), magnitude = _mm_set1_epi16(0x0f80);
    if (!e2m3) return words;
    return _mm_or_si128(_mm_and_si128(words, sign), _mm_and_si128(_mm_srli_epi16(words, 1), magnitude));
}

VINLINE __m128i load_halves(const void *p, const void *q) {
    return _mm_castps_si128(_mm_loadh_pi(_mm_castsi128_ps(_mm_loadl_epi64(p)), q));
}

/* Eight columns at a time through the table; the second eight of the shuffle count from 8 on, which keeps the sign of
 * those that are to become 0. */
VINLINE const uint8_t *spread_codes(const bool e2m3, uint16_t *words, const unsigned char *mask, const uint8_t *p) {
    const size_t left = (size_t)__builtin_popcount(mask[0]), right = (size_t)__builtin_popcount(mask[1]);
    const __m128i none = _mm_setzero_si128(), eights = _mm_set_epi64x(0x0808080808080808, 0);
    const __m128i from = _mm_or_si128(load_halves(sources[mask[0]], sources[mask[1]]), eights);
    const __m128i bytes = _mm_shuffle_epi8(load_halves(p, p + left), from);
    _mm_store_si128((__m128i *)words, in_place(e2m3, _mm_unpacklo_epi8(none, bytes)));
    _mm_store_si128((__m128i *)(words + 8), in_place(e2m3, _mm_unpackhi_epi8(none, bytes)));
    return p + left + right;
}

#include "kernels/cpu/sparse_body.inc"
