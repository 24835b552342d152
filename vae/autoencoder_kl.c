/* vae/autoencoder_kl.c - AutoencoderKL's decoder: post_quant_conv, conv_in, a middle of two residual blocks with
 * attention between them, levels of residual blocks that double the picture, conv_out. Source: Rombach et al. 2022
 * (LDM) appendix; checked against diffusers AutoencoderKL.decode.
 *
 * A GroupNorm needs the whole picture before it can touch a pixel, which is why tiles that are normed alone show
 * seams. Here a large level is computed in strips of rows that recompute what they need of their neighbours, once for
 * each norm: its statistics are gathered over all strips first, the strips that follow use them. Strips give the same
 * picture as the whole level does, to rounding; they cost time (each convolution before a norm runs twice, the
 * enlarging one three times) and save the memory of everything but the residual stream.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vae/decoder.h"

#define NORM_EPS 1e-6f

struct norm {
    const float *w, *b; /* f32 [ch] */
    size_t ch;
};

struct resnet {
    size_t in, out;
    struct norm norm1, norm2;
    const rung_conv *conv1, *conv2;
    const rung_linear *shortcut; /* NULL: in == out */
};

struct attention {
    struct norm norm;
    const rung_linear *qkv, *out;
};

struct up_block {
    size_t ch;
    struct resnet *resnets; /* [per_block] */
    const rung_conv *up;    /* NULL in the last block */
};

/* Sums over the strips of one norm's input; host memory. */
struct stats {
    double *mean, *square;        /* [widest] */
    float *scale, *shift, *w, *b; /* [widest], on their way from and to the backend */
    size_t pixels;
};

typedef struct {
    vae_decoder base;
    size_t groups, per_block, widest; /* widest: channels */
    const rung_linear *post_quant;    /* NULL: none */
    const rung_conv *conv_in, *conv_out;
    struct resnet mid[2];
    struct attention attention; /* qkv == NULL: none */
    struct up_block up[VAE_MAX_LEVELS];
    struct norm norm_out;
    const float *ones, *zeros; /* f32 [widest] in backend memory */
    struct stats stats;
} decoder_kl;

/* ---- norms ---- */

static vae_affine new_affine(vae_run *r, size_t ch) {
    return (vae_affine){exec_floats(&r->exec, 1, ch), exec_floats(&r->exec, 1, ch)};
}

static vae_affine whole_affine(const decoder_kl *d, vae_run *r, const struct norm *n, const float *x, size_t pixels) {
    const vae_affine a = new_affine(r, n->ch);
    op_group_norm_affine(&r->exec, a.scale, a.shift, x, 1, pixels, n->ch, d->groups, n->w, n->b, NORM_EPS);
    return a;
}

static void stats_start(struct stats *s, size_t ch) {
    memset(s->mean, 0, ch * sizeof *s->mean);
    memset(s->square, 0, ch * sizeof *s->square);
    s->pixels = 0;
}

/* One strip's statistics, read back out of the affine with weight 1 and bias 0: 1/sqrt(var + eps), -mean * that. */
static void stats_add(decoder_kl *d, vae_run *r, const float *x, size_t pixels, size_t ch) {
    struct stats *s = &d->stats;
    const rung_mark m = arena_mark(r->exec.arena);
    const vae_affine a = new_affine(r, ch);
    op_group_norm_affine(&r->exec, a.scale, a.shift, x, 1, pixels, ch, d->groups, d->ones, d->zeros, NORM_EPS);
    op_download(&r->exec, s->scale, a.scale, ch * sizeof(float));
    op_download(&r->exec, s->shift, a.shift, ch * sizeof(float));
    if (exec_live(&r->exec)) {
        vae_sync(r);
        for (size_t c = 0; c < ch; c++) {
            const double mean = -(double)s->shift[c] / s->scale[c];
            s->mean[c] += mean * (double)pixels;
            s->square[c] += (1 / ((double)s->scale[c] * s->scale[c]) + mean * mean) * (double)pixels; /* eps is in it */
        }
        s->pixels += pixels;
    }
    arena_rewind(r->exec.arena, m);
}

