/* kernels/cuda/cuda_conv.c - convolutions: 1x1 ones are products; else cuDNN; where it has nothing, a product over the
 * patches. What a GroupNorm put in front is applied while the input is rounded. */
#include <stdlib.h>

#include "kernels/base/size.h"
#include "kernels/cuda/cuda_ops.h"

enum { MOST_PLANS = 8, PATCH_BYTES = 64 << 20 };

struct rung_conv {
    cuda_matrix w;
    size_t kh, kw;
    cuda_dnn_plan plans[MOST_PLANS]; /* of the picture sizes seen; taken in turn */
    size_t plan_count;
};

rung_status cuda_conv_open(rung_backend *be, rung_conv **out, const rung_tensor *w, const rung_tensor *bias,
                           rung_store type, rung_err *err) {
    char shape[128];
    *out = NULL;
    if (w->ndim != 4 || w->shape[2] == 0 || w->shape[3] == 0)
        return rung_fail(err, RUNG_ESHAPE, "convolution weight is %s, wanted [oc, ic, kh, kw]",
                         rung_tensor_shape_text(w, shape, sizeof shape));
    rung_conv *c = calloc(1, sizeof *c);
    if (!c) return rung_fail(err, RUNG_ENOMEM, "convolution: out of memory");
    c->kh = w->shape[2];
    c->kw = w->shape[3];
    const gemm_part part = {w, bias, c->kh * c->kw};
    const rung_status st = cuda_matrix_open(cuda_of(be), &c->w, &part, 1, type, true, err);
    if (st) {
        free(c);
        return st;
    }
    *out = c;
    return RUNG_OK;
}

void cuda_conv_close(rung_backend *be, rung_conv **conv) {
    rung_conv *c = *conv;
    if (!c) return;
    for (size_t i = 0; i < MOST_PLANS; i++) cuda_dnn_plan_close(&cuda_of(be)->libs, &c->plans[i]);
    cuda_matrix_close(cuda_of(be), &c->w);
    free(c);
    *conv = NULL;
}

/* One convolution under way. */
struct view {
    cuda_backend *c;
    rung_conv *conv;
    const rung_conv_args *a;
    const rung_epilogue *ep;
    cuda_x_kind kind;
    cuda_patches input; /* of the image as cuDNN takes it: kh = kw = 1 */
    size_t oh, ow;
};

static struct view view_of(cuda_backend *c, rung_conv *conv, const float *x, const rung_conv_args *a,
                           const rung_epilogue *ep) {
    struct view v = {.c = c, .conv = conv, .a = a, .ep = ep, .kind = cuda_matrix_kind(&conv->w)};
    const size_t uh = a->uh ? a->uh : a->h, uw = a->uw ? a->uw : a->w;
    v.oh = (uh + a->pad_top + a->pad_bottom - conv->kh) / a->stride + 1;
    v.ow = (uw + a->pad_left + a->pad_right - conv->kw) / a->stride + 1;
    v.input = (cuda_patches){.x = x,
                             .batch = a->batch,
                             .h = a->h,
                             .w = a->w,
                             .ch = conv->w.channels,
                             .cp = conv->w.cp,
                             .uh = uh,
                             .uw = uw,
                             .kh = 1,
                             .kw = 1,
                             .stride = 1,
                             .oh = uh,
                             .ow = uw,
                             .scale = a->in_scale,
                             .shift = a->in_shift,
                             .act = a->in_scale ? a->in_act : RUNG_ACT_NONE};
    return v;
}

/* cuDNN pads alike on opposite sides; other paddings are written into the image. */
static void pad_image(struct view *v) {
    const rung_conv_args *a = v->a;
    v->input.pad_top = a->pad_top;
    v->input.pad_left = a->pad_left;
    v->input.oh += a->pad_top + a->pad_bottom;
    v->input.ow += a->pad_left + a->pad_right;
}

static bool even_padding(const rung_conv_args *a) { return a->pad_top == a->pad_bottom && a->pad_left == a->pad_right; }

/* The image in the kind that meets the weights; x itself where nothing would change. NULL after an error. */
static const void *prepare_image(struct view *v) {
    const cuda_patches *p = &v->input;
    const size_t rows = p->batch * p->oh * p->ow;
    if (v->kind == CUDA_X_F32 && !p->scale && p->cp == p->ch && p->oh == p->h && p->ow == p->w) return p->x;
    void *image = cuda_scratch(v->c, SCRATCH_X, rows * p->cp * cuda_x_bytes(v->kind));
    if (image) cuda_k_patches(v->c->stream, image, v->kind, p, 0, rows, v->c->range);
    return image;
}

static bool same_shape(const cuda_dnn_shape *a, const cuda_dnn_shape *b) {
    return a->kind == b->kind && a->batch == b->batch && a->h == b->h && a->w == b->w && a->stride == b->stride &&
           a->pad_h == b->pad_h && a->pad_w == b->pad_w && a->bias == b->bias && a->relu == b->relu;
}

/* cuDNN's plan for this shape, asked for once; NULL when it has none. */
static const cuda_dnn_plan *find_plan(struct view *v, const cuda_dnn_shape *shape) {
    rung_conv *conv = v->conv;
    for (size_t i = 0; i < size_min(conv->plan_count, MOST_PLANS); i++)
        if (same_shape(&conv->plans[i].shape, shape)) return conv->plans[i].plan ? &conv->plans[i] : NULL;
    cuda_dnn_plan *p = &conv->plans[conv->plan_count++ % MOST_PLANS];
    if (p->plan) cuda_good(v->c, cudaStreamSynchronize(v->c->stream), "the GPU's work");
    cuda_dnn_plan_close(&v->c->libs, p);
    return cuda_dnn_plan_open(&v->c->libs, v->c->dnn, NULL, shape, p) ? p : NULL;
}

