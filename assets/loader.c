#include "assets/loader.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "assets/tensor_cut.h"
#include "kernels/base/size.h"

enum { NAME = 256, SHAPE = 100, MAX_STACK = 3 };

enum kind { LINEAR, CONV, TABLE, MEMORY };

struct layer {
    enum kind kind;
    union {
        rung_linear *linear;
        rung_conv *conv;
        rung_table *table;
        void *memory;
    };
};

struct rung_layers {
    rung_backend *be;
    struct layer *items;
    size_t count, cap;
};

void rung_layers_close(rung_layers **lp) {
    rung_layers *l = *lp;
    *lp = NULL;
    if (!l) return;
    for (size_t i = l->count; i-- > 0;) {
        struct layer *x = &l->items[i];
        switch (x->kind) {
        case LINEAR:
            l->be->ops->linear_close(l->be, &x->linear);
            break;
        case CONV:
            l->be->ops->conv_close(l->be, &x->conv);
            break;
        case TABLE:
            l->be->ops->table_close(l->be, &x->table);
            break;
        case MEMORY:
            l->be->ops->mem_free(l->be, x->memory);
            break;
        }
    }
    free(l->items);
    free(l);
}

rung_status loader_start(rung_loader *l, rung_weights *w, rung_backend *be, rung_store store, rung_err *err) {
    *l = (rung_loader){.weights = w, .be = be, .store = store, .err = err, .ranks = 1};
    l->layers = calloc(1, sizeof *l->layers);
    if (!l->layers) return l->status = rung_fail(err, RUNG_ENOMEM, "%s: out of memory", rung_weights_path(w));
    l->layers->be = be;
    return RUNG_OK;
}

rung_status loader_finish(rung_loader *l, rung_layers **out) {
    *out = NULL;
    if (!l->status) l->status = rung_weights_check_used(l->weights, l->err);
    if (l->status)
        rung_layers_close(&l->layers);
    else
        *out = l->layers;
    l->layers = NULL;
    return l->status;
}

/* Room for one more layer, taken before the layer is made so that it cannot be lost. NULL once something failed. */
static struct layer *new_layer(rung_loader *l, enum kind kind) {
    rung_layers *all = l->layers;
    if (l->status) return NULL;
    if (all->count == all->cap) {
        const size_t cap = all->cap ? 2 * all->cap : 64;
        struct layer *grown = realloc(all->items, cap * sizeof *grown);
        if (!grown) {
            l->status = rung_fail(l->err, RUNG_ENOMEM, "%s: out of memory", rung_weights_path(l->weights));
            return NULL;
        }
        all->items = grown;
        all->cap = cap;
    }
    all->items[all->count] = (struct layer){.kind = kind};
    return &all->items[all->count];
}

/* Keeps the layer when it could be made. */
static bool keep(rung_loader *l, rung_status st) {
    if (st)
        l->status = st;
    else
        l->layers->count++;
    return !st;
}

/* ---- finding and checking ---- */

static void name_too_long(rung_loader *l, const char *name) {
    if (!l->status) l->status = rung_fail(l->err, RUNG_EFORMAT, "tensor name is too long: %.100s...", name);
}

static void format(rung_loader *l, char name[NAME], const char *fmt, va_list ap) {
    const int n = vsnprintf(name, NAME, fmt, ap);
    if (n < 0 || n >= NAME) name_too_long(l, name);
}

static void join(rung_loader *l, char name[NAME], const char *a, const char *b) {
    if (snprintf(name, NAME, "%s%s", a, b) >= NAME) name_too_long(l, name);
}

/* A float tensor that must be there, or NULL with l->status set. */
static const rung_tensor *need(rung_loader *l, const char *name) {
    if (l->status) return NULL;
    const char *path = rung_weights_path(l->weights);
    const rung_tensor *t = rung_weights_find(l->weights, name);
    if (!t)
        l->status = rung_fail(l->err, RUNG_EFORMAT, "%s: tensor %s is missing", path, name);
    else if (!rung_dtype_is_float(t->dtype))
        l->status = rung_fail(l->err, RUNG_EFORMAT, "%s: tensor %s is %s, wanted floating-point numbers", path, name,
                              rung_dtype_name(t->dtype));
    return l->status ? NULL : t;
}

/* Is the shape `want`, up to trailing dimensions of 1? */
static bool has_shape(const rung_tensor *t, const size_t *want, int ndim) {
    for (int i = 0; i < ndim || i < t->ndim; i++)
        if ((i < t->ndim ? t->shape[i] : 1) != (i < ndim ? want[i] : 1)) return false;
    return t->ndim >= 1;
}

