/* kernels/backend.h - the arithmetic that the networks are written in: one table of operations, filled for the CPU
 * (kernels/cpu/) and for CUDA (kernels/cuda/). Networks call the op_* functions of kernels/ops.h and know no device.
 *
 * Activations are f32, tokens or pixels first: [rows, channels], images [batch, h, w, channels] (NHWC). Their memory
 * comes from the arena of a rung_exec, which is device memory under CUDA. Weights are packed once at load, by the
 * backend, in the layout that its kernels want, and keep the number of bits that they are stored in.
 */
#ifndef RUNG_BACKEND_H
#define RUNG_BACKEND_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/arena.h"
#include "kernels/base/comm.h"
#include "kernels/base/err.h"
#include "kernels/base/pool.h"
#include "kernels/base/tensor.h"

typedef struct rung_backend rung_backend;     /* one device: a CPU with its threads, or one GPU with its stream */
typedef struct rung_linear rung_linear;       /* packed weight [n, k] and bias [n]; opaque, each backend has its own */
typedef struct rung_conv rung_conv;           /* packed convolution weight and bias */
typedef struct rung_table rung_table;         /* rows to look up: token and position embeddings */
typedef struct rung_recording rung_recording; /* a step to play back; see step_begin */

/* What weights are kept as. STORED keeps a 16- or 6-bit tensor as it is (8-bit floats become F16, F64 becomes F32). */
typedef enum { RUNG_STORE_STORED, RUNG_STORE_F32, RUNG_STORE_F16, RUNG_STORE_BF16, RUNG_STORE_FP6 } rung_store;

typedef enum {
    RUNG_ACT_NONE,
    RUNG_ACT_RELU,
    RUNG_ACT_SILU,       /* x * sigmoid(x) */
    RUNG_ACT_GELU,       /* exact: x * (1 + erf(x / sqrt 2)) / 2 */
    RUNG_ACT_GELU_TANH,  /* the tanh form */
    RUNG_ACT_QUICK_GELU, /* x * sigmoid(1.702 x) */
    RUNG_ACT_GEGLU,      /* n is halved: y[:, j] = v[:, j] * gelu_exact(v[:, n/2 + j]); linear only */
} rung_act;

/**
 * What happens to an accumulator v of row r, column c before it is stored; s = r / rows_per_sample:
 *   v += bias[c] (the layer's own);  v += sample_add[s * sample_add_stride + c];  v = act(v);
 *   v *= gate[s * gate_stride + c];  v += residual[r, c];  v *= out_scale;  y[r, c] = v
 * NULL pointers and a zeroed struct leave their step out (out_scale 0 means 1).
 */
typedef struct {
    const float *sample_add; /* f32 [samples, n], a time embedding for each picture */
    size_t sample_add_stride;
    rung_act act;
    const float *gate; /* f32 [samples, n], adaLN's gate */
    size_t gate_stride;
    const float *residual; /* f32 [m, n] contiguous; may be y */
    float out_scale;
    size_t rows_per_sample; /* needed with sample_add or gate; rows of one picture */
} rung_epilogue;

/* A convolution over x [batch, h, w, ic]. Output [batch, oh, ow, oc], oh = (uh + pad_top + pad_bottom - kh) / stride +
 * 1 where uh x uw is the input after the optional nearest-neighbour enlargement. */
typedef struct {
    size_t batch, h, w;
    size_t uh, uw; /* 0, 0: no enlargement; else x is read as if resized (nearest, source = floor(i * h / uh)) */
    size_t stride; /* 1 or 2 ... */
    size_t pad_top, pad_left, pad_bottom, pad_right;
    /* Fused input side, the GroupNorm that precedes a convolution: x is read as act(x * in_scale + in_shift), and the
     * padding stays 0. f32 [batch, ic] each, or both NULL. */
    const float *in_scale, *in_shift;
    rung_act in_act; /* NONE or SILU; only with in_scale */
} rung_conv_args;

/**
 * o = softmax(scale * q k^T + key_bias + pair_bias) v for each of batch x heads; f32, strides in floats.
 * q [batch, lq, heads, d]: element (b, i, h, c) at q[b * q_batch + i * q_row + h * d + c]; k, v with lk rows; o as q.
 * So q, k and v may lie inside one fused projection. key_bias f32 [batch, lk] (a mask: 0 or -INFINITY); pair_bias f32
 * [heads, lq, lk], shared by the batch; causal: key j > query i is masked. A query with every key masked gives 0.
 * Memory O(lq + lk). Source: seeds' DS4Sci_EvoformerAttention contract; Milakov & Gimelshein 2018 (online softmax).
 */
