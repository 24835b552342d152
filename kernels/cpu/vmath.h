/* kernels/cpu/vmath.h - exp, erf and the activations on vectors (kernels/cpu/simd.h). For *_avx2.c and *_avx512.c.
 *
 * The polynomials are minimax fits made for this file (linear programming on a Chebyshev grid). Errors against libm in
 * f64; tests/test_gemm.c checks the activations', and with them the rest:
 *   vexp        relative 3e-7 for x in [-86.6, 88.7]; 0 below (true value < 2.5e-38), infinity above
 *   vexp2_neg   relative 2e-7 for x in [-126, 0], exact at 0; 0 below (tests/test_attention.c)
 *   verfc       absolute 2e-7 for x >= 0
 *   activations absolute 4e-7 * (1 + |y|)
 * NaN stays NaN everywhere.
 */
#ifndef RUNG_VMATH_H
#define RUNG_VMATH_H
#include "kernels/backend.h"
#include "kernels/cpu/simd.h"

/* e^x = 2^n e^r, |r| <= ln 2 / 2, e^r = 1 + r + r^2 p(r) */
VINLINE vf vexp(vf x) {
    const vf low = vf_set(-86.6f);
    const vf c = vf_max(low, vf_min(vf_set(89.0f), x)); /* the order keeps NaN */
    const vf n = vf_round(vf_mul(c, vf_set(1.44269504f)));
    vf r = vf_fnma(n, vf_set(0.693359375f), c); /* ln 2 in two parts, the first with few bits */
    r = vf_fnma(n, vf_set(-2.12194440e-4f), r);
    vf p = vf_fma(vf_set(0.0013814542f), r, vf_set(0.008368745f));
    p = vf_fma(p, r, vf_set(0.04166839f));
    p = vf_fma(p, r, vf_set(0.16666521f));
    p = vf_fma(p, r, vf_set(0.49999994f));
    p = vf_fma(p, vf_mul(r, r), vf_add(r, vf_set(1.0f)));
    const vf e = vf_mul(vf_add(p, p), vf_pow2(vf_sub(n, vf_set(1.0f)))); /* n may be 128 */
    return vf_if_less(x, low, vf_zero(), e);
}

/* 2^x for x <= 0, the softmax's: 2^n 2^f with n = floor(x), 2^f = 1 + f p(f) */
VINLINE vf vexp2_neg(vf x) {
    const vf f = vf_fraction(x);
    vf p = vf_fma(vf_set(0.0018745128f), f, vf_set(0.009000799f));
    p = vf_fma(p, f, vf_set(0.05581165f));
    p = vf_fma(p, f, vf_set(0.24016152f));
    p = vf_fma(p, f, vf_set(0.69315135f));
    p = vf_fma(p, f, vf_set(1.0f));
    return vf_scale2_from(p, x, vf_set(-126.0f));
}

/* 1 - erf(z), z >= 0: e^-q(z) */
VINLINE vf verfc(vf z) {
    const vf c = vf_min(vf_set(10.0f), z);
    vf q = vf_fma(vf_set(3.1439788e-05f), c, vf_set(-0.0003087993f));
    q = vf_fma(q, c, vf_set(0.001032393f));
    q = vf_fma(q, c, vf_set(0.0005369462f));
    q = vf_fma(q, c, vf_set(-0.01958397f));
    q = vf_fma(q, c, vf_set(0.102919616f));
    q = vf_fma(q, c, vf_set(0.63659775f));
    q = vf_fma(q, c, vf_set(1.1283803f));
    return vexp(vf_sub(vf_zero(), vf_mul(q, c)));
}

/* x * sigmoid(s); below s = -87 the sigmoid counts as 0. */
VINLINE vf vsigmoid_mul(vf x, vf s) {
    const vf y = vf_quotient(x, vf_add(vf_set(1.0f), vexp(vf_sub(vf_zero(), s))));
    return vf_if_less(s, vf_set(-87.0f), vf_mul(x, vf_zero()), y);
}

VINLINE vf vsilu(vf x) { return vsigmoid_mul(x, x); }

VINLINE vf vgelu(vf x) {
    const vf half_tail = vf_mul(vf_set(0.5f), verfc(vf_mul(vf_abs(x), vf_set(0.70710678f))));
    return vf_mul(x, vf_if_less(x, vf_zero(), half_tail, vf_sub(vf_set(1.0f), half_tail)));
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