/* May the library write y itself? Only what is f32 already, and without anything after bias and relu. */
static bool ends_in_library(const struct view *v) {
    const rung_epilogue *ep = v->ep;
    const cuda_matrix *w = &v->conv->w;
    return v->kind == CUDA_X_F32 && w->rows == w->n && !w->scale && !ep->sample_add && !ep->gate && !ep->residual &&
           (ep->out_scale == 0 || ep->out_scale == 1) && (ep->act == RUNG_ACT_NONE || ep->act == RUNG_ACT_RELU);
}

static bool by_cudnn(struct view *v, float *y) {
    const cuda_matrix *w = &v->conv->w;
    const rung_conv_args *a = v->a;
    const bool whole = ends_in_library(v), even = even_padding(a);
    const size_t pixels = a->batch * v->oh * v->ow;
    if (!even) pad_image(v);
    const cuda_dnn_shape shape = {.kind = v->kind,
                                  .batch = (int64_t)a->batch,
                                  .h = (int64_t)v->input.oh,
                                  .w = (int64_t)v->input.ow,
                                  .c = (int64_t)w->cp,
                                  .k = (int64_t)w->rows,
                                  .r = (int64_t)v->conv->kh,
                                  .s = (int64_t)v->conv->kw,
                                  .stride = (int64_t)a->stride,
                                  .pad_h = even ? (int64_t)a->pad_top : 0,
                                  .pad_w = even ? (int64_t)a->pad_left : 0,
                                  .bias = whole && w->bias,
                                  .relu = whole && v->ep->act == RUNG_ACT_RELU};
    const cuda_dnn_plan *plan = find_plan(v, &shape);
    if (!plan) return false;
    const void *image = prepare_image(v), *plain = cuda_matrix_plain(v->c, w);
    void *sums = whole ? y : cuda_scratch(v->c, SCRATCH_SUMS, pixels * w->rows * cuda_x_bytes(v->kind));
    if (!image || !plain || !sums) return true;
    cuda_dnn_run(v->c, plan, sums, image, plain, w->bias);
    if (!whole) cuda_finish_sums(v->c, y, sums, v->kind, w->rows, pixels, w, v->ep);
    return true;
}

/* Some rows of the output at a time: the epilogue's samples begin anew with each, so rows end with a picture. */
static void by_patches(struct view *v, float *y) {
    const cuda_matrix *w = &v->conv->w;
    const size_t pixels = v->oh * v->ow, row = w->kp * cuda_x_bytes(v->kind);
    cuda_patches p = v->input;
    p.kh = v->conv->kh;
    p.kw = v->conv->kw;
    p.stride = v->a->stride;
    p.pad_top = v->a->pad_top;
    p.pad_left = v->a->pad_left;
    p.oh = v->oh;
    p.ow = v->ow;
    const size_t total = v->a->batch * pixels, most = size_max(PATCH_BYTES / row, 1);
    for (size_t at = 0, n; at < total; at += n) {
        rung_epilogue ep = *v->ep;
        n = size_min(most, total - at);
        if (ep.rows_per_sample) { /* whole samples, or a part of one */
            const size_t into = at % ep.rows_per_sample, left = ep.rows_per_sample - into;
            n = n < left ? n : into ? left : n / ep.rows_per_sample * ep.rows_per_sample;
            const size_t sample = at / ep.rows_per_sample;
            if (ep.sample_add) ep.sample_add += sample * ep.sample_add_stride;
            if (ep.gate) ep.gate += sample * ep.gate_stride;
        }
        if (ep.residual) ep.residual += at * w->n;
        void *rows = cuda_scratch(v->c, SCRATCH_X, n * row);
        if (!rows) return;
        cuda_k_patches(v->c->stream, rows, v->kind, &p, at, n, v->c->range);
        cuda_gemm(v->c, y + at * w->n, rows, w->kp, n, w, &ep);
    }
}

static void run(struct view *v, float *y) {
    const rung_conv *conv = v->conv;
    const rung_conv_args *a = v->a;
    const bool product =
        conv->kh == 1 && conv->kw == 1 && a->stride == 1 && v->oh == v->input.uh && v->ow == v->input.uw;
    if (product) {
        const void *image = prepare_image(v);
        if (image) cuda_gemm(v->c, y, image, conv->w.kp, a->batch * v->oh * v->ow, &conv->w, v->ep);
    } else if (!by_cudnn(v, y)) {
        by_patches(v, y);
    }
}

void cuda_conv(rung_backend *be, float *y, const float *x, const rung_conv *conv, const rung_conv_args *a,
               const rung_epilogue *ep) {
    static const rung_epilogue none = {0};
    enum { OWN = 18 };
    cuda_backend *c = cuda_of(be);
    uint64_t key[OWN + EPILOGUE_KEYS] = {KEY_CONV,
                                         cuda_key_of(y),
                                         cuda_key_of(x),
                                         cuda_key_of(conv),
                                         a->batch,
                                         a->h,
                                         a->w,
                                         a->uh,
                                         a->uw,
                                         a->stride,
                                         a->pad_top,
                                         a->pad_left,
                                         a->pad_bottom,
                                         a->pad_right,
                                         cuda_key_of(a->in_scale),
                                         cuda_key_of(a->in_shift),
                                         (uint64_t)a->in_act};
    if (!ep) ep = &none;
    cuda_epilogue_key(key + OWN, ep);
    if (!cuda_begin(c, key, sizeof key / sizeof *key)) return;
    if (a->batch) {
        /* The plans in it are a cache: what the layer computes does not depend on them. */
        struct view v = view_of(c, (rung_conv *)conv, x, a, ep);
        run(&v, y);
    }
    cuda_end(c, "convolution");
}