typedef struct {
    size_t batch, heads, d, lq, lk;
    const float *q, *k, *v;
    float *o;
    size_t q_row, k_row, v_row, o_row;         /* floats between neighbouring tokens */
    size_t q_batch, k_batch, v_batch, o_batch; /* floats between pictures; 0 shares one k, v */
    float scale;
    const float *key_bias, *pair_bias;
    bool causal;
} rung_attention_args;

/* One array of a sum: w * x. */
typedef struct {
    float w;
    const float *x;
} rung_term;
enum { RUNG_MOST_TERMS = 8 };

/* The operations. Shapes are the caller's promise: nothing here looks at a file. A CPU operation cannot fail; a device
 * that fails keeps its first error, ignores what follows and reports it at sync. */
typedef struct rung_backend_ops {
    const char *name;
    bool on_device; /* its memory is not the host's, its work is done by sync at the latest */
    void (*close)(rung_backend *be);
    rung_status (*sync)(rung_backend *be, rung_err *err); /* all queued work is done; the first device error */

    rung_status (*mem_alloc)(rung_backend *be, void **out, size_t bytes, rung_err *err); /* 64-byte aligned */
    void (*mem_free)(rung_backend *be, void *p);
    void (*upload)(rung_backend *be, void *dst, const void *host_src, size_t bytes);   /* host_src is free on return */
    void (*download)(rung_backend *be, void *host_dst, const void *src, size_t bytes); /* complete after sync */

    /* A step that is made again and again with the same shapes: a device may record what is queued between step_begin
     * and step_end and play it back as one (a CUDA graph). The operations are called all the same, so that what the
     * host computes and uploads is up to date; only uploads and downloads reach the device then. *rec is the caller's,
     * NULL at first, and ended by recording_close. After step_end gives true nothing was computed: what was recorded
     * did not fit, and the step has to be made again. All NULL where a backend has nothing to record. */
    void (*step_begin)(rung_backend *be, rung_recording **rec);
    bool (*step_end)(rung_backend *be, rung_recording *rec);
    void (*recording_close)(rung_backend *be, rung_recording **rec);

    /* Weights. `parts` tensors [n_i, k] are stacked along the rows (fused q, k, v): each of 2 dims, or more dims that
     * are flattened after the first. bias: NULL, or `parts` pointers to f-dtype [n_i] tensors, each may be NULL. */
    rung_status (*linear_open)(rung_backend *be, rung_linear **out, const rung_tensor *const *w,
                               const rung_tensor *const *bias, size_t parts, rung_store type, rung_err *err);
    void (*linear_close)(rung_backend *be, rung_linear **l);
    rung_status (*conv_open)(rung_backend *be, rung_conv **out, const rung_tensor *w, const rung_tensor *bias,
                             rung_store type, rung_err *err); /* w [oc, ic, kh, kw] */
    void (*conv_close)(rung_backend *be, rung_conv **c);
    rung_status (*table_open)(rung_backend *be, rung_table **out, const rung_tensor *t, rung_err *err); /* borrows t */
    void (*table_close)(rung_backend *be, rung_table **t);

    /* y f32 [m, n] (n/2 for GEGLU); x f32 [m, k], rows x_row floats apart. y and x do not overlap. ep may be NULL. */
    void (*linear)(rung_backend *be, float *y, const float *x, size_t x_row, size_t m, const rung_linear *l,
                   const rung_epilogue *ep);
    /* y f32 [batch, oh, ow, oc]; rows of the epilogue are pixels. y and x do not overlap. A NaN or an infinity in x
     * reaches every pixel whose patch holds it; with Winograd also, as NaN, others of its tiles, up to 6 pixels away.
     */
    void (*conv)(rung_backend *be, float *y, const float *x, const rung_conv *c, const rung_conv_args *a,
                 const rung_epilogue *ep);
    void (*attention)(rung_backend *be, const rung_attention_args *a);

    /* y = (x - mean) / sqrt(var + eps) over each row of n, then * w + b (NULL: 1, 0), then * (1 + mod_scale) +
     * mod_shift of the row's sample (both NULL: none; f32 [samples, n], mod_stride floats apart). y == x allowed. In
     * all normalisations what is 1e19 or farther from the mean may count as infinite. */
    void (*layer_norm)(rung_backend *be, float *y, const float *x, size_t rows, size_t n, const float *w,
                       const float *b, float eps, const float *mod_scale, const float *mod_shift, size_t mod_stride,
                       size_t rows_per_sample);
    /* y[r, c] = x[r, c] * w[c] / sqrt(mean(x[r]^2) + eps). */
    void (*rms_norm)(rung_backend *be, float *y, const float *x, size_t rows, size_t n, const float *w, float eps);
    /* x [batch, pixels, ch]; statistics over each group of ch / groups channels of a picture; y = act(norm * w + b);
     * act NONE or SILU; y == x allowed. */
    void (*group_norm)(rung_backend *be, float *y, const float *x, size_t batch, size_t pixels, size_t ch,
                       size_t groups, const float *w, const float *b, float eps, rung_act act);
    /* The same statistics as the affine that a convolution applies on load: scale, shift f32 [batch, ch]. */
    void (*group_norm_affine)(rung_backend *be, float *scale, float *shift, const float *x, size_t batch, size_t pixels,
                              size_t ch, size_t groups, const float *w, const float *b, float eps);

    void (*act)(rung_backend *be, float *y, const float *x, size_t n, rung_act act);   /* not GEGLU; y == x allowed */
    void (*add)(rung_backend *be, float *y, const float *a, const float *b, size_t n); /* y may be a or b */
    /* y[r, c] = x[r, c] + row[r % rows_row][c]: position embeddings and tables; y == x allowed */
    void (*add_rows)(rung_backend *be, float *y, const float *x, const float *row, size_t rows, size_t rows_row,
                     size_t n);
    void (*copy2d)(rung_backend *be, float *dst, size_t dst_row, const float *src, size_t src_row, size_t rows,
                   size_t n); /* strided rows: channel concatenation, batch interleaving */
    /* y [rows, n] = table[ids[r]]; ids on the host, each < the table's rows (the caller has checked). */
    void (*lookup)(rung_backend *be, float *y, const rung_table *t, const int32_t *ids, size_t rows);
    /* [batch, gh * gw, p * p * ch] tokens (py, px, ch order) -> [batch, gh * p, gw * p, ch] */
    void (*unpatchify)(rung_backend *be, float *y, const float *x, size_t batch, size_t gh, size_t gw, size_t p,
                       size_t ch);

    /* y [rows, dim], a timestep embedding: with half = dim / 2 and w_j = 10000^(-j / (half - shift)), sin(t w_j) in the
     * first half and cos(t w_j) in the second, with flip the other way round; 0 behind them when dim is odd. t f32
     * [rows] in the backend's memory. Source: Ho et al. 2020; diffusers get_timestep_embedding. */
    void (*sinusoids)(rung_backend *be, float *y, const float *t, size_t rows, size_t dim, bool flip, double shift);
    /* y[i] = (the sum of w * x[i] over 1 to RUNG_MOST_TERMS terms, in their order) / over: a sampler's update. y may be
     * one of the x. */
    void (*combine)(rung_backend *be, float *y, const rung_term *terms, size_t count, float over, size_t n);
    /* y [n]: standard normal numbers, torch's CUDA generator of this seed at its call number `offset`
     * (kernels/base/rng.h). */
    void (*normal)(rung_backend *be, float *y, size_t n, uint64_t seed, uint64_t offset);
} rung_backend_ops;

struct rung_backend {
    const rung_backend_ops *ops;
};

/** The CPU. Borrows the pool. `cpu`: features to use (rung_cpu_detect() & a mask). */
rung_status rung_cpu_backend_open(rung_backend **out, rung_pool *pool, unsigned cpu, rung_err *err);

/** exact: no Winograd, every convolution sums as its definition does; some three times as slow. `be` is a CPU's. Off
 * at first. */
void rung_cpu_backend_exact(rung_backend *be, bool exact);

static inline void rung_backend_close(rung_backend **be) {
    if (*be) (*be)->ops->close(*be);
    *be = NULL;
}

/* One computation under way: where it runs and where its scratch comes from. A dry run has arena->base == NULL. */
typedef struct {
    rung_backend *be;
    rung_arena *arena;
    rung_comm *comm; /* NULL: one rank computes alone */
} rung_exec;

/** An arena in the backend's memory, and its end. */
rung_status rung_arena_open(rung_arena *a, rung_backend *be, size_t bytes, rung_err *err);
void rung_arena_close(rung_arena *a, rung_backend *be);
#endif
