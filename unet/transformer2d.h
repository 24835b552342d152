/* unet/transformer2d.h - the U-Net's spatial transformer: diffusers Transformer2DModel over pixels, with blocks of
 * self-attention, cross-attention and a GEGLU feed-forward (BasicTransformerBlock, norm_type layer_norm). */
#ifndef RUNG_TRANSFORMER2D_H
#define RUNG_TRANSFORMER2D_H
#include "unet/attn_layer.h"
#include "unet/resblock.h"

typedef struct {
    const float *norm_w[3], *norm_b[3];
    attn_layer attn1, attn2; /* attn1 reads the text too under only_cross_attention */
    size_t ff_own;           /* this rank's columns of the 4 * width between the two */
    const rung_linear *ff_in, *ff_out;
} transformer_block;

typedef struct {
    size_t width, depth;
    const float *norm_w, *norm_b;
    const rung_linear *proj_in, *proj_out; /* 1x1 convolutions and linear layers are one thing here */
    transformer_block *blocks;             /* [depth], owned */
} transformer2d;

void transformer2d_load(transformer2d *t, rung_loader *l, const unet_config *u, const unet_level *v, bool only_cross,
                        const char *name, size_t *kv_width);
void transformer2d_close(transformer2d *t);

/** K/V of the text ctx f32 [batch * n_ctx, context_dim] for all steps. */
void transformer2d_prepare(const rung_exec *x, const transformer2d *t, const network_run *r, const float *ctx,
                           size_t context);

/** h f32 [batch, pixels, width] += proj_out(blocks(proj_in(norm(h)))), in place. */
void transformer2d_run(const unet_step *s, const transformer2d *t, float *h, size_t pixels);
#endif
