/* PixArtTransformer2DModel: patches, blocks of self-attention, cross-attention and feed-forward modulated by the
 * timestep (adaLN-single), patches back. LadderTransformer2DModel is the same network with a stale residual. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "unet/attn_layer.h"
#include "unet/dit_config.h"
#include "unet/residual.h"
#include "unet/timestep.h"

typedef struct {
    const float *norm_w[2], *norm_b[2]; /* norm1, norm2; NULL without an affine */
    attn_layer attn1, attn2;
    size_t ff_own; /* this rank's columns of the 4 * width between the two */
    const rung_linear *ff_in, *ff_out;
    const float *table; /* scale_shift_table f32 [6, width] */
} dit_block;

typedef struct {
    dit_config cfg;
    const rung_conv *patch_embed;
    time_mlp time, resolution, aspect;
    const rung_linear *modulation; /* adaln_single.linear [6 * width, width] */
    const rung_linear *caption_1, *caption_2;
    dit_block *blocks;      /* [layers], owned */
    const float *out_table; /* f32 [2, width]: shift, scale */
    const rung_linear *proj_out;
    size_t kv_width;
} dit;

/* Rows of a block's modulation, in the order of the checkpoint. */
enum { SHIFT_ATTN, SCALE_ATTN, GATE_ATTN, SHIFT_FF, SCALE_FF, GATE_FF, MODULATIONS };

enum { MODULES = 3 }; /* of a block: self-attention, cross-attention, feed-forward */

static const float out_norm_eps = 1e-6f; /* not the config's: a constant of the class */

/* ---- loading ---- */

static void load_block(dit *d, rung_loader *l, size_t i) {
    const size_t n = d->cfg.width;
    const load_bias bias = d->cfg.attention_bias ? LOAD_BIAS : LOAD_NO_BIAS;
    dit_block *b = &d->blocks[i];
    char name[64];
    for (int k = 0; d->cfg.norm_affine && k < 2; k++) {
        b->norm_w[k] = load_vector(l, n, "transformer_blocks.%zu.norm%d.weight", i, k + 1);
        b->norm_b[k] = load_vector(l, n, "transformer_blocks.%zu.norm%d.bias", i, k + 1);
    }
    snprintf(name, sizeof name, "transformer_blocks.%zu.attn1", i);
    attn_load_self(&b->attn1, l, n, d->cfg.heads, bias, name);
    snprintf(name, sizeof name, "transformer_blocks.%zu.attn2", i);
    attn_load_cross(&b->attn2, l, n, d->cfg.heads, d->cfg.context_dim, bias, name, &d->kv_width);
    const rung_share own = load_share_free(l, 4 * n);
    b->ff_own = own.count;
    snprintf(name, sizeof name, "transformer_blocks.%zu.ff.net.0.proj", i);
    b->ff_in = load_linear_rows(l, 4 * n, n, d->cfg.act == RUNG_ACT_GEGLU ? 2 : 1, own, name);
    snprintf(name, sizeof name, "transformer_blocks.%zu.ff.net.2", i);
    b->ff_out = load_linear_cols(l, n, 4 * n, own, name);
    b->table = load_vector(l, MODULATIONS * n, "transformer_blocks.%zu.scale_shift_table", i);
}

static bool ff_is_cut(const dit *d, const dit_block *b) { return b->ff_own != 4 * d->cfg.width; }

/* One sum of three modules cannot hold parts of one and the whole of another. */
static void check_parallel(const dit *d, rung_loader *l) {
    const dit_block *b = d->blocks;
    if (!d->cfg.parallel || l->ranks == 1 || (attn_is_cut(&b->attn1) && attn_is_cut(&b->attn2) && ff_is_cut(d, b)))
        return;
    if (!l->status)
        l->status = rung_fail(l->err, RUNG_ESHAPE, "%s: \"parallel\" with %zu heads of %zu cannot be cut over %d ranks",
                              rung_weights_path(l->weights), d->cfg.heads, d->cfg.width / d->cfg.heads, l->ranks);
}