static void stats_finish(decoder_kl *d, vae_run *r, const struct norm *n, vae_affine a) {
    struct stats *s = &d->stats;
    if (!exec_live(&r->exec)) return;
    op_download(&r->exec, s->w, n->w, n->ch * sizeof(float));
    op_download(&r->exec, s->b, n->b, n->ch * sizeof(float));
    vae_sync(r);
    for (size_t c = 0; c < n->ch; c++) {
        const double mean = s->mean[c] / (double)s->pixels;
        const double k = s->w[c] / sqrt(s->square[c] / (double)s->pixels - mean * mean);
        s->scale[c] = (float)k;
        s->shift[c] = (float)(s->b[c] - mean * k);
    }
    op_upload(&r->exec, a.scale, s->scale, n->ch * sizeof(float));
    op_upload(&r->exec, a.shift, s->shift, n->ch * sizeof(float));
    vae_sync(r); /* the host arrays are used again */
}

/* ---- whole pictures ---- */

static void swap_rooms(int *here, int *next) {
    const int t = *here;
    *here = *next;
    *next = t;
}

/* x f32 [h, w, in] -> [h, w, out]: x itself, or ROOM_SPARE when in != out. t_room takes what is between. */
static float *run_resnet(decoder_kl *d, vae_run *r, const struct resnet *b, float *x, int t_room, size_t h, size_t w) {
    const rung_mark m = arena_mark(r->exec.arena);
    const vae_rows all = {0, h};
    float *t = vae_room(r, t_room, h * w, b->out);
    const vae_affine n1 = whole_affine(d, r, &b->norm1, x, h * w);
    vae_conv(r, t, all, b->conv1, (vae_view){x, 0, h, w}, b->in, n1, NULL);
    const vae_affine n2 = whole_affine(d, r, &b->norm2, t, h * w);
    if (b->shortcut) {
        float *y = vae_room(r, ROOM_SPARE, h * w, b->out);
        op_linear(&r->exec, y, x, b->in, h * w, b->shortcut, NULL);
        x = y;
    }
    vae_conv(r, x, all, b->conv2, (vae_view){t, 0, h, w}, b->out, n2, &(rung_epilogue){.residual = x});
    arena_rewind(r->exec.arena, m);
    return x;
}

/* One head over the pixels, x f32 [pixels, ch] += out(attend(norm(x))). */
static void run_attention(decoder_kl *d, vae_run *r, float *x, size_t pixels) {
    const struct attention *b = &d->attention;
    const size_t ch = b->norm.ch;
    float *n = vae_room(r, ROOM_NEXT, pixels, 4 * ch), *qkv = rows_of(n, pixels * ch);
    op_group_norm(&r->exec, n, x, 1, pixels, ch, d->groups, b->norm.w, b->norm.b, NORM_EPS, RUNG_ACT_NONE);
    op_linear(&r->exec, qkv, n, ch, pixels, b->qkv, NULL);
    const rung_attention_args a = {
        .batch = 1,
        .heads = 1,
        .d = ch,
        .lq = pixels,
        .lk = pixels,
        .q = qkv,
        .k = rows_at(qkv, ch),
        .v = rows_at(qkv, 2 * ch),
        .o = n,
        .q_row = 3 * ch,
        .k_row = 3 * ch,
        .v_row = 3 * ch,
        .o_row = ch,
        .scale = 1 / sqrtf((float)ch),
    };
    op_attention(&r->exec, &a);
    op_linear(&r->exec, x, n, ch, pixels, b->out, &(rung_epilogue){.residual = x});
}

/* ---- strips ---- */

static vae_rows strip_at(size_t lo, size_t h) { return (vae_rows){lo, size_min(lo + VAE_STRIP_ROWS, h)}; }

