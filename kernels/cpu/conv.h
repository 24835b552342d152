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

/** The way that should be fastest for an output of oh x ow pixels, among those that the error budget allows: 6, 4 or 2
 * for F(6x6), F(4x4), F(2x2), 0 for none. From the shape of one picture alone: results must be those of any other
 * machine, day and batch. */
size_t winograd_way(size_t oh, size_t ow);
/** Relative 2-norm of the error of one convolution that winograd_way() reckons with; `way` as there. */
double winograd_error(size_t way);

/** Which Winograd, F(6x6, 3x3), F(4x4, 3x3) or F(2x2, 3x3), should be fastest: 6, 4, 2; 0: none, or none fits. */
size_t conv_winograd_suits(const cpu_backend *be, const conv_view *v);
/** The convolution by F(out x out, 3x3), out 6, 4 or 2. Source: Lavin & Gray 2015. */
void conv_winograd(cpu_backend *be, float *y, const conv_view *v, size_t out, const rung_epilogue *ep);

/* ---- what an ISA brings ------------------------------------------------------------------------------------------ */

enum { WINO_MOST_OUT = 6, WINO_MOST_IN = 8 };

typedef struct {
    size_t out; /* a tile is out x out pixels, its patch (out + 2)^2 pixels and so many points */
    /** n channels of the patch of one tile to its points. px: the patch's pixels, row by row. Point p begins at
     * v + p * stride and has room for n rounded up to a vector. */
    void (*input)(float *v, size_t stride, const float *const *px, size_t n);
    /** Taps w[0..8], f32 [n] each, to the points: point p begins at u + p * stride; n a multiple of the vector. */
    void (*weights)(float *u, size_t stride, const float *const *w, size_t n);
    /** y [out, out, n] from the sums m: point p begins at m + p * stride; n a multiple of the vector. */
    void (*output)(float *y, const float *m, size_t stride, size_t n);
} winograd_kernels;

extern const winograd_kernels winograd6_avx2, winograd6_avx512, winograd4_avx2, winograd4_avx512, winograd2_avx2,
    winograd2_avx512;
#endif