static const rung_tensor *need_shape(rung_loader *l, const char *name, const size_t *want, int ndim) {
    const rung_tensor *t = need(l, name);
    if (!t || has_shape(t, want, ndim)) return t;
    rung_tensor wanted = {.ndim = ndim};
    char found[SHAPE], text[SHAPE];
    for (int i = 0; i < ndim; i++) wanted.shape[i] = want[i];
    l->status =
        rung_fail(l->err, RUNG_ESHAPE, "%s: tensor %s is %s, wanted %s", rung_weights_path(l->weights), name,
                  rung_tensor_shape_text(t, found, sizeof found), rung_tensor_shape_text(&wanted, text, sizeof text));
    return NULL;
}

/* The layer has its own copy: the file's pages need not stay beside it. */
static void release(const rung_loader *l, const rung_tensor *t) {
    rung_weights_release(l->weights, t->data, rung_tensor_bytes(t));
}

/* The bias beside a weight, [n], or NULL: none wanted, none there, or failed. */
static const rung_tensor *find_bias(rung_loader *l, size_t n, load_bias bias, const char *stem) {
    char name[NAME];
    if (bias == LOAD_NO_BIAS || l->status) return NULL;
    join(l, name, stem, ".bias");
    if (bias == LOAD_BIAS_IF_PRESENT && !rung_weights_has(l->weights, name)) return NULL;
    return need_shape(l, name, &n, 1);
}

/* ---- layers ---- */

/* One weight matrix as two dimensions: linear_open flattens what follows the first anyway. */
static bool find_matrix(rung_loader *l, size_t n, size_t k, load_bias bias, const char *stem, rung_tensor *w,
                        const rung_tensor **b) {
    char name[NAME];
    join(l, name, stem, ".weight");
    const rung_tensor *t = need_shape(l, name, (const size_t[]){n, k}, 2);
    if (!t) return false;
    *w = *t;
    w->ndim = 2;
    w->shape[1] = k; /* [n] stands for [n, 1] */
    *b = find_bias(l, n, bias, stem);
    return !l->status;
}

static const rung_linear *open_linear(rung_loader *l, const rung_tensor *const *w, const rung_tensor *const *b,
                                      size_t parts) {
    struct layer *x = new_layer(l, LINEAR);
    if (!x || !keep(l, l->be->ops->linear_open(l->be, &x->linear, w, b, parts, l->store, l->err))) return NULL;
    for (size_t i = 0; i < parts; i++) release(l, w[i]);
    return x->linear;
}

const rung_linear *load_linear(rung_loader *l, size_t n, size_t k, load_bias bias, const char *fmt, ...) {
    char stem[NAME];
    rung_tensor w;
    const rung_tensor *b;
    va_list ap;
    va_start(ap, fmt);
    format(l, stem, fmt, ap);
    va_end(ap);
    if (!find_matrix(l, n, k, bias, stem, &w, &b)) return NULL;
    return open_linear(l, &(const rung_tensor *){&w}, &b, 1);
}

const rung_linear *load_linear_stack(rung_loader *l, size_t n, size_t k, load_bias bias, const char *prefix,
                                     const char *const *names, size_t count) {
    rung_tensor w[MAX_STACK];
    const rung_tensor *pw[MAX_STACK], *pb[MAX_STACK];
    char stem[NAME];
    for (size_t i = 0; i < count; i++) {
        join(l, stem, prefix, names[i]);
        if (!find_matrix(l, n, k, bias, stem, &w[i], &pb[i])) return NULL;
        pw[i] = &w[i];
    }
    return open_linear(l, pw, pb, count);
}

static const rung_tensor *find_conv(rung_loader *l, size_t oc, size_t ic, size_t kh, size_t kw, const char *stem,
                                    rung_tensor *w) {
    char name[NAME];
    join(l, name, stem, ".weight");
    const rung_tensor *t = need_shape(l, name, (const size_t[]){oc, ic, kh, kw}, 4);
    if (!t) return NULL;
    *w = *t; /* a 1x1 convolution may be stored as a matrix */
    w->ndim = 4;
    for (int i = t->ndim; i < 4; i++) w->shape[i] = 1;
    return w;
}

static const rung_conv *keep_conv(rung_loader *l, const rung_tensor *w, const rung_tensor *b) {
    struct layer *x = new_layer(l, CONV);
    if (!x || !keep(l, l->be->ops->conv_open(l->be, &x->conv, w, b, l->store, l->err))) return NULL;
    release(l, w);
    return x->conv;
}