/* A picture x f32 [h, w, ch] through a block that keeps its width, in place. */
static void strip_resnet(decoder_kl *d, vae_run *r, const struct resnet *b, float *x, size_t h, size_t w) {
    const size_t row = w * b->in;
    const rung_mark m = arena_mark(r->exec.arena);
    float *t = exec_floats(&r->exec, VAE_STRIP_ROWS + 2, row);
    vae_view old = {exec_floats(&r->exec, VAE_STRIP_ROWS + 4, row), 0, h, w}; /* rows of x before y covers them */
    const vae_affine n1 = whole_affine(d, r, &b->norm1, x, h * w), n2 = new_affine(r, b->out);

    stats_start(&d->stats, b->out);
    for (size_t lo = 0; lo < h; lo += VAE_STRIP_ROWS) {
        const vae_rows core = strip_at(lo, h);
        vae_conv(r, t, core, b->conv1, (vae_view){x, 0, h, w}, b->in, n1, NULL);
        stats_add(d, r, t, (core.hi - lo) * w, b->out);
    }
    stats_finish(d, r, &b->norm2, n2);

    for (size_t lo = 0; lo < h; lo += VAE_STRIP_ROWS) {
        const vae_rows core = strip_at(lo, h), mid = vae_rows_grow(core, 1, h), in = vae_rows_grow(core, 2, h);
        float *y = rows_of(x, lo * row);
        op_copy2d(&r->exec, rows_of(old.data, (lo - old.first) * row), row, y, row, in.hi - lo, row);
        vae_conv(r, t, mid, b->conv1, old, b->in, n1, NULL);
        vae_conv(r, y, core, b->conv2, (vae_view){t, mid.lo, h, w}, b->out, n2, &(rung_epilogue){.residual = y});
        if (core.hi < h) { /* the last two rows go on to the next strip */
            op_copy2d(&r->exec, old.data, row, rows_at(old.data, (core.hi - 2 - old.first) * row), row, 2, row);
            old.first = core.hi - 2;
        }
    }
    arena_rewind(r->exec.arena, m);
}

/* The enlarging convolution `up` over the picture src (whole) and the block that follows it, without storing what is
 * between them: y f32 [2 * src.h, 2 * src.w, out]. */
static void strip_up_resnet(decoder_kl *d, vae_run *r, const rung_conv *up, const struct resnet *b, float *y,
                            vae_view src) {
    const size_t h = 2 * src.h, w = 2 * src.w;
    const rung_mark m = arena_mark(r->exec.arena);
    float *t = exec_floats(&r->exec, VAE_STRIP_ROWS + 2, w * b->out);
    vae_view x = {exec_floats(&r->exec, VAE_STRIP_ROWS + 8, w * b->in), 0, h, w};
    const vae_affine n1 = new_affine(r, b->in), n2 = new_affine(r, b->out);

    stats_start(&d->stats, b->in);
    for (size_t lo = 0; lo < h; lo += VAE_STRIP_ROWS) {
        const vae_rows core = strip_at(lo, h);
        x.first = vae_conv_up(r, x.data, core, up, src, b->in, 2, NULL).lo;
        stats_add(d, r, rows_at(x.data, (lo - x.first) * w * b->in), (core.hi - lo) * w, b->in);
    }
    stats_finish(d, r, &b->norm1, n1);

    stats_start(&d->stats, b->out);
    for (size_t lo = 0; lo < h; lo += VAE_STRIP_ROWS) {
        const vae_rows core = strip_at(lo, h);
        x.first = vae_conv_up(r, x.data, vae_rows_grow(core, 1, h), up, src, b->in, 2, NULL).lo;
        vae_conv(r, t, core, b->conv1, x, b->in, n1, NULL);
        stats_add(d, r, t, (core.hi - lo) * w, b->out);
    }
    stats_finish(d, r, &b->norm2, n2);

    for (size_t lo = 0; lo < h; lo += VAE_STRIP_ROWS) {
        const vae_rows core = strip_at(lo, h), mid = vae_rows_grow(core, 1, h);
        float *y_core = rows_of(y, lo * w * b->out);
        x.first = vae_conv_up(r, x.data, vae_rows_grow(core, 2, h), up, src, b->in, 2, NULL).lo;
        vae_conv(r, t, mid, b->conv1, x, b->in, n1, NULL);
        const float *skip = rows_at(x.data, (lo - x.first) * w * b->in);
        if (b->shortcut) {
            op_linear(&r->exec, y_core, skip, b->in, (core.hi - lo) * w, b->shortcut, NULL);
            skip = y_core;
        }
        vae_conv(r, y_core, core, b->conv2, (vae_view){t, mid.lo, h, w}, b->out, n2,
                 &(rung_epilogue){.residual = skip});
    }
    arena_rewind(r->exec.arena, m);
}

/* Levels in strips lie in one room, each picture so far behind the one that is made from it that no strip covers rows
 * which the next one reads. */
