/* kernels/cpu/conv.h - what the ways to compute a convolution share. Internal to kernels/cpu. */
#ifndef RUNG_CPU_CONV_H
#define RUNG_CPU_CONV_H
#include "kernels/cpu/gemm.h"

struct rung_conv {
    gemm_weights w; /* [oc, kh * kw * ic] */
    size_t oc, ic, kh, kw;
};

/* One convolution under way. */
typedef struct {
    const rung_conv *c;
    const rung_conv_args *a;
    const float *x;        /* [batch, h, w, ic] */
    size_t uh, uw, oh, ow; /* enlarged input, output */
} conv_view;

enum { CONV_PADDING = -1 };

/** Where coordinate p of the padded, enlarged input (pad before, size up) lies in the stored one of `size`. */
static inline ptrdiff_t conv_coordinate(size_t p, size_t pad, size_t up, size_t size) {
    if (p < pad || p - pad >= up) return CONV_PADDING;
    return (ptrdiff_t)(up == size ? p - pad : (p - pad) * size / up);
}

/** Does Winograd's F(4x4, 3x3) fit this convolution, is it expected to be faster, and its rounding small? */
bool conv_winograd_suits(const cpu_backend *be, const conv_view *v);
/** The convolution by F(4x4, 3x3). Source: Lavin & Gray 2015. */
void conv_winograd(cpu_backend *be, float *y, const conv_view *v, const rung_epilogue *ep);

/* ---- what an ISA brings ------------------------------------------------------------------------------------------ */

enum { WINO_OUT = 4, WINO_IN = 6, WINO_POINTS = WINO_IN * WINO_IN };

typedef struct {
    /**
     * The 6x6 patch of one tile, n channels of it, to the 36 points. px[i * 6 + j]: n floats, NULL: padding. v: point p
     * begins at v + at[p] and has room for n rounded up to a vector. scale, shift: f32 [n] or NULL, then act (NONE,
     * SILU).
     */
    void (*input)(float *v, const size_t *at, const float *const *px, size_t n, const float *scale, const float *shift,
                  rung_act act);
    /** Taps w[0..8], f32 [n] each, to the 36 points: point p begins at u + p * stride; n a multiple of the vector. */
    void (*weights)(float *u, size_t stride, const float *const *w, size_t n);
    /** y [4, 4, n] from the sums m: point p begins at m + p * stride; n a multiple of the vector. */
    void (*output)(float *y, const float *m, size_t stride, size_t n);
} winograd_kernels;

extern const winograd_kernels winograd_avx2, winograd_avx512;
#endif
