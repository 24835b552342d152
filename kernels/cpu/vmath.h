/* kernels/cpu/vmath.h - powers of 2 and the activations on vectors (kernels/cpu/simd.h). For *_avx2.c and *_avx512.c.
 *
 * The polynomials are minimax fits made for this file (linear programming on a Chebyshev grid). Errors against libm in
 * f64; tests/test_gemm.c checks the activations', and with them the rest:
 *   vexp2       relative 2e-7 for x in [-126, 126], exact at 0; 0 below (tests/test_attention.c)
 *   activations absolute 2.5e-7 * (1 + |y|)
 * NaN stays NaN everywhere.
 */
#ifndef RUNG_VMATH_H
#define RUNG_VMATH_H
#include "kernels/backend.h"
#include "kernels/cpu/simd.h"

/* 2^x for x <= 126: 2^n 2^f with n = floor(x), 2^f = 1 + f p(f) */
VINLINE vf vexp2(vf x) {
    const vf f = vf_fraction(x);
    vf p = vf_fma(vf_set(0.0018745128f), f, vf_set(0.009000799f));
    p = vf_fma(p, f, vf_set(0.05581165f));
    p = vf_fma(p, f, vf_set(0.24016152f));
    p = vf_fma(p, f, vf_set(0.69315135f));
    p = vf_fma(p, f, vf_set(1.0f));
    return vf_scale2_from(p, x, vf_set(-126.0f));
}

/* x * sigmoid(s); below s = -87 the sigmoid counts as 0. Rounding s log2 e costs s 2^-24 of the power, where the
 * sigmoid is steep least. */
VINLINE vf vsigmoid_mul(vf x, vf s) {
    const vf t = vf_min(vf_set(126.0f), vf_mul(s, vf_set(-1.44269504f))); /* the order keeps NaN */
    const vf y = vf_quotient(x, vf_add(vf_set(1.0f), vexp2(t)));
    return vf_if_less(s, vf_set(-87.0f), vf_mul(x, vf_zero()), y);
}

VINLINE vf vsilu(vf x) { return vsigmoid_mul(x, x); }

/* x (1 + erf(x / sqrt 2)) / 2; the tail (1 - erf(|x| / sqrt 2)) / 2 = 2^(-1 - |x| p(|x|)) */
VINLINE vf vgelu(vf x) {
    const vf c = vf_min(vf_set(14.1421356f), vf_abs(x));
    vf p = vf_fma(vf_set(2.83487657e-06f), c, vf_set(-3.93772934e-05f));
    p = vf_fma(p, c, vf_set(0.000186178528f));
    p = vf_fma(p, c, vf_set(0.000136939998f));
    p = vf_fma(p, c, vf_set(-0.00706342421f));
    p = vf_fma(p, c, vf_set(0.0524961799f));
    p = vf_fma(p, c, vf_set(0.45920822f));
    p = vf_fma(p, c, vf_set(1.15110528f));
    const vf tail = vexp2(vf_fnma(p, c, vf_set(-1.0f)));
    return vf_mul(x, vf_if_less(x, vf_zero(), tail, vf_sub(vf_set(1.0f), tail)));
}

/* (1 + tanh u) / 2 = sigmoid(2 u) */
VINLINE vf vgelu_tanh(vf x) {
    const vf u = vf_mul(x, vf_fma(vf_mul(x, x), vf_set(0.044715f), vf_set(1.0f)));
    return vsigmoid_mul(x, vf_mul(u, vf_set(1.59576912f)));
}

/* Not GEGLU, which has two inputs. */
VINLINE vf vact(vf x, rung_act act) {
    switch (act) {
    case RUNG_ACT_RELU:
        return vf_if_less(x, vf_zero(), vf_zero(), x);
    case RUNG_ACT_SILU:
        return vsilu(x);
    case RUNG_ACT_GELU:
        return vgelu(x);
    case RUNG_ACT_GELU_TANH:
        return vgelu_tanh(x);
    case RUNG_ACT_QUICK_GELU:
        return vsigmoid_mul(x, vf_mul(x, vf_set(1.702f)));
    case RUNG_ACT_NONE:
    case RUNG_ACT_GEGLU:
        break;
    }
    return x;
}
#endif
