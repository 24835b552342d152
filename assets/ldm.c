#include "assets/ldm.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { NAME = 200, MAX_COUNT = 100 };

#define UNET      "model.diffusion_model."
#define VAE       "first_stage_model."
#define CLIP      "cond_stage_model.transformer."
#define OPEN_CLIP "cond_stage_model.model."

static const rung_tensor *find(rung_weights *file, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static const rung_tensor *find(rung_weights *file, const char *fmt, ...) {
    char name[NAME];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    return rung_weights_find(file, name);
}

/* Dimension i of a tensor, 0 without the tensor or the dimension. */
static size_t dim(const rung_tensor *t, int i) { return t && i < t->ndim ? t->shape[i] : 0; }

static rung_status refuse(const rung_weights *file, const char *what, rung_err *err) {
    return rung_fail(err, RUNG_EFORMAT, "%s: %s", rung_weights_path(file), what);
}

/* ---- U-Net ---- */

/* Transformer blocks of the attention called `name`. */
static size_t attention_depth(rung_weights *file, const char *name) {
    size_t n = 0;
    while (n < MAX_COUNT && find(file, UNET "%s.transformer_blocks.%zu.attn1.to_q.weight", name, n)) n++;
    return n;
}

static rung_status add_block(ldm_unet *u, rung_weights *file, size_t block, size_t level, size_t nth, size_t out,
                             rung_err *err) {
    char name[NAME];
    snprintf(name, sizeof name, "input_blocks.%zu.1", block);
    const size_t depth = attention_depth(file, name);
    if (nth == 0) {
        u->ch[level] = out;
        u->depth[level] = depth;
    } else if (u->ch[level] != out || u->depth[level] != depth) {
        return refuse(file, "U-Net blocks of one level differ in width or attention", err);
    }
    const rung_tensor *proj = find(file, UNET "%s.proj_in.weight", name);
    if (depth == 0 || u->context) return RUNG_OK;
    u->context = dim(find(file, UNET "%s.transformer_blocks.0.attn2.to_k.weight", name), 1);
    u->linear = proj && proj->ndim == 2;
    return RUNG_OK;
}

/* Down the input blocks: residual blocks up to a strided convolution ("op") make a level. */
static rung_status inspect_unet(ldm_unet *u, rung_weights *file, rung_err *err) {
    size_t level = 0, nth = 0;
    u->in = dim(find(file, UNET "input_blocks.0.0.weight"), 1);
    u->out = dim(find(file, UNET "out.2.weight"), 0);
    for (size_t i = 1; i < MAX_COUNT; i++) {
        const bool down = find(file, UNET "input_blocks.%zu.0.op.weight", i) != NULL;
        const size_t out = dim(find(file, UNET "input_blocks.%zu.0.in_layers.2.weight", i), 0);
        if (!down && !out) break;
        if (!down) {
            RUNG_TRY(add_block(u, file, i, level, nth++, out, err));
            continue;
        }
        if (level == 0) u->layers = nth;
        if (nth == 0 || nth != u->layers) return refuse(file, "U-Net levels differ in their number of blocks", err);
        if (++level == LDM_LEVELS) return refuse(file, "the U-Net has more than 8 levels", err);
        nth = 0;
    }
    if (level == 0) u->layers = nth;
    if (nth == 0 || nth != u->layers) return refuse(file, "U-Net levels differ in their number of blocks", err);
    u->levels = level + 1;
    u->mid_depth = attention_depth(file, "middle_block.1");
    if (u->depth[level] && u->depth[level] != u->mid_depth)
        return refuse(file, "the U-Net's last level and middle block differ in transformer depth", err);
    if (!u->in || !u->out || !u->context || !u->mid_depth)
        return refuse(file, "U-Net: input_blocks.0, out.2, middle_block.1 or cross attention is missing", err);
    return RUNG_OK;
}

/* ---- VAE ---- */

static rung_status inspect_vae(ldm_vae *v, rung_weights *file, rung_err *err) {
    for (;; v->levels++) {
        const size_t ch = dim(find(file, VAE "decoder.up.%zu.block.0.conv1.weight", v->levels), 0);
        if (!ch) break;
        if (v->levels == LDM_LEVELS) return refuse(file, "the VAE has more than 8 levels", err);
        v->ch[v->levels] = ch;
    }
    size_t blocks = 0;
    while (blocks < MAX_COUNT && find(file, VAE "decoder.up.0.block.%zu.conv1.weight", blocks)) blocks++;
    v->latent = dim(find(file, VAE "decoder.conv_in.weight"), 1);
    v->out = dim(find(file, VAE "decoder.conv_out.weight"), 0);
    v->in = dim(find(file, VAE "encoder.conv_in.weight"), 1);
    if (!v->in) v->in = v->out; /* a pruned file has no encoder */
    v->quant = find(file, VAE "quant_conv.weight") != NULL;
    v->post_quant = find(file, VAE "post_quant_conv.weight") != NULL;
    v->attention = find(file, VAE "decoder.mid.attn_1.q.weight") != NULL;
    if (blocks < 2 || !v->latent || !v->out)
        return refuse(file, "VAE: decoder.up, decoder.conv_in or decoder.conv_out is missing", err);
    v->layers = blocks - 1; /* the decoder has one more than the encoder, which the config counts */
    return RUNG_OK;
}

/* ---- text encoder ---- */

static rung_status inspect_clip(ldm_text *t, rung_weights *file, rung_err *err) {
    const char *const inner = find(file, CLIP "embeddings.token_embedding.weight") ? "" : "text_model.";
    const rung_tensor *tokens = find(file, CLIP "%sembeddings.token_embedding.weight", inner);
    t->vocab = dim(tokens, 0);
    t->width = dim(tokens, 1);
    t->positions = dim(find(file, CLIP "%sembeddings.position_embedding.weight", inner), 0);
    t->intermediate = dim(find(file, CLIP "%sencoder.layers.0.mlp.fc1.weight", inner), 0);
    while (t->layers < MAX_COUNT && find(file, CLIP "%sencoder.layers.%zu.mlp.fc1.weight", inner, t->layers))
        t->layers++;
    if (!t->width || !t->positions || !t->layers)
        return refuse(file, "CLIP text encoder: embeddings or layers are missing", err);
    return RUNG_OK;
}

/* SD2 is conditioned on the penultimate layer of its OpenCLIP tower. As in diffusers' configs the last layer is
 * therefore left out. A file exported from diffusers has lost that layer already, and text_projection with it. */
static rung_status inspect_open_clip(ldm_text *t, rung_weights *file, rung_err *err) {
    enum { EXPORTED_SD2 = 23 };
    const rung_tensor *tokens = find(file, OPEN_CLIP "token_embedding.weight");
    t->vocab = dim(tokens, 0);
    t->width = dim(tokens, 1);
    t->positions = dim(find(file, OPEN_CLIP "positional_embedding"), 0);
    t->intermediate = dim(find(file, OPEN_CLIP "transformer.resblocks.0.mlp.c_fc.weight"), 0);
    while (t->layers < MAX_COUNT && find(file, OPEN_CLIP "transformer.resblocks.%zu.mlp.c_fc.weight", t->layers))
        t->layers++;
    const bool whole = find(file, OPEN_CLIP "text_projection") && t->layers != EXPORTED_SD2;
    if (whole || t->layers == EXPORTED_SD2 + 1) t->layers--;
    if (!t->width || !t->positions || !t->layers)
        return refuse(file, "OpenCLIP text encoder: embeddings or layers are missing", err);
    return RUNG_OK;
}

static bool has_prefix(const rung_weights *file, const char *prefix) {
    for (size_t i = 0; i < rung_weights_count(file); i++)
        if (strncmp(rung_weights_name(file, i), prefix, strlen(prefix)) == 0) return true;
    return false;
}

rung_status ldm_inspect(ldm_layout *l, rung_weights *file, rung_err *err) {
    *l = (ldm_layout){0};
    l->has_unet = has_prefix(file, UNET "input_blocks.");
    l->has_vae = has_prefix(file, VAE "decoder.");
    const bool clip = has_prefix(file, CLIP), open_clip = has_prefix(file, OPEN_CLIP);
    l->has_text = clip || open_clip;
    if (has_prefix(file, "conditioner.embedders."))
        return refuse(file, "is a single file of SDXL, wanted SD1.x or SD2.x (or SDXL's diffusers directory)", err);
    if (!l->has_unet)
        return refuse(file, "has no tensors " UNET "input_blocks.*: not a single file of SD1.x or SD2.x", err);
    RUNG_TRY(inspect_unet(&l->unet, file, err));
    if (l->has_vae) RUNG_TRY(inspect_vae(&l->vae, file, err));
    if (clip) RUNG_TRY(inspect_clip(&l->text, file, err));
    if (open_clip && !clip) RUNG_TRY(inspect_open_clip(&l->text, file, err));
    l->sd2 = clip ? false : open_clip || l->unet.linear;
    return RUNG_OK;
}
