/* vae/autoencoder_tiny.c - AutoencoderTiny's decoder (TAESD): convolutions and residual blocks of three, no norm.
 * Source: Ollin Boer Bohan's TAESD; checked against diffusers AutoencoderTiny.decode.
 *
 * Nothing here looks at the whole picture, so strips of rows that compute enough of their neighbours are exact. The
 * last level takes nearly all the memory, so it alone works that way.
 */
#include <stdlib.h>
#include <string.h>

#include "vae/decoder.h"

struct tiny_block {
    const rung_conv *conv[3];
};

struct tiny_stage {
    struct tiny_block *blocks; /* [count] */
    size_t count;
    const rung_conv *conv; /* on the enlarged picture; in the last stage the image's */
};

typedef struct {
    vae_decoder base;
    size_t ch, enlarge;
    rung_act act;
    const rung_conv *conv_in;
    struct tiny_stage stages[VAE_MAX_LEVELS];
    const float *minus_half; /* f32 [image_channels] in backend memory */
} decoder_tiny;

/* Rows `rows` of relu(conv(act(conv(act(conv(x))))) + x), in place; x needs 3 more on each side, t [rows + 4, w, ch]
 * and u [rows + 2, w, ch] are scratch. */
static void run_block(const decoder_tiny *d, vae_run *r, const struct tiny_block *b, vae_view x, vae_rows rows,
                      float *t, float *u) {
    const vae_affine none = {0};
    const vae_rows rows_t = vae_rows_grow(rows, 2, x.h), rows_u = vae_rows_grow(rows, 1, x.h);
    const rung_epilogue act = {.act = d->act};
    float *y = rows_of(x.data, (rows.lo - x.first) * x.w * d->ch);
    vae_conv(r, t, rows_t, b->conv[0], x, d->ch, none, &act);
    vae_conv(r, u, rows_u, b->conv[1], (vae_view){t, rows_t.lo, x.h, x.w}, d->ch, none, &act);
    vae_conv(r, y, rows, b->conv[2], (vae_view){u, rows_u.lo, x.h, x.w}, d->ch, none, &(rung_epilogue){.residual = y});
    op_act(&r->exec, y, y, (rows.hi - rows.lo) * x.w * d->ch, RUNG_ACT_RELU);
}

/* The last convolution gives [0, 1]; (v - 1/2) * 2 is diffusers' [-1, 1]. */
static void run_conv_out(const decoder_tiny *d, vae_run *r, float *image, vae_view x, vae_rows rows) {
    const rung_epilogue ep = {
        .sample_add = d->minus_half, .rows_per_sample = (rows.hi - rows.lo) * x.w, .out_scale = 2};
    vae_conv(r, image, rows, d->stages[d->base.levels - 1].conv, x, d->ch, (vae_affine){0}, &ep);
}

/* The last enlargement `up` of the picture src (whole), the last stage and the image, strip by strip. */
static void strip_last_stage(const decoder_tiny *d, vae_run *r, float *image, const rung_conv *up, vae_view src,
                             int spare) {
    const struct tiny_stage *s = &d->stages[d->base.levels - 1];
    const size_t h = src.h * d->enlarge, w = src.w * d->enlarge, rim = 3 * s->count + 1;
    const size_t most = VAE_STRIP_ROWS + 2 * rim;
    vae_view x = {vae_room(r, spare, most + 2 * d->enlarge, w * d->ch), 0, h, w};
    float *t = vae_room(r, ROOM_SPARE, most, w * d->ch), *u = exec_floats(&r->exec, most, w * d->ch);
    for (size_t lo = 0; lo < h; lo += VAE_STRIP_ROWS) {
        const vae_rows core = {lo, size_min(lo + VAE_STRIP_ROWS, h)};
        x.first = vae_conv_up(r, x.data, vae_rows_grow(core, rim, h), up, src, d->ch, d->enlarge, NULL).lo;
        for (size_t i = 0; i < s->count; i++)
            run_block(d, r, &s->blocks[i], x, vae_rows_grow(core, rim - 3 * (i + 1), h), t, u);
        run_conv_out(d, r, rows_of(image, lo * w * d->base.info.image_channels), x, core);
    }
}

