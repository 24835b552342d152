/* UNet2DConditionModel: down blocks that leave skips behind, a mid block, up blocks that take them back. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/size.h"
#include "unet/network.h"
#include "unet/timestep.h"
#include "unet/transformer2d.h"

/* One block of diffusers: residual blocks, each followed by a transformer or not, then a down- or upsampler or not. */
typedef struct {
    size_t layers;
    resblock *res;             /* [layers], owned */
    transformer2d *attn;       /* [layers], owned; NULL: none */
    const rung_conv *resample; /* over this rank's input channels: a partial sum where they are fewer than all */
    rung_share own;            /* these channels */
} stage;

typedef struct {
    unet_config cfg;
    stage down[UNET_LEVELS], mid, up[UNET_LEVELS]; /* up by level too: up[i] undoes down[i] */
    const rung_conv *conv_in, *conv_out;
    const float *norm_out_w, *norm_out_b;
    time_mlp time, added;         /* added: pooled text and sizes, under text_time */
    const rung_linear *text_proj; /* NULL: the text is read as it comes */
    size_t kv_width;
} unet2d;

/* ---- loading ---- */

static bool stage_alloc(stage *s, rung_loader *l, size_t layers, bool attn) {
    s->res = calloc(layers, sizeof *s->res);
    if (attn) s->attn = calloc(layers, sizeof *s->attn);
    if (!s->res || (attn && !s->attn)) {
        if (!l->status) l->status = rung_fail(l->err, RUNG_ENOMEM, "U-Net: %zu layers", layers);
        return false;
    }
    s->layers = layers;
    return true;
}

static void stage_close(stage *s) {
    for (size_t i = 0; s->attn && i < s->layers; i++) transformer2d_close(&s->attn[i]);
    free(s->res);
    free(s->attn);
}

static void load_layer(unet2d *u, rung_loader *l, stage *s, const char *block, size_t j, size_t in, size_t level,
                       bool only_cross) {
    const unet_level *v = &u->cfg.level[level];
    char name[96];
    snprintf(name, sizeof name, "%.40s.resnets.%zu", block, j);
    resblock_load(&s->res[j], l, &u->cfg, in, v->channels, name);
    snprintf(name, sizeof name, "%.40s.attentions.%zu", block, j);
    if (s->attn) transformer2d_load(&s->attn[j], l, &u->cfg, v, only_cross, name, &u->kv_width);
}

static void load_resample(stage *s, rung_loader *l, size_t n, const char *block, const char *kind) {
    char name[96];
    snprintf(name, sizeof name, "%.40s.%s.0.conv", block, kind);
    s->own = load_share_free(l, n);
    s->resample = load_conv_cols(l, n, n, 3, 3, s->own, name);
}

static void load_down(unet2d *u, rung_loader *l, size_t i) {
    const unet_level *v = &u->cfg.level[i];
    const size_t n = v->channels;
    char block[48];
    snprintf(block, sizeof block, "down_blocks.%zu", i);
    stage *s = &u->down[i];
    if (!stage_alloc(s, l, v->layers, v->down_attn)) return;
    for (size_t j = 0; j < s->layers; j++)
        load_layer(u, l, s, block, j, j == 0 && i > 0 ? u->cfg.level[i - 1].channels : n, i, v->only_cross);
    if (i + 1 < u->cfg.levels) load_resample(s, l, n, block, "downsamplers");
}

static void load_mid(unet2d *u, rung_loader *l) {
    const size_t level = u->cfg.levels - 1, n = u->cfg.level[level].channels;
    const bool cross = u->cfg.mid == UNET_MID_CROSS;
    if (u->cfg.mid == UNET_MID_NONE || !stage_alloc(&u->mid, l, cross ? 2 : 1, false)) return;
    for (size_t j = 0; j < u->mid.layers; j++) load_layer(u, l, &u->mid, "mid_block", j, n, level, false);
    if (!cross) return;
    u->mid.attn = calloc(2, sizeof *u->mid.attn); /* the second stays empty: one transformer between two blocks */
    if (u->mid.attn)
        transformer2d_load(&u->mid.attn[0], l, &u->cfg, &u->cfg.level[level], false, "mid_block.attentions.0",
                           &u->kv_width);
    else if (!l->status)
        l->status = rung_fail(l->err, RUNG_ENOMEM, "U-Net: mid block");
}

