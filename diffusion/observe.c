#define _POSIX_C_SOURCE 200809L /* strdup */
#include "diffusion/observe.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/size.h"

/* What is known of one layer; the tensors of a stack share their input. */
struct layer {
    const void *key; /* the rung_linear or rung_conv; NULL once it is closed */
    size_t inputs, channels, kh, kw;
    double *sum; /* [inputs] */
    uint64_t rows;
};

struct weight {
    char *name;
    size_t layer;
};

struct observer {
    rung_backend_ops ops; /* first: be->ops points here, so that the operations find their observer */
    const rung_backend_ops *base;
    rung_backend *be;
    struct layer *layers;
    struct weight *weights;
    size_t n_layers, n_weights, last; /* last: the layer that ran last, whose successor is the likely next */
    float *squares;                   /* of one picture, [h * w, channels] */
    size_t squares_cap;
    bool failed; /* no memory */
};

static observer *observer_of(const rung_backend *be) { return (observer *)be->ops; }

/* ---- layers come and go ---- */

static bool add_weight(observer *o, const char *name) {
    struct weight *grown = realloc(o->weights, (o->n_weights + 1) * sizeof *grown);
    if (!grown) return false;
    o->weights = grown;
    char *copy = strdup(name ? name : "");
    if (!copy) return false;
    o->weights[o->n_weights++] = (struct weight){copy, o->n_layers - 1};
    return true;
}

static bool add_layer(observer *o, const void *key, const rung_tensor *const *w, size_t parts) {
    struct layer *grown = realloc(o->layers, (o->n_layers + 1) * sizeof *grown);
    if (!grown) return false;
    o->layers = grown;
    const rung_tensor *t = w[0];
    struct layer l = {.key = key, .inputs = rung_tensor_row(t), .kh = 1, .kw = 1};
    if (t->ndim == 4) {
        l.kh = t->shape[2];
        l.kw = t->shape[3];
    }
    l.channels = l.inputs / (l.kh * l.kw);
    l.sum = calloc(l.inputs, sizeof *l.sum);
    if (!l.sum) return false;
    o->layers[o->n_layers++] = l;
    for (size_t i = 0; i < parts; i++)
        if (!add_weight(o, w[i]->name)) return false;
    return true;
}

static rung_status open_linear(rung_backend *be, rung_linear **out, const rung_tensor *const *w,
                               const rung_tensor *const *bias, size_t parts, rung_store type, rung_err *err) {
    observer *o = observer_of(be);
    RUNG_TRY(o->base->linear_open(be, out, w, bias, parts, type, err));
    if (!add_layer(o, *out, w, parts)) o->failed = true;
    return RUNG_OK;
}

static rung_status open_conv(rung_backend *be, rung_conv **out, const rung_tensor *w, const rung_tensor *bias,
                             rung_store type, rung_err *err) {
    observer *o = observer_of(be);
    RUNG_TRY(o->base->conv_open(be, out, w, bias, type, err));
    if (!add_layer(o, *out, &w, 1)) o->failed = true;
    return RUNG_OK;
}

/* The layer of that key, NULL when there is none. */
static struct layer *find(observer *o, const void *key) {
    for (size_t i = 1; i <= o->n_layers; i++) {
        const size_t at = (o->last + i) % o->n_layers;
        if (o->layers[at].key != key) continue;
        o->last = at;
        return &o->layers[at];
    }
    o->failed = true;
    return NULL;
}

/* The address may be used again for another layer. */
static void forget(observer *o, const void *key) {
    struct layer *l = key && o->n_layers ? find(o, key) : NULL;
    if (l) l->key = NULL;
}

static void close_linear(rung_backend *be, rung_linear **l) {
    observer *o = observer_of(be);
    forget(o, *l);
    o->base->linear_close(be, l);
}

static void close_conv(rung_backend *be, rung_conv **c) {
    observer *o = observer_of(be);
    forget(o, *c);
    o->base->conv_close(be, c);
}

/* ---- what goes in ---- */

static void observe_linear(rung_backend *be, float *y, const float *x, size_t x_row, size_t m, const rung_linear *l,
                           const rung_epilogue *ep) {
    observer *o = observer_of(be);
    struct layer *layer = find(o, l);
    for (size_t r = 0; layer && r < m; r++)
        for (size_t c = 0; c < layer->inputs; c++) layer->sum[c] += (double)x[r * x_row + c] * x[r * x_row + c];
    if (layer) layer->rows += m;
    o->base->linear(be, y, x, x_row, m, l, ep);
}