static const float *decode_tiny(vae_decoder *base, vae_run *r, const float *z, size_t h, size_t w) {
    const decoder_tiny *d = (const decoder_tiny *)base;
    const size_t side = base->info.factor;
    float *image = exec_floats(&r->exec, h * side * w * side, base->info.image_channels);
    int here = ROOM_HERE, next = ROOM_NEXT;
    vae_view x = {vae_room(r, here, h * w, d->ch), 0, h, w};
    const vae_view latents = {(float *)z, 0, h, w};
    vae_conv(r, x.data, (vae_rows){0, h}, d->conv_in, latents, base->info.latent_channels, (vae_affine){0},
             &(rung_epilogue){.act = d->act});

    for (size_t i = 0; i < base->levels; i++) {
        const struct tiny_stage *s = &d->stages[i];
        const vae_rows all = {0, x.h};
        for (size_t j = 0; j < s->count; j++) {
            float *t = vae_room(r, next, x.h * x.w, d->ch), *u = vae_room(r, ROOM_SPARE, x.h * x.w, d->ch);
            run_block(d, r, &s->blocks[j], x, all, t, u);
        }
        if (i + 1 == base->levels) {
            run_conv_out(d, r, image, x, all);
        } else if (i + 2 == base->levels && i + 1 >= r->strips_from) {
            strip_last_stage(d, r, image, s->conv, x, next);
            break;
        } else {
            const vae_view y = {NULL, 0, x.h * d->enlarge, x.w * d->enlarge};
            float *data = vae_room(r, next, y.h * y.w, d->ch);
            vae_conv_up(r, data, (vae_rows){0, y.h}, s->conv, x, d->ch, d->enlarge, NULL);
            x = (vae_view){data, 0, y.h, y.w};
            const int t = here;
            here = next;
            next = t;
        }
    }
    return image;
}

/* ---- loading ---- */

struct tiny_config {
    long ch[VAE_MAX_LEVELS], blocks[VAE_MAX_LEVELS];
};

static void read_stages(decoder_tiny *d, rung_config *c, struct tiny_config *k) {
    static const long ch[] = {64, 64, 64, 64}, blocks[] = {3, 3, 3, 1};
    size_t widths, counts;
    cfg_ints(c, "decoder_block_out_channels", k->ch, VAE_MAX_LEVELS, &widths, 1, 1 << 16);
    cfg_ints(c, "num_decoder_blocks", k->blocks, VAE_MAX_LEVELS, &counts, 0, 64);
    if (widths == 0) {
        memcpy(k->ch, ch, sizeof ch);
        widths = 4;
    }
    if (counts == 0) {
        memcpy(k->blocks, blocks, sizeof blocks);
        counts = 4;
    }
    if (widths != counts) cfg_refuse(c, "%zu num_decoder_blocks for %zu decoder_block_out_channels", counts, widths);
    for (size_t i = 1; i < widths; i++)
        if (k->ch[i] != k->ch[0]) cfg_refuse(c, "decoder_block_out_channels %ld and %ld differ", k->ch[0], k->ch[i]);
    d->base.levels = widths;
    d->ch = (size_t)k->ch[0];
}

static rung_act read_act(rung_config *c) {
    const char *name = cfg_string(c, "act_fn", "relu");
    if (strcmp(name, "relu") == 0) return RUNG_ACT_RELU;
    if (strcmp(name, "silu") == 0 || strcmp(name, "swish") == 0) return RUNG_ACT_SILU;
    if (strcmp(name, "gelu") == 0) return RUNG_ACT_GELU;
    cfg_refuse(c, "act_fn %s is not supported, only relu, silu, swish and gelu", name);
    return RUNG_ACT_NONE;
}

