#include <stdlib.h>
#include <string.h>

#include "kernels/base/size.h"
#include "kernels/cpu/conv.h"

rung_status cpu_conv_open(rung_backend *be, rung_conv **out, const rung_tensor *w, const rung_tensor *bias,
                          rung_store type, rung_err *err) {
    char shape[128];
    *out = NULL;
    if (w->ndim != 4 || w->shape[2] == 0 || w->shape[3] == 0)
        return rung_fail(err, RUNG_ESHAPE, "convolution weight is %s, wanted [oc, ic, kh, kw]",
                         rung_tensor_shape_text(w, shape, sizeof shape));
    rung_conv *c = calloc(1, sizeof *c);
    if (!c) return rung_fail(err, RUNG_ENOMEM, "convolution: out of memory");
    *c = (rung_conv){.oc = w->shape[0], .ic = w->shape[1], .kh = w->shape[2], .kw = w->shape[3]};
    const gemm_part part = {w, bias, c->kh * c->kw};
    const rung_status st = gemm_weights_open(&c->w, &part, 1, type, cpu_of(be)->cpu, err);
    if (st) {
        free(c);
        return st;
    }
    *out = c;
    return RUNG_OK;
}

void cpu_conv_close(rung_backend *be, rung_conv **c) {
    (void)be;
    if (*c) gemm_weights_close(&(*c)->w);
    free(*c);
    *c = NULL;
}

/* The rows of A are output pixels, k is (ky, kx, channel). */
struct patch_source {
    gemm_source base;
    conv_view v;
    const gemm_kernels *k; /* NULL: the specification */
};

/* dst = act(x * in_scale + in_shift) of channels c0.. of one pixel. */
static void read_channels(const struct patch_source *p, float *dst, const float *pixel, size_t picture, size_t c0,
                          size_t n) {
    const rung_conv_args *a = p->v.a;
    if (!a->in_scale) {
        memcpy(dst, pixel + c0, n * sizeof *dst);
        return;
    }
    const float *scale = a->in_scale + picture * p->v.c->ic + c0, *shift = a->in_shift + picture * p->v.c->ic + c0;
    if (p->k) {
        p->k->affine(dst, pixel + c0, scale, shift, n, a->in_act);
        return;
    }
    for (size_t i = 0; i < n; i++) dst[i] = (float)gemm_act_ref((double)pixel[c0 + i] * scale[i] + shift[i], a->in_act);
}

/* Channels of the input pixel that tap (ky, kx) of output pixel (oy, ox) meets; zeros in the padding. */
static void read_tap(const struct patch_source *p, float *dst, size_t picture, size_t oy, size_t ox, size_t tap,
                     size_t c0, size_t n) {
    const conv_view *v = &p->v;
    const rung_conv_args *a = v->a;
    const ptrdiff_t iy = conv_coordinate(oy * a->stride + tap / v->c->kw, a->pad_top, v->uh, a->h);
    const ptrdiff_t ix = conv_coordinate(ox * a->stride + tap % v->c->kw, a->pad_left, v->uw, a->w);
    if (iy == CONV_PADDING || ix == CONV_PADDING) {
        memset(dst, 0, n * sizeof *dst);
        return;
    }
    const size_t pixel = (picture * a->h + (size_t)iy) * a->w + (size_t)ix;
    read_channels(p, dst, v->x + pixel * v->c->ic, picture, c0, n);
}

static void gather_patch(const gemm_source *s, float *dst, size_t row, size_t k0, size_t kn) {
    const struct patch_source *p = (const struct patch_source *)s;
    const size_t ic = p->v.c->ic, ox = row % p->v.ow, oy = row / p->v.ow % p->v.oh, picture = row / p->v.ow / p->v.oh;
    for (size_t k = k0; k < k0 + kn;) {
        const size_t c0 = k % ic, n = size_min(ic - c0, k0 + kn - k);
        read_tap(p, dst, picture, oy, ox, k / ic, c0, n);
        dst += n;
        k += n;
    }
}

void cpu_conv(rung_backend *be, float *y, const float *x, const rung_conv *c, const rung_conv_args *a,
              const rung_epilogue *ep) {
    static const rung_epilogue plain = {0};
    struct patch_source src = {{.gather = gather_patch}, {.c = c, .a = a, .x = x}, gemm_kernels_for(cpu_of(be)->cpu)};
    conv_view *v = &src.v;
    v->uh = a->uh ? a->uh : a->h;
    v->uw = a->uw ? a->uw : a->w;
    v->oh = (v->uh + a->pad_top + a->pad_bottom - c->kh) / a->stride + 1;
    v->ow = (v->uw + a->pad_left + a->pad_right - c->kw) / a->stride + 1;
    if (a->batch == 0) return;
    const size_t winograd = conv_winograd_suits(cpu_of(be), v);
    const bool rows = c->kh * c->kw == 1 && a->stride == 1 && !a->in_scale && v->oh == a->h && v->ow == a->w;
    if (rows) {
        src.base.rows = x;
        src.base.stride = c->ic;
    }
    if (winograd)
        conv_winograd(cpu_of(be), y, v, winograd, ep ? ep : &plain);
    else
        gemm_run(cpu_of(be), y, a->batch * v->oh * v->ow, &c->w, &src.base, ep);
}