static rung_status dit_open(void **net, rung_denoiser_info *info, rung_config *c, const char *class_name,
                            rung_loader *l) {
    dit *d = calloc(1, sizeof *d);
    if (!d) return rung_fail(l->err, RUNG_ENOMEM, "transformer");
    *net = d;
    RUNG_TRY(dit_config_read(&d->cfg, c, class_name));
    const dit_config *cfg = &d->cfg;
    const size_t n = cfg->width;
    const bool variance = cfg->out_channels == 2 * cfg->in_channels;
    *info = (rung_denoiser_info){.in_channels = cfg->in_channels,
                                 .out_channels = variance ? cfg->in_channels : cfg->out_channels,
                                 .sample_size = cfg->sample_size,
                                 .context_dim = cfg->caption_dim ? cfg->caption_dim : cfg->context_dim,
                                 .size_multiple = cfg->patch};
    d->blocks = calloc(cfg->layers, sizeof *d->blocks);
    if (!d->blocks) return rung_fail(l->err, RUNG_ENOMEM, "transformer: %zu layers", cfg->layers);
    d->patch_embed = load_conv(l, n, cfg->in_channels, cfg->patch, cfg->patch, "pos_embed.proj");
    time_mlp_load(&d->time, l, DIT_TIME, n, "adaln_single.emb.timestep_embedder");
    if (cfg->size_conditions) {
        time_mlp_load(&d->resolution, l, DIT_TIME, n / 3, "adaln_single.emb.resolution_embedder");
        time_mlp_load(&d->aspect, l, DIT_TIME, n / 3, "adaln_single.emb.aspect_ratio_embedder");
    }
    d->modulation = load_linear(l, MODULATIONS * n, n, LOAD_BIAS, "adaln_single.linear");
    if (cfg->caption_dim) {
        d->caption_1 = load_linear(l, n, cfg->caption_dim, LOAD_BIAS, "caption_projection.linear_1");
        d->caption_2 = load_linear(l, n, n, LOAD_BIAS, "caption_projection.linear_2");
    }
    for (size_t i = 0; i < cfg->layers; i++) load_block(d, l, i);
    check_parallel(d, l);
    d->out_table = load_vector(l, 2 * n, "scale_shift_table");
    d->proj_out = load_linear(l, cfg->patch * cfg->patch * cfg->out_channels, n, LOAD_BIAS, "proj_out");
    return l->status;
}

static void dit_close(void *net) {
    free(((dit *)net)->blocks);
    free(net);
}

/* ---- once for a run ---- */

static rung_status dit_check_size(const void *net, size_t h, size_t w, rung_err *err) {
    const size_t p = ((const dit *)net)->cfg.patch;
    if (h % p || w % p)
        return rung_fail(err, RUNG_ESHAPE, "latents of %zux%zu: sides must be multiples of the patch size %zu", h, w,
                         p);
    return RUNG_OK;
}

/* Half of a token's position embedding: sines then cosines of `pos`, f32 [width / 2]. */
static void position_half(float *out, float pos, size_t width) {
    const size_t n = width / 4;
    for (size_t j = 0; j < n; j++) {
        const double angle = pos / pow(10000, (double)j / (double)n);
        out[j] = (float)sin(angle);
        out[n + j] = (float)cos(angle);
    }
}

/* f32 [gh * gw, width]: columns in the first half, rows in the second, scaled so that the trained size spans its own
 * grid. Source: diffusers get_2d_sincos_pos_embed. */
static rung_status prepare_positions(const dit *d, const rung_exec *x, network_run *r, rung_err *err) {
    const size_t gh = r->h / d->cfg.patch, gw = r->w / d->cfg.patch, n = d->cfg.width;
    const double base = (double)(d->cfg.sample_size / d->cfg.patch);
    r->positions = exec_floats(x, gh * gw, n);
    if (!exec_live(x)) return RUNG_OK;
    float *host = malloc(gh * gw * n * sizeof *host);
    if (!host) return rung_fail(err, RUNG_ENOMEM, "position embeddings: %zu x %zu", gh * gw, n);
    const float col_step = (float)((double)gw / base), row_step = (float)((double)gh / base);
    const float interpolation = (float)d->cfg.interpolation_scale;
    for (size_t i = 0; i < gh * gw; i++) {
        position_half(host + i * n, (float)(i % gw) / col_step / interpolation, n);
        position_half(host + i * n + n / 2, (float)(i / gw) / row_step / interpolation, n);
    }
    op_upload(x, r->positions, host, gh * gw * n * sizeof *host);
    free(host);
    return RUNG_OK;
}

/* f32 [width]: a third each for height, width and aspect ratio of the picture. */
static void prepare_size(const dit *d, const rung_exec *x, network_run *r, const rung_denoiser_cond *c) {
    const float v[] = {c->image_h, c->image_w, (float)((double)c->image_h / (double)c->image_w)};
    r->size_emb = exec_floats(x, 3, d->resolution.out);
    const rung_mark mark = arena_mark(x->arena);
    const float *sinusoids = timestep_sinusoids(x, v, 3, DIT_TIME, true, 0);
    time_mlp_run(x, &d->resolution, r->size_emb, sinusoids, 2, NULL, 0);
    if (exec_live(x))
        time_mlp_run(x, &d->aspect, r->size_emb + 2 * d->resolution.out, sinusoids + 2 * DIT_TIME, 1, NULL, 0);
    arena_rewind(x->arena, mark);
}

