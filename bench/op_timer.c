#include "bench/op_timer.h"

#include <stdlib.h>

#include "bench/bench_ops.h"

/* Multiply-adds that one row of an output takes: of a layer that was opened. */
struct layer {
    const void *key;
    size_t weights;
    bool three; /* a 3x3 convolution */
};

struct op_timer {
    rung_backend_ops ops; /* first: be->ops points here, so that the operations find their timer */
    const rung_backend_ops *base;
    struct layer *layers;
    size_t count, last; /* last: the layer that ran last, whose successor is the likely next */
    timed_sum sums[TIMED_KINDS];
};

static op_timer *timer_of(const rung_backend *be) { return (op_timer *)be->ops; }

static rung_status add_layer(op_timer *t, const void *key, const rung_tensor *const *w, size_t parts, rung_err *err) {
    struct layer *grown = realloc(t->layers, (t->count + 1) * sizeof *grown);
    if (!grown) return rung_fail(err, RUNG_ENOMEM, "bench: out of memory");
    struct layer l = {.key = key, .three = w[0]->ndim == 4 && w[0]->shape[2] == 3 && w[0]->shape[3] == 3};
    for (size_t i = 0; i < parts; i++) l.weights += rung_tensor_count(w[i]);
    t->layers = grown;
    t->layers[t->count++] = l;
    return RUNG_OK;
}

static const struct layer *find_layer(op_timer *t, const void *key) {
    for (size_t i = 0; i < t->count; i++) {
        const size_t at = (t->last + 1 + i) % t->count;
        if (t->layers[at].key == key) return &t->layers[t->last = at];
    }
    return NULL;
}

static void book(op_timer *t, timed_kind kind, double start, double operations) {
    t->sums[kind].seconds += bench_now() - start;
    t->sums[kind].operations += operations;
    t->sums[kind].calls++;
}

/* ---- the table ---- */

static rung_status linear_open(rung_backend *be, rung_linear **out, const rung_tensor *const *w,
                               const rung_tensor *const *bias, size_t parts, rung_store type, rung_err *err) {
    op_timer *t = timer_of(be);
    RUNG_TRY(t->base->linear_open(be, out, w, bias, parts, type, err));
    const rung_status st = add_layer(t, *out, w, parts, err);
    if (st) t->base->linear_close(be, out);
    return st;
}

static rung_status conv_open(rung_backend *be, rung_conv **out, const rung_tensor *w, const rung_tensor *bias,
                             rung_store type, rung_err *err) {
    op_timer *t = timer_of(be);
    RUNG_TRY(t->base->conv_open(be, out, w, bias, type, err));
    const rung_status st = add_layer(t, *out, &w, 1, err);
    if (st) t->base->conv_close(be, out);
    return st;
}

static void linear(rung_backend *be, float *y, const float *x, size_t x_row, size_t m, const rung_linear *l,
                   const rung_epilogue *ep) {
    op_timer *t = timer_of(be);
    const struct layer *layer = find_layer(t, l);
    const double start = bench_now();
    t->base->linear(be, y, x, x_row, m, l, ep);
    book(t, TIMED_LINEAR, start, layer ? 2.0 * (double)m * (double)layer->weights : 0);
}

static size_t out_side(size_t size, size_t enlarged, size_t pad, size_t kernel, size_t stride) {
    return ((enlarged ? enlarged : size) + pad - kernel) / stride + 1;
}

static void conv(rung_backend *be, float *y, const float *x, const rung_conv *c, const rung_conv_args *a,
                 const rung_epilogue *ep) {
    op_timer *t = timer_of(be);
    const struct layer *layer = find_layer(t, c);
    const size_t kernel = layer && layer->three ? 3 : 1;
    const size_t oh = out_side(a->h, a->uh, a->pad_top + a->pad_bottom, kernel, a->stride);
    const size_t ow = out_side(a->w, a->uw, a->pad_left + a->pad_right, kernel, a->stride);
    const double start = bench_now();
    t->base->conv(be, y, x, c, a, ep);
    book(t, kernel == 3 ? TIMED_CONV3 : TIMED_CONV, start,
         layer ? 2.0 * (double)(a->batch * oh * ow) * (double)layer->weights : 0);
}