/* Squares of what the convolution sees of picture b: after the GroupNorm that is folded into it. */
static bool square_picture(observer *o, const struct layer *l, const float *x, const rung_conv_args *a, size_t b) {
    const size_t n = a->h * a->w * l->channels, ch = l->channels;
    if (n > o->squares_cap) {
        float *grown = realloc(o->squares, n * sizeof *grown);
        if (!grown) return false;
        o->squares = grown;
        o->squares_cap = n;
    }
    x += b * n;
    for (size_t i = 0; i < n; i++) {
        float v = x[i];
        if (a->in_scale) v = v * a->in_scale[b * ch + i % ch] + a->in_shift[b * ch + i % ch];
        if (a->in_scale && a->in_act == RUNG_ACT_SILU) v = v / (1 + expf(-v));
        o->squares[i] = v * v;
    }
    return true;
}

/* One tap over all output pixels; what lies in the padding is 0. */
static void add_tap(const observer *o, struct layer *l, const rung_conv_args *a, size_t ky, size_t kx) {
    const size_t uh = a->uh ? a->uh : a->h, uw = a->uw ? a->uw : a->w, ch = l->channels;
    const size_t oh = (uh + a->pad_top + a->pad_bottom - l->kh) / a->stride + 1;
    const size_t ow = (uw + a->pad_left + a->pad_right - l->kw) / a->stride + 1;
    double *sum = l->sum + ky * l->kw + kx;
    for (size_t oy = 0; oy < oh; oy++) {
        const size_t y = oy * a->stride + ky - a->pad_top; /* wraps above the picture: larger than uh */
        for (size_t ox = 0; y < uh && ox < ow; ox++) {
            const size_t x = ox * a->stride + kx - a->pad_left;
            if (x >= uw) continue;
            const float *sq = o->squares + (y * a->h / uh * a->w + x * a->w / uw) * ch;
            for (size_t c = 0; c < ch; c++) sum[c * l->kh * l->kw] += sq[c];
        }
    }
    if (ky == 0 && kx == 0) l->rows += oh * ow;
}

static void observe_conv(rung_backend *be, float *y, const float *x, const rung_conv *c, const rung_conv_args *a,
                         const rung_epilogue *ep) {
    observer *o = observer_of(be);
    struct layer *l = find(o, c);
    for (size_t b = 0; l && b < a->batch; b++) {
        if (!square_picture(o, l, x, a, b)) {
            o->failed = true;
            break;
        }
        for (size_t ky = 0; ky < l->kh; ky++)
            for (size_t kx = 0; kx < l->kw; kx++) add_tap(o, l, a, ky, kx);
    }
    o->base->conv(be, y, x, c, a, ep);
}

/* ---- the observer ---- */

static void close_backend(rung_backend *be) {
    observer *o = observer_of(be);
    o->be = NULL;
    be->ops = o->base;
    be->ops->close(be);
}

rung_status observer_open(observer **out, rung_backend *be, rung_err *err) {
    *out = NULL;
    if (strcmp(be->ops->name, "cpu") != 0)
        return rung_fail(err, RUNG_EDEVICE, "backend %s: activations are observed on the CPU only", be->ops->name);
    observer *o = calloc(1, sizeof *o);
    if (!o) return rung_fail(err, RUNG_ENOMEM, "observer: out of memory");
    o->be = be;
    o->base = be->ops;
    o->ops = *be->ops;
    o->ops.close = close_backend;
    o->ops.linear_open = open_linear;
    o->ops.conv_open = open_conv;
    o->ops.linear_close = close_linear;
    o->ops.conv_close = close_conv;
    o->ops.linear = observe_linear;
    o->ops.conv = observe_conv;
    be->ops = &o->ops;
    *out = o;
    return RUNG_OK;
}

void observer_close(observer **op) {
    observer *o = *op;
    *op = NULL;
    if (!o) return;
    if (o->be) o->be->ops = o->base;
    for (size_t i = 0; i < o->n_layers; i++) free(o->layers[i].sum);
    for (size_t i = 0; i < o->n_weights; i++) free(o->weights[i].name);
    free(o->layers);
    free(o->weights);
    free(o->squares);
    free(o);
}

size_t observer_count(const observer *o) { return o->n_weights; }

observed_weight observer_get(const observer *o, size_t i) {
    const struct layer *l = &o->layers[o->weights[i].layer];
    return (observed_weight){o->weights[i].name, l->inputs, l->sum, l->rows};
}

rung_status observer_check(const observer *o, rung_err *err) {
    return o->failed ? rung_fail(err, RUNG_ENOMEM, "no memory to observe every layer") : RUNG_OK;
}
