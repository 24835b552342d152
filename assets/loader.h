/* assets/loader.h - from named tensors to a network's layers. Every load_* checks the shape against what the config
 * implies and packs the tensor for the backend. The first failure sticks: later calls return NULL and do nothing, so a
 * network is loaded by one straight list of calls and one loader_finish(). */
#ifndef RUNG_LOADER_H
#define RUNG_LOADER_H
#include "assets/weights.h"
#include "kernels/backend.h"

/* Owns every layer that was loaded into it. */
typedef struct rung_layers rung_layers;
void rung_layers_close(rung_layers **l); /* NULL and *l == NULL are fine */

typedef struct {
    rung_weights *weights;
    rung_backend *be;
    rung_store store;
    rung_layers *layers; /* made by loader_start */
    rung_err *err;
    rung_status status;
} rung_loader;

rung_status loader_start(rung_loader *l, rung_weights *w, rung_backend *be, rung_store store, rung_err *err);
/** Surplus tensors are an error. On success *out owns the layers; on failure everything is released. */
rung_status loader_finish(rung_loader *l, rung_layers **out);

typedef enum { LOAD_NO_BIAS, LOAD_BIAS, LOAD_BIAS_IF_PRESENT } load_bias;

/* Names are printf formats without the ".weight" / ".bias" ending. RUNG_EFORMAT: missing; RUNG_ESHAPE: misshapen. */

/** weight [n, k] (trailing dimensions of 1 are fine: a 1x1 convolution). */
const rung_linear *load_linear(rung_loader *l, size_t n, size_t k, load_bias bias, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
/** Up to 3 weights [n, k] each, stacked along n. Names are prefix + names[i]: "....attn1." and {"to_q", ...}. */
const rung_linear *load_linear_stack(rung_loader *l, size_t n, size_t k, load_bias bias, const char *prefix,
                                     const char *const *names, size_t count);
/** weight [oc, ic, kh, kw] and bias [oc]; the second one: no bias. */
const rung_conv *load_conv(rung_loader *l, size_t oc, size_t ic, size_t kh, size_t kw, const char *fmt, ...)
    __attribute__((format(printf, 6, 7)));
const rung_conv *load_conv_no_bias(rung_loader *l, size_t oc, size_t ic, size_t kh, size_t kw, const char *fmt, ...)
    __attribute__((format(printf, 6, 7)));
/** A whole tensor as f32 in backend memory; here the name is complete. `n` elements, any number of dimensions. */
const float *load_vector(rung_loader *l, size_t n, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
const rung_table *load_table(rung_loader *l, size_t rows, size_t n, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/** f32 in backend memory from numbers computed at load (position embeddings); NULL on failure. */
const float *load_computed(rung_loader *l, const float *host, size_t n);
/** Does the file have it? (Marks nothing.) Whole name. */
bool load_has(const rung_loader *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
#endif