static void load_up(unet2d *u, rung_loader *l, size_t i) {
    const unet_level *v = &u->cfg.level[i];
    const size_t n = v->channels, last = u->cfg.levels - 1;
    const size_t before = u->cfg.level[i == last ? i : i + 1].channels; /* what comes up from below */
    const size_t skip = u->cfg.level[i == 0 ? 0 : i - 1].channels;      /* the last skip: how this level began */
    char block[48];
    snprintf(block, sizeof block, "up_blocks.%zu", last - i);
    stage *s = &u->up[i];
    if (!stage_alloc(s, l, v->layers + 1, v->up_attn)) return;
    for (size_t j = 0; j < s->layers; j++)
        load_layer(u, l, s, block, j, (j == 0 ? before : n) + (j + 1 == s->layers ? skip : n), i, v->only_cross);
    if (i > 0) load_resample(s, l, n, block, "upsamplers");
}

static rung_status unet_open(void **net, rung_denoiser_info *info, rung_config *c, const char *class_name,
                             rung_loader *l) {
    (void)class_name;
    unet2d *u = calloc(1, sizeof *u);
    if (!u) return rung_fail(l->err, RUNG_ENOMEM, "U-Net");
    *net = u;
    RUNG_TRY(unet_config_read(&u->cfg, c));
    const unet_config *cfg = &u->cfg;
    *info = (rung_denoiser_info){.in_channels = cfg->in_channels,
                                 .out_channels = cfg->out_channels,
                                 .sample_size = cfg->sample_size,
                                 .context_dim = cfg->text_dim,
                                 .pooled_dim = cfg->pooled_dim,
                                 .size_multiple = 1};
    const size_t first = cfg->level[0].channels;
    u->conv_in = load_conv(l, first, cfg->in_channels, cfg->conv_in_kernel, cfg->conv_in_kernel, "conv_in");
    time_mlp_load(&u->time, l, first, cfg->time_dim, "time_embedding");
    if (cfg->added_dim)
        time_mlp_load(&u->added, l, cfg->pooled_dim + UNET_SIZE_IDS * cfg->added_dim, cfg->time_dim, "add_embedding");
    if (cfg->text_proj) u->text_proj = load_linear(l, cfg->context_dim, cfg->text_dim, LOAD_BIAS, "encoder_hid_proj");
    for (size_t i = 0; i < cfg->levels; i++) load_down(u, l, i);
    load_mid(u, l);
    for (size_t i = cfg->levels; i-- > 0;) load_up(u, l, i);
    u->norm_out_w = load_vector(l, first, "conv_norm_out.weight");
    u->norm_out_b = load_vector(l, first, "conv_norm_out.bias");
    u->conv_out = load_conv(l, cfg->out_channels, first, cfg->conv_out_kernel, cfg->conv_out_kernel, "conv_out");
    return l->status;
}

static void unet_close(void *net) {
    unet2d *u = net;
    for (size_t i = 0; i < UNET_LEVELS; i++) {
        stage_close(&u->down[i]);
        stage_close(&u->up[i]);
    }
    stage_close(&u->mid);
    free(u);
}

/* ---- once for a run ---- */

static rung_status unet_check_size(const void *net, size_t h, size_t w, rung_err *err) {
    size_t hs[UNET_LEVELS], ws[UNET_LEVELS];
    return unet_config_sizes(&((const unet2d *)net)->cfg, h, w, hs, ws, err);
}

static void stage_prepare(const rung_exec *x, const stage *s, const network_run *r, const float *ctx, size_t n) {
    for (size_t i = 0; s->attn && i < s->layers; i++) transformer2d_prepare(x, &s->attn[i], r, ctx, n);
}

/* 2 x - 1 as what conv_in applies on load: its padding stays 0, as in diffusers, where centring comes first. */
static rung_status prepare_centring(const unet2d *u, const rung_exec *x, network_run *r, rung_err *err) {
    const size_t n = r->batch * u->cfg.in_channels;
    r->in_affine = exec_floats(x, 2, n);
    float *host = malloc(2 * n * sizeof *host);
    if (!host) return rung_fail(err, RUNG_ENOMEM, "U-Net: %zu floats", 2 * n);
    for (size_t i = 0; i < n; i++) {
        host[i] = 2;
        host[n + i] = -1;
    }
    op_upload(x, r->in_affine, host, 2 * n * sizeof *host);
    free(host);
    return RUNG_OK;
}

/* What SDXL adds to every time embedding: a network over [pooled text, sinusoids of the sizes] of each picture. The
 * sizes are original height and width, crop 0 and 0, target height and width, as its pipeline has them by default. */