static void read_config(decoder_tiny *d, rung_config *c, struct tiny_config *k) {
    read_stages(d, c, k);
    d->act = read_act(c);
    const char *upsample = cfg_string(c, "upsample_fn", "nearest");
    if (strcmp(upsample, "nearest") != 0) cfg_refuse(c, "upsample_fn %s is not supported, only nearest", upsample);
    d->enlarge = (size_t)cfg_int(c, "upsampling_scaling_factor", 2, 1, 4);
    d->base.info = (rung_vae_info){
        .latent_channels = (size_t)cfg_int(c, "latent_channels", 4, 1, VAE_MAX_LATENT),
        .image_channels = (size_t)cfg_int(c, "out_channels", 3, 3, 4),
        .factor = 1,
        .scaling_factor = (float)cfg_real(c, "scaling_factor", 1, -1e6, 1e6),
        .shift_factor = (float)cfg_real(c, "shift_factor", 0, -1e6, 1e6),
    };
    for (size_t i = 1; i < d->base.levels; i++) d->base.info.factor *= d->enlarge;
    if (d->base.info.factor > VAE_MAX_FACTOR)
        cfg_refuse(c, "the picture would be enlarged %zu times, at most %d", d->base.info.factor, VAE_MAX_FACTOR);
}

/* The modules of decoder.layers are numbered in a row, activations and enlargements among them. */
static rung_status load_layers(decoder_tiny *d, rung_loader *l, const struct tiny_config *k) {
    static const float minus_half[4] = {-0.5f, -0.5f, -0.5f, -0.5f};
    const size_t ch = d->ch, image = d->base.info.image_channels;
    size_t layer = 2;
    d->conv_in = load_conv(l, ch, d->base.info.latent_channels, 3, 3, "decoder.layers.0");
    for (size_t i = 0; i < d->base.levels; i++) {
        struct tiny_stage *s = &d->stages[i];
        const bool last = i + 1 == d->base.levels;
        s->count = (size_t)k->blocks[i];
        s->blocks = calloc(s->count + 1, sizeof *s->blocks); /* + 1: a count of 0 is fine */
        if (!s->blocks) return rung_fail(l->err, RUNG_ENOMEM, "autoencoder: no memory for a stage");
        for (size_t j = 0; j < s->count; j++, layer++)
            for (size_t m = 0; m < 3; m++)
                s->blocks[j].conv[m] = load_conv(l, ch, ch, 3, 3, "decoder.layers.%zu.conv.%zu", layer, 2 * m);
        if (!last) layer++;
        s->conv = last ? load_conv(l, image, ch, 3, 3, "decoder.layers.%zu", layer)
                       : load_conv_no_bias(l, ch, ch, 3, 3, "decoder.layers.%zu", layer);
        layer++;
    }
    d->minus_half = load_computed(l, minus_half, image);
    return RUNG_OK;
}

static void close_tiny(vae_decoder *base) {
    decoder_tiny *d = (decoder_tiny *)base;
    rung_layers_close(&base->layers);
    for (size_t i = 0; i < VAE_MAX_LEVELS; i++) free(d->stages[i].blocks);
    free(d);
}

rung_status autoencoder_tiny_open(vae_decoder **out, rung_config *c, rung_weights *w, rung_backend *be,
                                  rung_store store, rung_err *err) {
    *out = NULL;
    struct tiny_config k = {0};
    rung_loader l;
    rung_status st;
    decoder_tiny *d = calloc(1, sizeof *d);
    if (!d) return rung_fail(err, RUNG_ENOMEM, "autoencoder: no memory");
    read_config(d, c, &k);
    RUNG_TRY_GOTO(st, done, c->status);
    d->base.decode = decode_tiny;
    d->base.close = close_tiny;
    d->base.squash = true;

    vae_skip_weights(w, (const char *const[]){"encoder."}, 1);
    RUNG_TRY_GOTO(st, done, loader_start(&l, w, be, store, err));
    st = load_layers(d, &l, &k);
    if (st) l.status = st;
    RUNG_TRY_GOTO(st, done, loader_finish(&l, &d->base.layers));
    *out = &d->base;
    d = NULL;
done:
    if (d) close_tiny(&d->base);
    return st;
}