/* The text as cross-attention reads it, f32 [batch * n_ctx, context_dim]. */
static const float *project_text(const dit *d, const rung_exec *x, const rung_denoiser_cond *c) {
    const size_t rows = c->batch * c->n_ctx, n = d->cfg.width;
    const size_t dim = d->cfg.caption_dim ? d->cfg.caption_dim : d->cfg.context_dim;
    float *ctx = exec_floats(x, rows, dim);
    op_upload(x, ctx, c->ctx, rows * dim * sizeof *ctx);
    if (!d->cfg.caption_dim) return ctx;
    float *hidden = exec_floats(x, rows, n), *projected = exec_floats(x, rows, n);
    op_linear(x, hidden, ctx, dim, rows, d->caption_1, &(rung_epilogue){.act = RUNG_ACT_GELU_TANH});
    op_linear(x, projected, hidden, n, rows, d->caption_2, NULL);
    return projected;
}

static rung_status dit_prepare(const void *net, const rung_exec *x, network_run *r, const rung_denoiser_cond *c,
                               rung_err *err) {
    const dit *d = net;
    if (d->cfg.size_conditions) {
        RUNG_TRY(network_check_picture(c, err));
        prepare_size(d, x, r, c);
    }
    RUNG_TRY(prepare_positions(d, x, r, err));
    r->kv = exec_floats(x, c->batch * c->n_ctx, d->kv_width);
    const rung_mark mark = arena_mark(x->arena);
    const float *ctx = project_text(d, x, c);
    for (size_t i = 0; i < d->cfg.layers; i++) attn_prepare(x, &d->blocks[i].attn2, r, ctx, d->cfg.context_dim);
    arena_rewind(x->arena, mark);
    return RUNG_OK;
}

/* ---- a step ---- */

typedef struct {
    const dit *d;
    const rung_exec *x;
    const network_run *r;
    size_t tokens, times; /* of one picture; rows of the time embedding: 1 when all pictures share it, else batch */
    residual stream;
} dit_pass;

/* Timestep and size as one vector, and what the blocks make of it: f32 [times, width], [times, 6 * width]. */
static void time_embedding(dit_pass *p, float *emb, float *modulation, const float *t) {
    const rung_exec *x = p->x;
    const size_t n = p->d->cfg.width;
    const rung_mark mark = arena_mark(x->arena);
    const float *sinusoids = timestep_sinusoids(x, t, p->times, DIT_TIME, true, 0);
    float *activated = exec_floats(x, p->times, n);
    time_mlp_run(x, &p->d->time, emb, sinusoids, p->times, p->r->size_emb, 0);
    op_act(x, activated, emb, p->times * n, RUNG_ACT_SILU);
    op_linear(x, modulation, activated, n, p->times, p->d->modulation, NULL);
    arena_rewind(x->arena, mark);
}

static void embed_patches(dit_pass *p, const float *in) {
    const rung_exec *x = p->x;
    const dit_config *cfg = &p->d->cfg;
    const size_t batch = p->r->batch, pixels = p->r->h * p->r->w;
    const rung_mark mark = arena_mark(x->arena);
    float *latents = exec_floats(x, batch * pixels, cfg->in_channels);
    network_take(x, p->r, latents, in, batch * pixels * cfg->in_channels);
    const rung_conv_args a = {.batch = batch, .h = p->r->h, .w = p->r->w, .stride = cfg->patch};
    op_conv(x, p->stream.newest, latents, p->d->patch_embed, &a, NULL);
    op_add_rows(x, p->stream.newest, p->stream.newest, p->r->positions, batch * p->tokens, p->tokens, cfg->width);
    residual_start(&p->stream);
    arena_rewind(x->arena, mark);
}

/* y = norm(in) * (1 + scale) + shift; m points at the block's modulation, NULL in a dry run. */
static void modulated_norm(const dit_pass *p, const dit_block *b, int norm, float *y, const float *in, const float *m,
                           int shift, int scale) {
    const size_t n = p->d->cfg.width;
    if (!exec_live(p->x)) return;
    op_layer_norm(p->x, y, in, p->r->batch * p->tokens, n, b->norm_w[norm], b->norm_b[norm], p->d->cfg.eps,
                  m + (size_t)scale * n, m + (size_t)shift * n, p->times == 1 ? 0 : MODULATIONS * n, p->tokens);
}

static void feed_forward(const dit_pass *p, const dit_block *b, const residual_io *io, const float *normed,
                         const float *gate) {
    const rung_exec *x = p->x;
    const size_t n = p->d->cfg.width, rows = p->r->batch * p->tokens;
    const rung_mark mark = arena_mark(x->arena);
    float *inner = exec_floats(x, rows, b->ff_own);
    op_linear(x, inner, normed, n, rows, b->ff_in, &(rung_epilogue){.act = p->d->cfg.act});
    op_linear(x, io->y, inner, b->ff_own, rows, b->ff_out,
              &(rung_epilogue){.gate = gate,
                               .gate_stride = p->times == 1 ? 0 : MODULATIONS * n,
                               .residual = io->add,
                               .rows_per_sample = p->tokens});
    arena_rewind(x->arena, mark);
}

