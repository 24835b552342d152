/* unet/attn_layer.h - one attention of a transformer block: projections, attention, output projection, residual. */
#ifndef RUNG_ATTN_LAYER_H
#define RUNG_ATTN_LAYER_H
#include "unet/network.h"

typedef struct {
    size_t width, head_dim;
    size_t own;                /* this rank's heads * head_dim; width: all of them, and nothing is summed */
    const rung_linear *qkv;    /* self-attention: [3 * own, width]; NULL: cross-attention */
    const rung_linear *q, *kv; /* cross-attention: [own, width], [2 * own, context] */
    const rung_linear *out;    /* [width, own], a partial sum when the heads are cut; bias with rank 0 */
    size_t kv_at;              /* cross-attention: its K/V start at floats kv_at * batch * n_ctx of network_run.kv */
} attn_layer;

/** `name` is the attention's, e.g. "transformer_blocks.0.attn1". */
void attn_load_self(attn_layer *a, rung_loader *l, size_t width, size_t heads, load_bias bias, const char *name);
/** *kv_width: sum of the K/V widths so far, in floats for each row of text. */
void attn_load_cross(attn_layer *a, rung_loader *l, size_t width, size_t heads, size_t context, load_bias bias,
                     const char *name, size_t *kv_width);

/** K and V of the text ctx f32 [batch * n_ctx, context], for all steps. Nothing for self-attention. */
void attn_prepare(const rung_exec *x, const attn_layer *a, const network_run *r, const float *ctx, size_t context);

/* Where an attention reads and writes: rows are [batch * tokens, width]. */
typedef struct {
    float *y;              /* may be `in` or `residual` */
    const float *in;       /* normalised stream */
    const float *residual; /* what the result is added to; NULL: nothing */
    size_t tokens;         /* of one picture */
    const float *gate;     /* f32 [batch, width], gate_stride apart; NULL: 1 */
    size_t gate_stride;
    bool masked; /* cross-attention: padding rows of the text are hidden */
} attn_io;

void attn_run(const rung_exec *x, const attn_layer *a, const network_run *r, const attn_io *io);
static inline bool attn_is_cut(const attn_layer *a) { return a->own != a->width; }

/** (1 - mask) * -10000 for each row of text, as diffusers turns masks into biases; *bias NULL without a mask. */
rung_status attn_key_bias(const rung_exec *x, const rung_denoiser_cond *c, float **bias, rung_err *err);
#endif