struct overlay {
    size_t at[VAE_MAX_LEVELS]; /* where a level's picture begins, in floats for each column of `src` */
    size_t size;               /* of the room */
};

/* Levels `from` and up, made from the picture src below them. */
static struct overlay lay_over(const decoder_kl *d, size_t from, vae_view src) {
    struct overlay o = {0};
    for (size_t i = d->base.levels - 1;; i--) {
        const size_t scale = i + 1 - from, h = src.h << scale, row = d->up[i].ch << scale;
        o.size = size_max(o.size, o.at[i] + h * row);
        if (i == from) return o;
        const size_t below = d->up[i - 1].ch << (scale - 1);
        size_t lead = 0;
        for (size_t end = VAE_STRIP_ROWS; end < h; end += VAE_STRIP_ROWS) {
            const vae_rows next = vae_rows_grow(strip_at(end, h), 2, h);
            const size_t written = end * row, read = vae_up_reads(next, h / 2, 2).lo * below;
            if (written > read) lead = size_max(lead, written - read);
        }
        o.at[i - 1] = o.at[i] + lead;
    }
}

/* Levels strips_from and up over the picture src; they take `room`. */
static vae_view strip_levels(decoder_kl *d, vae_run *r, vae_view src, int room) {
    const struct overlay o = lay_over(d, r->strips_from, src);
    const size_t columns = src.w;
    float *data = vae_room(r, room, o.size, columns);
    for (size_t i = r->strips_from; i < d->base.levels; i++) {
        const struct up_block *b = &d->up[i];
        const vae_view y = {rows_of(data, o.at[i] * columns), 0, 2 * src.h, 2 * src.w};
        strip_up_resnet(d, r, d->up[i - 1].up, &b->resnets[0], y.data, src);
        for (size_t j = 1; j < d->per_block; j++) strip_resnet(d, r, &b->resnets[j], y.data, y.h, y.w);
        src = y;
    }
    return src;
}

/* ---- the network ---- */

static const float *decode_kl(vae_decoder *base, vae_run *r, const float *z, size_t h, size_t w) {
    decoder_kl *d = (decoder_kl *)base;
    const size_t latent = base->info.latent_channels;
    int here = ROOM_HERE, next = ROOM_NEXT;
    if (d->post_quant) {
        float *q = exec_floats(&r->exec, h * w, latent);
        op_linear(&r->exec, q, z, latent, h * w, d->post_quant, NULL);
        z = q;
    }
    vae_view x = {vae_room(r, here, h * w, d->mid[0].in), 0, h, w};
    const vae_view latents = {(float *)z, 0, h, w};
    vae_conv(r, x.data, (vae_rows){0, h}, d->conv_in, latents, latent, (vae_affine){0}, NULL);
    x.data = run_resnet(d, r, &d->mid[0], x.data, next, h, w);
    if (d->attention.qkv) run_attention(d, r, x.data, h * w);
    x.data = run_resnet(d, r, &d->mid[1], x.data, next, h, w);

    for (size_t i = 0; i < r->strips_from; i++) {
        if (i > 0) {
            const struct up_block *below = &d->up[i - 1];
            const vae_view y = {vae_room(r, next, 4 * x.h * x.w, below->ch), 0, 2 * x.h, 2 * x.w};
            vae_conv_up(r, y.data, (vae_rows){0, y.h}, below->up, x, below->ch, 2, NULL);
            x = y;
            swap_rooms(&here, &next);
        }
        for (size_t j = 0; j < d->per_block; j++)
            x.data = run_resnet(d, r, &d->up[i].resnets[j], x.data, next, x.h, x.w);
    }
    if (r->strips_from < base->levels) {
        x = strip_levels(d, r, x, next);
        swap_rooms(&here, &next);
    }
    const vae_affine n = whole_affine(d, r, &d->norm_out, x.data, x.h * x.w);
    float *image = vae_room(r, next, x.h * x.w, base->info.image_channels);
    vae_conv(r, image, (vae_rows){0, x.h}, d->conv_out, x, d->norm_out.ch, n, NULL);
    return image;
}

/* ---- loading ---- */

struct kl_config {
    long ch[VAE_MAX_LEVELS], groups, layers;
    size_t levels;
    bool post_quant, attention;
};