/* The gate is applied to a partial sum before it is added up over ranks. */
static void run_block(dit_pass *p, const dit_block *b, const float *modulation, bool stale) {
    const rung_exec *x = p->x;
    const size_t n = p->d->cfg.width, gate_stride = p->times == 1 ? 0 : MODULATIONS * n;
    const rung_mark mark = arena_mark(x->arena);
    float *m = exec_floats(x, p->times, MODULATIONS * n);
    float *normed = exec_floats(x, p->r->batch * p->tokens, n);
    op_add_rows(x, m, modulation, b->table, p->times, 1, MODULATIONS * n);
    const float *gate_attn = m ? m + GATE_ATTN * n : NULL, *gate_ff = m ? m + GATE_FF * n : NULL;

    residual_io io = residual_begin(&p->stream, stale);
    modulated_norm(p, b, 0, normed, io.read, m, SHIFT_ATTN, SCALE_ATTN);
    attn_io attn = {.y = io.y,
                    .in = normed,
                    .residual = io.add,
                    .tokens = p->tokens,
                    .gate = gate_attn,
                    .gate_stride = gate_stride};
    attn_run(x, &b->attn1, p->r, &attn);
    residual_end(&p->stream, attn_is_cut(&b->attn1));

    io = residual_begin(&p->stream, stale); /* PixArt's cross-attention has no norm and no gate */
    attn = (attn_io){.y = io.y, .in = io.read, .residual = io.add, .tokens = p->tokens, .masked = true};
    attn_run(x, &b->attn2, p->r, &attn);
    residual_end(&p->stream, attn_is_cut(&b->attn2));

    io = residual_begin(&p->stream, stale);
    modulated_norm(p, b, 1, normed, io.read, m, SHIFT_FF, SCALE_FF);
    feed_forward(p, b, &io, normed, gate_ff);
    residual_end(&p->stream, ff_is_cut(p->d, b));
    arena_rewind(x->arena, mark);
}

static void output(dit_pass *p, float *out, const float *emb) {
    const rung_exec *x = p->x;
    const dit_config *cfg = &p->d->cfg;
    const size_t n = cfg->width, rows = p->r->batch * p->tokens, patch = cfg->patch;
    const size_t pixels = p->r->batch * p->r->h * p->r->w, from = cfg->out_channels;
    const size_t to = from == 2 * cfg->in_channels ? cfg->in_channels : from;
    float *shift = exec_floats(x, p->times, n), *scale = exec_floats(x, p->times, n);
    float *normed = exec_floats(x, rows, n), *patches = exec_floats(x, rows, patch * patch * from);
    float *all = exec_floats(x, pixels, from), *kept = to == from ? all : exec_floats(x, pixels, to);
    op_add_rows(x, shift, emb, p->d->out_table, p->times, 1, n);
    op_add_rows(x, scale, emb, p->d->out_table ? p->d->out_table + n : NULL, p->times, 1, n);
    op_layer_norm(x, normed, residual_finish(&p->stream), rows, n, NULL, NULL, out_norm_eps, scale, shift,
                  p->times == 1 ? 0 : n, p->tokens);
    op_linear(x, patches, normed, n, rows, p->d->proj_out, NULL);
    op_unpatchify(x, all, patches, p->r->batch, p->r->h / patch, p->r->w / patch, patch, from);
    if (to != from) op_copy2d(x, kept, to, all, from, pixels, to);
    network_give(x, p->r, out, kept, pixels * to);
}

static void dit_step(const void *net, const rung_exec *x, const network_run *r, float *out, const float *in,
                     const float *t) {
    const dit *d = net;
    const size_t n = d->cfg.width;
    dit_pass p = {.d = d,
                  .x = x,
                  .r = r,
                  .tokens = (r->h / d->cfg.patch) * (r->w / d->cfg.patch),
                  .times = timestep_rows(t, r->batch)};
    float *emb = exec_floats(x, p.times, n), *modulation = exec_floats(x, p.times, MODULATIONS * n);
    residual_open(&p.stream, x, r->batch * p.tokens, n, d->cfg.stale_layers > 0, d->cfg.parallel ? MODULES : 1);
    time_embedding(&p, emb, modulation, t);
    embed_patches(&p, in);
    for (size_t i = 0; i < d->cfg.layers; i++) run_block(&p, &d->blocks[i], modulation, d->cfg.stale[i]);
    output(&p, out, emb);
}

const network_ops dit_network = {dit_open, dit_close, dit_check_size, dit_prepare, dit_step};
