/* kernels/cpu/simd.h - one vocabulary for vectors of floats, so that a kernel which differs only in width is written
 * once. Only *_avx2.c and *_avx512.c may include this header; the file's own flags choose the width.
 *
 *   vf            a vector of VL floats (8 or 16)
 *   vf_load_n     the first n <= VL floats, zeros behind; touches no memory past them. vf_store_n alike.
 *   vf_keep_n     the first n lanes, zeros behind
 *   vf_fma(a,b,c) a * b + c, rounded once
 *
 * Everything is static inline: each ISA has its own copies.
 */
#ifndef RUNG_SIMD_H
#define RUNG_SIMD_H
#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#define VINLINE static inline __attribute__((always_inline, unused))

#ifdef __AVX512F__

enum { VL = 16 };
typedef __m512 vf;
typedef __m512i vi;
typedef __mmask16 vmask;

VINLINE vmask vmask_n(size_t n) { return (vmask)(n >= VL ? 0xffff : (1u << n) - 1); }
VINLINE vf vf_zero(void) { return _mm512_setzero_ps(); }
VINLINE vf vf_set(float x) { return _mm512_set1_ps(x); }
VINLINE vf vf_load(const float *p) { return _mm512_loadu_ps(p); }
VINLINE vf vf_load_n(const float *p, size_t n) { return n >= VL ? vf_load(p) : _mm512_maskz_loadu_ps(vmask_n(n), p); }
VINLINE void vf_store(float *p, vf v) { _mm512_storeu_ps(p, v); }
VINLINE void vf_store_n(float *p, vf v, size_t n) {
    if (n >= VL)
        vf_store(p, v);
    else
        _mm512_mask_storeu_ps(p, vmask_n(n), v);
}
VINLINE vf vf_keep_n(vf v, size_t n) { return n >= VL ? v : _mm512_maskz_mov_ps(vmask_n(n), v); }
VINLINE vf vf_add(vf a, vf b) { return _mm512_add_ps(a, b); }
VINLINE vf vf_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
VINLINE vf vf_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
VINLINE vf vf_div(vf a, vf b) { return _mm512_div_ps(a, b); }
/* a / b to two units in the last place for 1 <= b <= 1e38: a 14-bit reciprocal and a Newton step, the division takes
 * four times as long. */
VINLINE vf vf_quotient(vf a, vf b) {
    const vf r = _mm512_rcp14_ps(b);
    return _mm512_mul_ps(a, _mm512_fmadd_ps(r, _mm512_fnmadd_ps(b, r, _mm512_set1_ps(1.0f)), r));
}
VINLINE vf vf_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
VINLINE vf vf_fnma(vf a, vf b, vf c) { return _mm512_fnmadd_ps(a, b, c); } /* c - a * b */
/* As the instruction: b when either is NaN. */
VINLINE vf vf_min(vf a, vf b) { return _mm512_min_ps(a, b); }
VINLINE vf vf_max(vf a, vf b) { return _mm512_max_ps(a, b); }
VINLINE vf vf_abs(vf a) { return _mm512_abs_ps(a); }
/* Lane by lane: a < b (false for NaN) ? yes : no */
VINLINE vf vf_if_less(vf a, vf b, vf yes, vf no) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), no, yes);
}
/* x - floor(x) */
VINLINE vf vf_fraction(vf x) { return _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
/* p * 2^floor(x) where x >= least or NaN, else 0 */
VINLINE vf vf_scale2_from(vf p, vf x, vf least) {
    return _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(x, least, _CMP_NLT_UQ), p, x);
}
VINLINE float vf_sum(vf a) { /* fixed order */
    const __m256 h = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    const __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    const __m128 d = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(d, _mm_movehdup_ps(d)));
}

#else

enum { VL = 8 };
typedef __m256 vf;
typedef __m256i vi;
typedef __m256i vmask;

VINLINE vmask vmask_n(size_t n) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n >= VL ? VL : (int)n), lane);
}
VINLINE vf vf_zero(void) { return _mm256_setzero_ps(); }
VINLINE vf vf_set(float x) { return _mm256_set1_ps(x); }
VINLINE vf vf_load(const float *p) { return _mm256_loadu_ps(p); }
VINLINE vf vf_load_n(const float *p, size_t n) { return n >= VL ? vf_load(p) : _mm256_maskload_ps(p, vmask_n(n)); }
VINLINE void vf_store(float *p, vf v) { _mm256_storeu_ps(p, v); }
VINLINE void vf_store_n(float *p, vf v, size_t n) {
    if (n >= VL)
        vf_store(p, v);
    else
        _mm256_maskstore_ps(p, vmask_n(n), v);
}
VINLINE vf vf_keep_n(vf v, size_t n) { return n >= VL ? v : _mm256_and_ps(v, _mm256_castsi256_ps(vmask_n(n))); }
VINLINE vf vf_add(vf a, vf b) { return _mm256_add_ps(a, b); }
VINLINE vf vf_sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
VINLINE vf vf_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
VINLINE vf vf_div(vf a, vf b) { return _mm256_div_ps(a, b); }
/* a / b to two units in the last place for 1 <= b <= 1e38. */
VINLINE vf vf_quotient(vf a, vf b) { return _mm256_div_ps(a, b); }
VINLINE vf vf_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
VINLINE vf vf_fnma(vf a, vf b, vf c) { return _mm256_fnmadd_ps(a, b, c); } /* c - a * b */
/* As the instruction: b when either is NaN. */
VINLINE vf vf_min(vf a, vf b) { return _mm256_min_ps(a, b); }
VINLINE vf vf_max(vf a, vf b) { return _mm256_max_ps(a, b); }
VINLINE vf vf_abs(vf a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
/* Lane by lane: a < b (false for NaN) ? yes : no */
VINLINE vf vf_if_less(vf a, vf b, vf yes, vf no) { return _mm256_blendv_ps(no, yes, _mm256_cmp_ps(a, b, _CMP_LT_OQ)); }
/* x - floor(x) */
VINLINE vf vf_fraction(vf x) { return _mm256_sub_ps(x, _mm256_floor_ps(x)); }
/* p * 2^floor(x) where x >= least or NaN, else 0; least >= -126, x < 128 */
VINLINE vf vf_scale2_from(vf p, vf x, vf least) {
    const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(_mm256_floor_ps(x)), _mm256_set1_epi32(127));
    const vf power = _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
    return _mm256_and_ps(_mm256_cmp_ps(x, least, _CMP_NLT_UQ), vf_mul(p, power));
}
VINLINE float vf_sum(vf a) { /* fixed order */
    const __m128 q = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    const __m128 d = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(d, _mm_movehdup_ps(d)));
}

#endif
#endif