static void read_blocks(rung_config *c, struct kl_config *k) {
    cfg_ints(c, "block_out_channels", k->ch, VAE_MAX_LEVELS, &k->levels, 1, 1 << 16);
    if (k->levels == 0) k->ch[k->levels++] = 64;
    k->groups = cfg_int(c, "norm_num_groups", 32, 1, 1 << 16);
    for (size_t i = 0; i < k->levels; i++)
        if (k->ch[i] % k->groups)
            cfg_refuse(c, "norm_num_groups %ld does not divide block_out_channels %ld", k->groups, k->ch[i]);

    const cJSON *types = cJSON_GetObjectItemCaseSensitive(c->root, "up_block_types"), *type;
    const size_t count = cJSON_IsArray(types) ? (size_t)cJSON_GetArraySize(types) : 1;
    if (count != k->levels) cfg_refuse(c, "%zu up_block_types for %zu block_out_channels", count, k->levels);
    cJSON_ArrayForEach(type, types) {
        if (!cJSON_IsString(type) || strcmp(type->valuestring, "UpDecoderBlock2D") != 0)
            cfg_refuse(c, "up_block_types: %s is not supported, only UpDecoderBlock2D",
                       cJSON_IsString(type) ? type->valuestring : "a value that is not a string");
    }
}

static void read_config(rung_config *c, struct kl_config *k, rung_vae_info *info) {
    read_blocks(c, k);
    k->layers = cfg_int(c, "layers_per_block", 1, 0, 64);
    k->post_quant = cfg_bool(c, "use_post_quant_conv", true);
    k->attention = cfg_bool(c, "mid_block_add_attention", true);
    const char *act = cfg_string(c, "act_fn", "silu");
    if (act && strcmp(act, "silu") != 0 && strcmp(act, "swish") != 0)
        cfg_refuse(c, "act_fn %s is not supported, only silu", act);
    *info = (rung_vae_info){
        .latent_channels = (size_t)cfg_int(c, "latent_channels", 4, 1, VAE_MAX_LATENT),
        .image_channels = (size_t)cfg_int(c, "out_channels", 3, 3, 4),
        .factor = (size_t)1 << (k->levels - 1),
        .scaling_factor = (float)cfg_real(c, "scaling_factor", 0.18215, -1e6, 1e6),
        .shift_factor = (float)cfg_real(c, "shift_factor", 0, -1e6, 1e6),
    };
}

static void load_norm(rung_loader *l, struct norm *n, size_t ch, const char *name) {
    *n = (struct norm){load_vector(l, ch, "%s.weight", name), load_vector(l, ch, "%s.bias", name), ch};
}

static void load_resnet(rung_loader *l, struct resnet *b, size_t in, size_t out, const char *name) {
    char part[160];
    b->in = in;
    b->out = out;
    snprintf(part, sizeof part, "%s.norm1", name);
    load_norm(l, &b->norm1, in, part);
    snprintf(part, sizeof part, "%s.norm2", name);
    load_norm(l, &b->norm2, out, part);
    b->conv1 = load_conv(l, out, in, 3, 3, "%s.conv1", name);
    b->conv2 = load_conv(l, out, out, 3, 3, "%s.conv2", name);
    b->shortcut = in == out ? NULL : load_linear(l, out, in, LOAD_BIAS, "%s.conv_shortcut", name);
}

/* Checkpoints from before diffusers 0.17 call the projections query, key, value and proj_attn. */
static void load_attention(rung_loader *l, struct attention *a, size_t ch) {
    static const char *const prefix = "decoder.mid_block.attentions.0."; /* as load_linear_stack wants it */
    static const char *const now[] = {"to_q", "to_k", "to_v"}, *const then[] = {"query", "key", "value"};
    const bool old = load_has(l, "%squery.weight", prefix);
    load_norm(l, &a->norm, ch, "decoder.mid_block.attentions.0.group_norm");
    a->qkv = load_linear_stack(l, ch, ch, LOAD_BIAS, prefix, old ? then : now, 3);
    a->out = load_linear(l, ch, ch, LOAD_BIAS, "%s%s", prefix, old ? "proj_attn" : "to_out.0");
}