static const rung_conv *open_conv(rung_loader *l, size_t oc, size_t ic, size_t kh, size_t kw, load_bias bias,
                                  const char *stem) {
    rung_tensor w;
    const rung_tensor *found = find_conv(l, oc, ic, kh, kw, stem, &w), *b = find_bias(l, oc, bias, stem);
    return found ? keep_conv(l, found, b) : NULL;
}

const rung_conv *load_conv(rung_loader *l, size_t oc, size_t ic, size_t kh, size_t kw, const char *fmt, ...) {
    char stem[NAME];
    va_list ap;
    va_start(ap, fmt);
    format(l, stem, fmt, ap);
    va_end(ap);
    return open_conv(l, oc, ic, kh, kw, LOAD_BIAS, stem);
}

const rung_conv *load_conv_no_bias(rung_loader *l, size_t oc, size_t ic, size_t kh, size_t kw, const char *fmt, ...) {
    char stem[NAME];
    va_list ap;
    va_start(ap, fmt);
    format(l, stem, fmt, ap);
    va_end(ap);
    return open_conv(l, oc, ic, kh, kw, LOAD_NO_BIAS, stem);
}

const float *load_computed(rung_loader *l, const float *host, size_t n) {
    struct layer *x = new_layer(l, MEMORY);
    if (!x || !keep(l, l->be->ops->mem_alloc(l->be, &x->memory, n * sizeof *host, l->err))) return NULL;
    l->be->ops->upload(l->be, x->memory, host, n * sizeof *host);
    return x->memory;
}

static const float *open_vector(rung_loader *l, size_t n, rung_share part, const char *name) {
    char shape[SHAPE];
    const rung_tensor *t = need(l, name);
    if (!t) return NULL;
    if (rung_tensor_count(t) != n) {
        l->status = rung_fail(l->err, RUNG_ESHAPE, "%s: tensor %s is %s, wanted %zu numbers",
                              rung_weights_path(l->weights), name, rung_tensor_shape_text(t, shape, sizeof shape), n);
        return NULL;
    }
    float *host = malloc(size_max(part.count, 1) * sizeof *host);
    if (!host) {
        l->status = rung_fail(l->err, RUNG_ENOMEM, "%s: no memory for tensor %s", rung_weights_path(l->weights), name);
        return NULL;
    }
    l->status = rung_tensor_to_f32(t, part.first, part.count, host, l->err);
    const float *out = load_computed(l, host, part.count);
    free(host);
    return out;
}

const float *load_vector(rung_loader *l, size_t n, const char *fmt, ...) {
    char name[NAME];
    va_list ap;
    va_start(ap, fmt);
    format(l, name, fmt, ap);
    va_end(ap);
    return open_vector(l, n, (rung_share){0, n}, name);
}

const float *load_vector_part(rung_loader *l, size_t n, rung_share part, const char *fmt, ...) {
    char name[NAME];
    va_list ap;
    va_start(ap, fmt);
    format(l, name, fmt, ap);
    va_end(ap);
    return open_vector(l, n, part, name);
}

/* ---- parts of layers ---- */

rung_share load_share(const rung_loader *l, size_t n, size_t unit) {
    while (unit % 4) unit *= 2;
    if (n % unit || n / unit < (size_t)l->ranks) return (rung_share){0, n};
    return rung_share_of(n / unit, unit, l->rank, l->ranks);
}

rung_share load_share_free(const rung_loader *l, size_t n) {
    static const size_t units[] = {64, 16, 4};
    size_t i = 0;
    while (i < 2 && (n % units[i] || n / units[i] < (size_t)l->ranks)) i++;
    return load_share(l, n, units[i]);
}

static bool rows_of(rung_loader *l, const rung_tensor *t, rung_share part, rung_tensor *out, const char *stem) {
    if (l->status) return false;
    if (tensor_rows(t, part, out)) return true;
    l->status = rung_fail(l->err, RUNG_ESHAPE, "%s: rows %zu to %zu of %s do not begin and end on whole bytes",
                          rung_weights_path(l->weights), part.first, part.first + part.count, stem);
    return false;
}

/* Rows of a weight and of its bias. */
static bool part_rows(rung_loader *l, const rung_tensor *w, const rung_tensor *b, rung_share part, rung_tensor out[2],
                      const char *stem) {
    return rows_of(l, w, part, &out[0], stem) && (!b || rows_of(l, b, part, &out[1], stem));
}