static void attention(rung_backend *be, const rung_attention_args *a) {
    const double start = bench_now();
    timer_of(be)->base->attention(be, a);
    book(timer_of(be), TIMED_ATTENTION, start, 4.0 * (double)(a->batch * a->heads * a->d) * (double)(a->lq * a->lk));
}

static void layer_norm(rung_backend *be, float *y, const float *x, size_t rows, size_t n, const float *w,
                       const float *b, float eps, const float *mod_scale, const float *mod_shift, size_t mod_stride,
                       size_t rows_per_sample) {
    const double start = bench_now();
    timer_of(be)->base->layer_norm(be, y, x, rows, n, w, b, eps, mod_scale, mod_shift, mod_stride, rows_per_sample);
    book(timer_of(be), TIMED_NORM, start, 0);
}

static void rms_norm(rung_backend *be, float *y, const float *x, size_t rows, size_t n, const float *w, float eps) {
    const double start = bench_now();
    timer_of(be)->base->rms_norm(be, y, x, rows, n, w, eps);
    book(timer_of(be), TIMED_NORM, start, 0);
}

static void group_norm(rung_backend *be, float *y, const float *x, size_t batch, size_t pixels, size_t ch,
                       size_t groups, const float *w, const float *b, float eps, rung_act act) {
    const double start = bench_now();
    timer_of(be)->base->group_norm(be, y, x, batch, pixels, ch, groups, w, b, eps, act);
    book(timer_of(be), TIMED_NORM, start, 0);
}

static void group_norm_affine(rung_backend *be, float *scale, float *shift, const float *x, size_t batch, size_t pixels,
                              size_t ch, size_t groups, const float *w, const float *b, float eps) {
    const double start = bench_now();
    timer_of(be)->base->group_norm_affine(be, scale, shift, x, batch, pixels, ch, groups, w, b, eps);
    book(timer_of(be), TIMED_NORM, start, 0);
}

static void act(rung_backend *be, float *y, const float *x, size_t n, rung_act a) {
    const double start = bench_now();
    timer_of(be)->base->act(be, y, x, n, a);
    book(timer_of(be), TIMED_OTHER, start, 0);
}

static void add(rung_backend *be, float *y, const float *a, const float *b, size_t n) {
    const double start = bench_now();
    timer_of(be)->base->add(be, y, a, b, n);
    book(timer_of(be), TIMED_OTHER, start, 0);
}

static void copy2d(rung_backend *be, float *dst, size_t dst_row, const float *src, size_t src_row, size_t rows,
                   size_t n) {
    const double start = bench_now();
    timer_of(be)->base->copy2d(be, dst, dst_row, src, src_row, rows, n);
    book(timer_of(be), TIMED_OTHER, start, 0);
}

rung_status op_timer_open(op_timer **out, rung_backend *be, rung_err *err) {
    op_timer *t = *out = calloc(1, sizeof *t);
    if (!t) return rung_fail(err, RUNG_ENOMEM, "bench: out of memory");
    t->base = be->ops;
    t->ops = *be->ops;
    t->ops.linear_open = linear_open;
    t->ops.conv_open = conv_open;
    t->ops.linear = linear;
    t->ops.conv = conv;
    t->ops.attention = attention;
    t->ops.layer_norm = layer_norm;
    t->ops.rms_norm = rms_norm;
    t->ops.group_norm = group_norm;
    t->ops.group_norm_affine = group_norm_affine;
    t->ops.act = act;
    t->ops.add = add;
    t->ops.copy2d = copy2d;
    be->ops = &t->ops;
    return RUNG_OK;
}

void op_timer_close(op_timer **tp) {
    if (*tp) free((*tp)->layers);
    free(*tp);
    *tp = NULL;
}

void op_timer_reset(op_timer *t) {
    for (size_t i = 0; i < TIMED_KINDS; i++) t->sums[i] = (timed_sum){0};
}

const timed_sum *op_timer_sums(const op_timer *t) { return t->sums; }