static rung_status load_up_block(rung_loader *l, struct up_block *b, size_t i, size_t in, size_t out, size_t resnets,
                                 bool last) {
    char name[80];
    b->ch = out;
    b->resnets = calloc(resnets, sizeof *b->resnets);
    if (!b->resnets) return rung_fail(l->err, RUNG_ENOMEM, "autoencoder: no memory for a block");
    for (size_t j = 0; j < resnets; j++) {
        snprintf(name, sizeof name, "decoder.up_blocks.%zu.resnets.%zu", i, j);
        load_resnet(l, &b->resnets[j], j ? out : in, out, name);
    }
    if (!last) b->up = load_conv(l, out, out, 3, 3, "decoder.up_blocks.%zu.upsamplers.0.conv", i);
    return RUNG_OK;
}

/* f32 [widest] of ones and zeros on the backend, and the host side of the statistics. */
static rung_status make_stats(decoder_kl *d, rung_loader *l) {
    struct stats *s = &d->stats;
    const size_t n = d->widest;
    s->mean = calloc(2 * n, sizeof *s->mean);
    s->scale = calloc(4 * n, sizeof *s->scale);
    if (!s->mean || !s->scale) return rung_fail(l->err, RUNG_ENOMEM, "autoencoder: no memory for statistics");
    s->square = s->mean + n;
    s->shift = s->scale + n;
    s->w = s->shift + n;
    s->b = s->w + n;
    d->zeros = load_computed(l, s->scale, n);
    for (size_t i = 0; i < n; i++) s->scale[i] = 1;
    d->ones = load_computed(l, s->scale, n);
    return RUNG_OK;
}

static rung_status load_layers(decoder_kl *d, rung_loader *l, const struct kl_config *k) {
    const size_t latent = d->base.info.latent_channels, top = (size_t)k->ch[k->levels - 1], last = (size_t)k->ch[0];
    size_t in = top;
    if (k->post_quant) d->post_quant = load_linear(l, latent, latent, LOAD_BIAS, "post_quant_conv");
    d->conv_in = load_conv(l, top, latent, 3, 3, "decoder.conv_in");
    load_resnet(l, &d->mid[0], top, top, "decoder.mid_block.resnets.0");
    if (k->attention) load_attention(l, &d->attention, top);
    load_resnet(l, &d->mid[1], top, top, "decoder.mid_block.resnets.1");
    for (size_t i = 0; i < k->levels; i++) {
        const size_t out = (size_t)k->ch[k->levels - 1 - i];
        RUNG_TRY(load_up_block(l, &d->up[i], i, in, out, d->per_block, i + 1 == k->levels));
        in = out;
    }
    load_norm(l, &d->norm_out, last, "decoder.conv_norm_out");
    d->conv_out = load_conv(l, d->base.info.image_channels, last, 3, 3, "decoder.conv_out");
    return make_stats(d, l);
}

static void close_kl(vae_decoder *base) {
    decoder_kl *d = (decoder_kl *)base;
    rung_layers_close(&base->layers);
    for (size_t i = 0; i < VAE_MAX_LEVELS; i++) free(d->up[i].resnets);
    free(d->stats.mean);
    free(d->stats.scale);
    free(d);
}

rung_status autoencoder_kl_open(vae_decoder **out, rung_config *c, rung_weights *w, rung_backend *be, rung_store store,
                                rung_err *err) {
    *out = NULL;
    struct kl_config k = {0};
    rung_loader l;
    rung_status st;
    decoder_kl *d = calloc(1, sizeof *d);
    if (!d) return rung_fail(err, RUNG_ENOMEM, "autoencoder: no memory");
    read_config(c, &k, &d->base.info);
    RUNG_TRY_GOTO(st, done, c->status);
    d->base.decode = decode_kl;
    d->base.close = close_kl;
    d->base.levels = k.levels;
    d->groups = (size_t)k.groups;
    d->per_block = (size_t)k.layers + 1;
    for (size_t i = 0; i < k.levels; i++) d->widest = size_max(d->widest, (size_t)k.ch[i]);

    vae_skip_weights(w, (const char *const[]){"encoder.", "quant_conv."}, 2);
    RUNG_TRY_GOTO(st, done, loader_start(&l, w, be, store, err));
    st = load_layers(d, &l, &k);
    if (st) l.status = st;
    RUNG_TRY_GOTO(st, done, loader_finish(&l, &d->base.layers));
    *out = &d->base;
    d = NULL;
done:
    if (d) close_kl(&d->base);
    return st;
}