static rung_status prepare_added(const unet2d *u, const rung_exec *x, network_run *r, const rung_denoiser_cond *c,
                                 rung_err *err) {
    const unet_config *cfg = &u->cfg;
    const float ids[UNET_SIZE_IDS] = {c->image_h, c->image_w, 0, 0, c->image_h, c->image_w};
    const size_t in = u->added.in, pooled = cfg->pooled_dim;
    if (!c->pooled) return rung_fail(err, RUNG_EARG, "this network wants pooled embeddings of width %zu", pooled);
    RUNG_TRY(network_check_picture(c, err));
    r->added_emb = exec_floats(x, c->batch, cfg->time_dim);
    const rung_mark mark = arena_mark(x->arena);
    float *all = exec_floats(x, c->batch, in), *text = exec_floats(x, c->batch, pooled);
    const float *sizes =
        timestep_sinusoids(x, ids, UNET_SIZE_IDS, cfg->added_dim, cfg->flip_sin_to_cos, cfg->freq_shift);
    op_upload(x, text, c->pooled, c->batch * pooled * sizeof *text);
    op_copy2d(x, all, in, text, pooled, c->batch, pooled);
    for (size_t i = 0; exec_live(x) && i < c->batch; i++)
        op_copy2d(x, all + i * in + pooled, in, sizes, in - pooled, 1, in - pooled);
    time_mlp_run(x, &u->added, r->added_emb, all, c->batch, NULL, 0);
    arena_rewind(x->arena, mark);
    return RUNG_OK;
}

static rung_status unet_prepare(const void *net, const rung_exec *x, network_run *r, const rung_denoiser_cond *c,
                                rung_err *err) {
    const unet2d *u = net;
    const size_t rows = c->batch * c->n_ctx;
    if (u->cfg.center_input) RUNG_TRY(prepare_centring(u, x, r, err));
    if (u->cfg.added_dim) RUNG_TRY(prepare_added(u, x, r, c, err));
    r->kv = exec_floats(x, rows, u->kv_width);

    const rung_mark mark = arena_mark(x->arena);
    float *ctx = exec_floats(x, rows, u->cfg.text_dim);
    op_upload(x, ctx, c->ctx, rows * u->cfg.text_dim * sizeof *ctx);
    if (u->text_proj) {
        float *projected = exec_floats(x, rows, u->cfg.context_dim);
        op_linear(x, projected, ctx, u->cfg.text_dim, rows, u->text_proj, NULL);
        ctx = projected;
    }
    for (size_t i = 0; i < u->cfg.levels; i++) {
        stage_prepare(x, &u->down[i], r, ctx, u->cfg.context_dim);
        stage_prepare(x, &u->up[i], r, ctx, u->cfg.context_dim);
    }
    stage_prepare(x, &u->mid, r, ctx, u->cfg.context_dim);
    arena_rewind(x->arena, mark);
    return RUNG_OK;
}

/* ---- a step ---- */

/* An output of the way down, waiting for its up block. They lie on the arena in the order in which they were made. */
typedef struct {
    float *data;
    size_t channels;
    rung_mark mark; /* the arena before it */
} skip;

/* The stream of one step. `cur` is what the next layer reads: a skip on the way down, one of two buffers after. */
typedef struct {
    unet_step s;
    const unet2d *u;
    size_t hs[UNET_LEVELS], ws[UNET_LEVELS];
    skip skips[1 + UNET_LEVELS * (UNET_LAYERS + 1)];
    size_t skip_count;
    float *cur, *buf, *spare;
} unet_pass;

static float *push_skip(unet_pass *p, size_t pixels, size_t channels) {
    rung_arena *a = p->s.x->arena;
    const skip k = {
        .mark = arena_mark(a), .channels = channels, .data = exec_floats(p->s.x, p->s.run->batch * pixels, channels)};
    p->skips[p->skip_count++] = k;
    return k.data;
}

static void swap_buffers(unet_pass *p) {
    float *b = p->buf;
    p->buf = p->spare;
    p->spare = b;
}

