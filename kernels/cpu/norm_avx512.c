#include <math.h>

#include "kernels/cpu/norm.h"
#include "kernels/cpu/vmath.h"

#define BODY_KERNELS norm_avx512

enum { VDL = VL / 2 };
typedef __m512d vd;
VINLINE vd vd_zero(void) { return _mm512_setzero_pd(); }
VINLINE vd vd_load(const double *p) { return _mm512_loadu_pd(p); }
VINLINE void vd_store(double *p, vd v) { _mm512_storeu_pd(p, v); }
VINLINE vd vd_add(vd a, vd b) { return _mm512_add_pd(a, b); }
VINLINE vd vd_fma(vd a, vd b, vd c) { return _mm512_fmadd_pd(a, b, c); }
VINLINE vd vd_low(vf v) { return _mm512_cvtps_pd(_mm512_castps512_ps256(v)); }
VINLINE vd vd_high(vf v) { return _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1)); }
VINLINE double vd_sum(vd v) {
    const __m256d h = _mm256_add_pd(_mm512_castpd512_pd256(v), _mm512_extractf64x4_pd(v, 1));
    const __m128d q = _mm_add_pd(_mm256_castpd256_pd128(h), _mm256_extractf128_pd(h, 1));
    return _mm_cvtsd_f64(_mm_add_sd(q, _mm_unpackhi_pd(q, q)));
}

#include "kernels/cpu/norm_body.inc"
