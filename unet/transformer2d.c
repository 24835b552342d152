#include "unet/transformer2d.h"

#include <stdio.h>
#include <stdlib.h>

/* The class's own constants: no key of a U-Net's config reaches them. */
static const float group_norm_eps = 1e-6f, layer_norm_eps = 1e-5f;
enum { NAME = 128 };

static void load_block(transformer_block *b, rung_loader *l, const unet_config *u, const unet_level *v, bool only_cross,
                       const char *name, size_t *kv_width) {
    const size_t n = v->channels;
    char attn[NAME + 16];
    for (int i = 0; i < 3; i++) {
        b->norm_w[i] = load_vector(l, n, "%s.norm%d.weight", name, i + 1);
        b->norm_b[i] = load_vector(l, n, "%s.norm%d.bias", name, i + 1);
    }
    snprintf(attn, sizeof attn, "%s.attn1", name);
    if (only_cross)
        attn_load_cross(&b->attn1, l, n, v->heads, u->context_dim, LOAD_NO_BIAS, attn, kv_width);
    else
        attn_load_self(&b->attn1, l, n, v->heads, LOAD_NO_BIAS, attn);
    snprintf(attn, sizeof attn, "%s.attn2", name);
    attn_load_cross(&b->attn2, l, n, v->heads, u->context_dim, LOAD_NO_BIAS, attn, kv_width);
    const rung_share own = load_share_free(l, 4 * n);
    b->ff_own = own.count;
    snprintf(attn, sizeof attn, "%s.ff.net.0.proj", name);
    b->ff_in = load_linear_rows(l, 4 * n, n, 2, own, attn);
    snprintf(attn, sizeof attn, "%s.ff.net.2", name);
    b->ff_out = load_linear_cols(l, n, 4 * n, own, attn);
}

void transformer2d_load(transformer2d *t, rung_loader *l, const unet_config *u, const unet_level *v, bool only_cross,
                        const char *name, size_t *kv_width) {
    const size_t n = v->channels;
    t->width = n;
    t->norm_w = load_vector(l, n, "%s.norm.weight", name);
    t->norm_b = load_vector(l, n, "%s.norm.bias", name);
    t->proj_in = load_linear(l, n, n, LOAD_BIAS, "%s.proj_in", name);
    t->proj_out = load_linear(l, n, n, LOAD_BIAS, "%s.proj_out", name);
    if (v->depth == 0) return;
    t->blocks = calloc(v->depth, sizeof *t->blocks);
    if (!t->blocks) {
        if (!l->status) l->status = rung_fail(l->err, RUNG_ENOMEM, "%s: %zu blocks", name, v->depth);
        return;
    }
    t->depth = v->depth;
    for (size_t i = 0; i < t->depth; i++) {
        char block[NAME];
        snprintf(block, sizeof block, "%.80s.transformer_blocks.%zu", name, i);
        load_block(&t->blocks[i], l, u, v, only_cross, block, kv_width);
    }
}

void transformer2d_close(transformer2d *t) {
    free(t->blocks);
    *t = (transformer2d){0};
}

void transformer2d_prepare(const rung_exec *x, const transformer2d *t, const network_run *r, const float *ctx,
                           size_t context) {
    for (size_t i = 0; i < t->depth; i++) {
        attn_prepare(x, &t->blocks[i].attn1, r, ctx, context);
        attn_prepare(x, &t->blocks[i].attn2, r, ctx, context);
    }
}

/* h += the feed-forward of `normed`. */
static void feed_forward(const unet_step *s, const transformer_block *b, float *h, const float *normed, size_t rows,
                         size_t n) {
    const rung_exec *x = s->x;
    const rung_mark mark = arena_mark(x->arena);
    const bool cut = b->ff_own != 4 * n;
    float *inner = exec_floats(x, rows, b->ff_own);
    op_linear(x, inner, normed, n, rows, b->ff_in, &(rung_epilogue){.act = RUNG_ACT_GEGLU});
    op_linear(x, h, inner, b->ff_own, rows, b->ff_out, &(rung_epilogue){.residual = unet_residual(s, h, cut)});
    arena_rewind(x->arena, mark);
    unet_sum(s, h, rows * n, cut);
}

static void attend(const unet_step *s, const attn_layer *a, attn_io *io) {
    io->residual = unet_residual(s, io->y, attn_is_cut(a));
    attn_run(s->x, a, s->run, io);
    unet_sum(s, io->y, s->run->batch * io->tokens * a->width, attn_is_cut(a));
}

/* h += each of the three parts in turn; `normed` f32 [rows, n] is scratch. */
static void run_block(const unet_step *s, const transformer_block *b, float *h, float *normed, size_t pixels,
                      size_t n) {
    const rung_exec *x = s->x;
    const size_t rows = s->run->batch * pixels;
    attn_io io = {.y = h, .in = normed, .tokens = pixels};
    op_layer_norm(x, normed, h, rows, n, b->norm_w[0], b->norm_b[0], layer_norm_eps, NULL, NULL, 0, 0);
    attend(s, &b->attn1, &io); /* never masked: diffusers hands attn1 its attention_mask, which is unset */
    op_layer_norm(x, normed, h, rows, n, b->norm_w[1], b->norm_b[1], layer_norm_eps, NULL, NULL, 0, 0);
    io.masked = true;
    attend(s, &b->attn2, &io);
    op_layer_norm(x, normed, h, rows, n, b->norm_w[2], b->norm_b[2], layer_norm_eps, NULL, NULL, 0, 0);
    feed_forward(s, b, h, normed, rows, n);
}

void transformer2d_run(const unet_step *s, const transformer2d *t, float *h, size_t pixels) {
    const rung_exec *x = s->x;
    const rung_mark mark = arena_mark(x->arena);
    const size_t n = t->width, rows = s->run->batch * pixels;
    float *stream = exec_floats(x, rows, n), *normed = exec_floats(x, rows, n);
    op_group_norm(x, normed, h, s->run->batch, pixels, n, s->cfg->groups, t->norm_w, t->norm_b, group_norm_eps,
                  RUNG_ACT_NONE);
    op_linear(x, stream, normed, n, rows, t->proj_in, NULL);
    for (size_t i = 0; i < t->depth; i++) run_block(s, &t->blocks[i], stream, normed, pixels, n);
    op_linear(x, h, stream, n, rows, t->proj_out, &(rung_epilogue){.residual = h});
    arena_rewind(x->arena, mark);
}