const rung_linear *load_linear_stack_rows(rung_loader *l, size_t n, size_t k, rung_share part, load_bias bias,
                                          const char *prefix, const char *const *names, size_t count) {
    rung_tensor parts[MAX_STACK][2];
    const rung_tensor *pw[MAX_STACK], *pb[MAX_STACK];
    char stem[NAME];
    for (size_t i = 0; i < count; i++) {
        rung_tensor w;
        const rung_tensor *b;
        join(l, stem, prefix, names[i]);
        if (!find_matrix(l, n, k, bias, stem, &w, &b) || !part_rows(l, &w, b, part, parts[i], stem)) return NULL;
        pw[i] = &parts[i][0];
        pb[i] = b ? &parts[i][1] : NULL;
    }
    return open_linear(l, pw, pb, count);
}

const rung_linear *load_linear_rows(rung_loader *l, size_t n, size_t k, size_t blocks, rung_share part,
                                    const char *name) {
    rung_tensor w, parts[MAX_STACK][2];
    const rung_tensor *b, *pw[MAX_STACK], *pb[MAX_STACK];
    if (!find_matrix(l, blocks * n, k, LOAD_BIAS, name, &w, &b)) return NULL;
    if (part.count == n) return open_linear(l, &(const rung_tensor *){&w}, &b, 1);
    for (size_t i = 0; i < blocks; i++) {
        if (!part_rows(l, &w, b, (rung_share){i * n + part.first, part.count}, parts[i], name)) return NULL;
        pw[i] = &parts[i][0];
        pb[i] = &parts[i][1];
    }
    return open_linear(l, pw, pb, blocks);
}

/* Columns of w, copied out of the file, whose pages then may go. False with l->status set. */
static bool cols_of(rung_loader *l, const rung_tensor *w, rung_share part, rung_tensor *out, void **owned) {
    if (l->status) return false;
    l->status = tensor_cols(w, part, l->store == RUNG_STORE_FP6, out, owned, l->err);
    rung_weights_release(l->weights, w->data, rung_tensor_bytes(w));
    return !l->status;
}

const rung_linear *load_linear_cols(rung_loader *l, size_t n, size_t k, rung_share part, const char *name) {
    rung_tensor w, own;
    const rung_tensor *b;
    void *owned = NULL;
    if (!find_matrix(l, n, k, LOAD_BIAS, name, &w, &b)) return NULL;
    if (part.count == k) return open_linear(l, &(const rung_tensor *){&w}, &b, 1);
    if (l->rank) b = NULL;
    const rung_linear *out =
        cols_of(l, &w, part, &own, &owned) ? open_linear(l, &(const rung_tensor *){&own}, &b, 1) : NULL;
    free(owned);
    return out;
}

const rung_conv *load_conv_rows(rung_loader *l, size_t oc, size_t ic, size_t kh, size_t kw, rung_share part,
                                const char *name) {
    rung_tensor w, parts[2];
    const rung_tensor *found = find_conv(l, oc, ic, kh, kw, name, &w), *b = find_bias(l, oc, LOAD_BIAS, name);
    if (!found || !part_rows(l, found, b, part, parts, name)) return NULL;
    return keep_conv(l, &parts[0], b ? &parts[1] : NULL);
}

const rung_conv *load_conv_cols(rung_loader *l, size_t oc, size_t ic, size_t kh, size_t kw, rung_share part,
                                const char *name) {
    rung_tensor w, own;
    const rung_tensor *found = find_conv(l, oc, ic, kh, kw, name, &w), *b = find_bias(l, oc, LOAD_BIAS, name);
    void *owned = NULL;
    if (!found) return NULL;
    if (part.count == ic) return keep_conv(l, found, b);
    const rung_conv *out = cols_of(l, found, part, &own, &owned) ? keep_conv(l, &own, l->rank ? NULL : b) : NULL;
    free(owned);
    return out;
}

const rung_table *load_table(rung_loader *l, size_t rows, size_t n, const char *fmt, ...) {
    char name[NAME];
    va_list ap;
    va_start(ap, fmt);
    format(l, name, fmt, ap);
    va_end(ap);
    const rung_tensor *t = need_shape(l, name, (const size_t[]){rows, n}, 2);
    struct layer *x = new_layer(l, TABLE);
    if (!x || !keep(l, l->be->ops->table_open(l->be, &x->table, t, l->err))) return NULL;
    return x->table;
}

bool load_has(const rung_loader *l, const char *fmt, ...) {
    char name[NAME];
    va_list ap;
    va_start(ap, fmt);
    const int n = vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    return n >= 0 && n < NAME && rung_weights_has(l->weights, name);
}
