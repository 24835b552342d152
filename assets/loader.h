/* assets/loader.h - from named tensors to a network's layers. Every load_* checks the shape against what the config
 * implies and packs the tensor for the backend. The first failure sticks: later calls return NULL and do nothing, so a
 * network is loaded by one straight list of calls and one loader_finish(). */
#ifndef RUNG_LOADER_H
#define RUNG_LOADER_H
#include "assets/weights.h"
#include "kernels/backend.h"
#include "kernels/base/comm.h"

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
    int rank, ranks; /* 0 of 1 unless the caller says otherwise, for the load_part_* below */
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

/* ---- for networks that are cut over ranks ----
 * A pair of layers is cut along what lies between them: the first keeps some of its outputs, the second the same of its
 * inputs, and gives a partial sum. Only the part is read from the file. */

/** This rank's part of n elements, cut between whole units (heads, groups of a GroupNorm) at multiples of 4, where the
 *  groups of six-bit weights end. All n when there is one rank, or fewer such places than ranks: every rank then keeps
 *  the pair of layers whole, and nothing is summed. */
rung_share load_share(const rung_loader *l, size_t n, size_t unit);
/** Of n elements without a structure of their own (a feed-forward): units of 64, else 16, else 4. */
rung_share load_share_free(const rung_loader *l, size_t n);

/** `count` weights [n, k] as for load_linear_stack, of each the rows `part`; biases alike. */
const rung_linear *load_linear_stack_rows(rung_loader *l, size_t n, size_t k, rung_share part, load_bias bias,
                                          const char *prefix, const char *const *names, size_t count);
/** One weight [blocks * n, k], of each block the rows `part`: 2 blocks for GEGLU's values and gates. */
const rung_linear *load_linear_rows(rung_loader *l, size_t n, size_t k, size_t blocks, rung_share part,
                                    const char *name);
/** weight [n, k], of which the columns `part`; the bias is with rank 0 alone when something is cut. */
const rung_linear *load_linear_cols(rung_loader *l, size_t n, size_t k, rung_share part, const char *name);
/** The same for convolutions: output channels with their bias, input channels with a bias on rank 0. */
const rung_conv *load_conv_rows(rung_loader *l, size_t oc, size_t ic, size_t kh, size_t kw, rung_share part,
                                const char *name);
const rung_conv *load_conv_cols(rung_loader *l, size_t oc, size_t ic, size_t kh, size_t kw, rung_share part,
                                const char *name);
/** Elements `part` of a vector of n. */
const float *load_vector_part(rung_loader *l, size_t n, rung_share part, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

const rung_table *load_table(rung_loader *l, size_t rows, size_t n, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/** f32 in backend memory from numbers computed at load (position embeddings); NULL on failure. */
const float *load_computed(rung_loader *l, const float *host, size_t n);
/** Does the file have it? (Marks nothing.) Whole name. */
bool load_has(const rung_loader *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
#endif