/* f32 [times, time_dim], through the silu that every residual block applies to it first. */
static void time_embedding(unet_pass *p, const float *t) {
    const rung_exec *x = p->s.x;
    const unet_config *cfg = &p->u->cfg;
    const network_run *r = p->s.run;
    const size_t distinct = timestep_rows(t, r->batch), in = p->u->time.in, n = cfg->time_dim;
    const size_t times = cfg->added_dim ? r->batch : distinct; /* what is added differs from picture to picture */
    float *time = exec_floats(x, times, n);
    const rung_mark mark = arena_mark(x->arena);
    const float *sinusoids = timestep_sinusoids(x, t, distinct, in, cfg->flip_sin_to_cos, cfg->freq_shift);
    float *own = exec_floats(x, distinct, n);
    time_mlp_run(x, &p->u->time, own, sinusoids, distinct, NULL, 0);
    if (cfg->time_post_act) op_act(x, own, own, distinct * n, cfg->time_post_act);
    if (cfg->added_dim) {
        op_add_rows(x, time, r->added_emb, own, times, distinct, n);
        own = time;
    }
    if (cfg->time_act) op_act(x, own, own, times * n, cfg->time_act);
    op_act(x, time, own, times * n, RUNG_ACT_SILU);
    arena_rewind(x->arena, mark);
    p->s.time = time;
    p->s.times = times;
}

static rung_conv_args same_size(const unet_pass *p, size_t kernel) {
    const size_t pad = (kernel - 1) / 2;
    return (rung_conv_args){.batch = p->s.run->batch,
                            .h = p->hs[0],
                            .w = p->ws[0],
                            .stride = 1,
                            .pad_top = pad,
                            .pad_left = pad,
                            .pad_bottom = pad,
                            .pad_right = pad};
}

static void input_conv(unet_pass *p, const float *in) {
    const rung_exec *x = p->s.x;
    const unet_config *cfg = &p->u->cfg;
    const size_t pixels = p->hs[0] * p->ws[0], rows = p->s.run->batch * pixels;
    p->cur = push_skip(p, pixels, cfg->level[0].channels);
    const rung_mark mark = arena_mark(x->arena);
    float *latents = exec_floats(x, rows, cfg->in_channels);
    network_take(x, p->s.run, latents, in, rows * cfg->in_channels);
    rung_conv_args a = same_size(p, cfg->conv_in_kernel);
    if (p->s.run->in_affine) {
        a.in_scale = p->s.run->in_affine;
        a.in_shift = p->s.run->in_affine + p->s.run->batch * cfg->in_channels;
    }
    op_conv(x, p->cur, latents, p->u->conv_in, &a, NULL);
    arena_rewind(x->arena, mark);
}

/* y = the stage's down- or upsampler of p->cur [batch, h, w, n]. */
static void resample(unet_pass *p, const stage *s, float *y, const rung_conv_args *a, size_t n, size_t out_pixels) {
    const rung_exec *x = p->s.x;
    const size_t batch = p->s.run->batch, rows = batch * a->h * a->w;
    const bool cut = s->own.count != n;
    const rung_mark mark = arena_mark(x->arena);
    const float *in = p->cur;
    if (cut) { /* a convolution wants its channels side by side */
        float *own = exec_floats(x, rows, s->own.count);
        if (exec_live(x)) op_copy2d(x, own, s->own.count, in + s->own.first, n, rows, s->own.count);
        in = own;
    }
    op_conv(x, y, in, s->resample, a, NULL);
    unet_sum(&p->s, y, batch * out_pixels * n, cut);
    arena_rewind(x->arena, mark);
}

static void down_block(unet_pass *p, size_t i) {
    const stage *s = &p->u->down[i];
    const size_t h = p->hs[i], w = p->ws[i], n = p->u->cfg.level[i].channels, pad = p->u->cfg.down_padding;
    for (size_t j = 0; j < s->layers; j++) {
        float *y = push_skip(p, h * w, n);
        resblock_run(&p->s, &s->res[j], y, p->cur, h, w, 1);
        if (s->attn) transformer2d_run(&p->s, &s->attn[j], y, h * w);
        p->cur = y;
    }
    if (!s->resample) return;
    float *y = push_skip(p, p->hs[i + 1] * p->ws[i + 1], n);
    const rung_conv_args a = {.batch = p->s.run->batch,
                              .h = h,
                              .w = w,
                              .stride = 2,
                              .pad_top = pad,
                              .pad_left = pad,
                              .pad_bottom = pad ? pad : 1,
                              .pad_right = pad ? pad : 1};
    resample(p, s, y, &a, n, p->hs[i + 1] * p->ws[i + 1]);
    p->cur = y;
}

