#include <math.h>
#include <stdbool.h>

#include "kernels/cpu/norm.h"
#include "kernels/cpu/vmath.h"

#define BODY_KERNELS norm_avx512

enum { VDL = VL / 2 };
typedef __m512d vd;
VINLINE vd vd_set(double x) { return _mm512_set1_pd(x); }
VINLINE vd vd_load(const double *p) { return _mm512_loadu_pd(p); }
VINLINE void vd_store(double *p, vd v) { _mm512_storeu_pd(p, v); }
VINLINE vd vd_add(vd a, vd b) { return _mm512_add_pd(a, b); }
VINLINE vd vd_fma(vd a, vd b, vd c) { return _mm512_fmadd_pd(a, b, c); }
VINLINE vd vd_low(vf v) { return _mm512_cvtps_pd(_mm512_castps512_ps256(v)); }
VINLINE vd vd_high(vf v) { return _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1)); }

#include "kernels/cpu/norm_body.inc"