static void mid_block(unet_pass *p) {
    const stage *s = &p->u->mid;
    const size_t level = p->u->cfg.levels - 1, h = p->hs[level], w = p->ws[level];
    for (size_t j = 0; j < s->layers; j++) {
        resblock_run(&p->s, &s->res[j], p->spare, p->cur, h, w, p->u->cfg.mid_scale);
        swap_buffers(p);
        p->cur = p->buf;
        if (s->attn && j == 0) transformer2d_run(&p->s, &s->attn[j], p->cur, h * w);
    }
}

/* [cur, newest skip] side by side; gives the skip's memory back only after what reads the copy has run. */
static void up_layer(unet_pass *p, const stage *s, size_t j, size_t h, size_t w) {
    const rung_exec *x = p->s.x;
    const resblock *b = &s->res[j];
    const skip k = p->skips[--p->skip_count];
    const size_t rows = p->s.run->batch * h * w, own = b->in - k.channels;
    float *both = exec_floats(x, rows, b->in);
    op_copy2d(x, both, b->in, p->cur, own, rows, own);
    if (exec_live(x)) op_copy2d(x, both + own, b->in, k.data, k.channels, rows, k.channels);
    resblock_run(&p->s, b, p->buf, both, h, w, 1);
    p->cur = p->buf;
    arena_rewind(x->arena, k.mark);
    if (s->attn) transformer2d_run(&p->s, &s->attn[j], p->cur, h * w);
}

static void up_block(unet_pass *p, size_t i) {
    const stage *s = &p->u->up[i];
    for (size_t j = 0; j < s->layers; j++) up_layer(p, s, j, p->hs[i], p->ws[i]);
    if (!s->resample) return;
    const rung_conv_args a = {.batch = p->s.run->batch,
                              .h = p->hs[i],
                              .w = p->ws[i],
                              .uh = p->hs[i - 1],
                              .uw = p->ws[i - 1],
                              .stride = 1,
                              .pad_top = 1,
                              .pad_left = 1,
                              .pad_bottom = 1,
                              .pad_right = 1};
    resample(p, s, p->spare, &a, p->u->cfg.level[i].channels, p->hs[i - 1] * p->ws[i - 1]);
    swap_buffers(p);
    p->cur = p->buf;
}

static void output_conv(unet_pass *p, float *out) {
    const rung_exec *x = p->s.x;
    const unet_config *cfg = &p->u->cfg;
    const size_t batch = p->s.run->batch, pixels = p->hs[0] * p->ws[0], n = cfg->level[0].channels;
    float *scale = exec_floats(x, batch, n), *shift = exec_floats(x, batch, n);
    float *y = exec_floats(x, batch * pixels, cfg->out_channels);
    op_group_norm_affine(x, scale, shift, p->cur, batch, pixels, n, cfg->groups, p->u->norm_out_w, p->u->norm_out_b,
                         cfg->eps);
    rung_conv_args a = same_size(p, cfg->conv_out_kernel);
    a.in_scale = scale;
    a.in_shift = shift;
    a.in_act = RUNG_ACT_SILU;
    op_conv(x, y, p->cur, p->u->conv_out, &a, NULL);
    network_give(x, p->s.run, out, y, batch * pixels * cfg->out_channels);
}

/* Room of a buffer for the stream after the way down: the largest output of the mid and up blocks. */
static size_t stream_floats(const unet_pass *p) {
    size_t most = 0;
    for (size_t i = 0; i < p->u->cfg.levels; i++) {
        const size_t at = i == 0 ? 0 : i - 1; /* after its upsampler */
        most = size_max(most, size_max(p->hs[at] * p->ws[at], p->hs[i] * p->ws[i]) * p->u->cfg.level[i].channels);
    }
    return most;
}

static void unet_step_run(const void *net, const rung_exec *x, const network_run *r, float *out, const float *in,
                          const float *t) {
    const unet2d *u = net;
    unet_pass p = {.s = {.x = x, .cfg = &u->cfg, .run = r}, .u = u};
    unet_config_sizes(&u->cfg, r->h, r->w, p.hs, p.ws, NULL); /* checked when the run began */
    time_embedding(&p, t);
    p.buf = exec_floats(x, r->batch, stream_floats(&p));
    p.spare = exec_floats(x, r->batch, stream_floats(&p));
    input_conv(&p, in);
    for (size_t i = 0; i < u->cfg.levels; i++) down_block(&p, i);
    mid_block(&p);
    for (size_t i = u->cfg.levels; i-- > 0;) up_block(&p, i);
    output_conv(&p, out);
}

const network_ops unet2d_network = {unet_open, unet_close, unet_check_size, unet_prepare, unet_step_run};
