/* assets/ldm_names.c - the original names of SD1.x and SD2.x tensors, turned into those of diffusers and transformers.
 */
#include <stdio.h>
#include <string.h>

#include "assets/ldm.h"

enum { NAME = 512, INNER = 400 }; /* longer names are cut: no network has them, so they end up as surplus */

struct pair {
    const char *from, *to;
};

/* `name` with its beginning replaced by the first pair that fits; as it stands when none does. */
static void replace_start(char *out, size_t cap, const char *name, const struct pair *pairs, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const size_t len = strlen(pairs[i].from);
        if (strncmp(name, pairs[i].from, len) == 0) {
            snprintf(out, cap, "%s%s", pairs[i].to, name + len);
            return;
        }
    }
    snprintf(out, cap, "%s", name);
}

#define REPLACE_START(out, name, pairs) replace_start(out, sizeof(out), name, pairs, sizeof(pairs) / sizeof *(pairs))

/* What follows `prefix`, or NULL. */
static const char *after(const char *name, const char *prefix) {
    const size_t n = strlen(prefix);
    return strncmp(name, prefix, n) == 0 ? name + n : NULL;
}

/* ---- U-Net ---- */

static void unet_resnet(char out[NAME], const char *block, size_t nth, const char *rest) {
    static const struct pair pairs[] = {{"in_layers.0.", "norm1."},          {"in_layers.2.", "conv1."},
                                        {"out_layers.0.", "norm2."},         {"out_layers.3.", "conv2."},
                                        {"emb_layers.1.", "time_emb_proj."}, {"skip_connection.", "conv_shortcut."}};
    char inner[INNER];
    REPLACE_START(inner, rest, pairs);
    snprintf(out, NAME, "%s.resnets.%zu.%s", block, nth, inner);
}

/* Input and output blocks: the first module is a residual block (or a lone convolution), attention follows, and the
 * enlarging convolution comes last, after the attention or in its place. */
static void unet_block(char out[NAME], const char *block, size_t nth, unsigned module, const char *rest) {
    const char *conv = after(rest, module == 0 ? "op." : "conv.");
    if (conv)
        snprintf(out, NAME, "%s.%s.0.conv.%s", block, module == 0 ? "downsamplers" : "upsamplers", conv);
    else if (module == 0)
        unet_resnet(out, block, nth, rest);
    else
        snprintf(out, NAME, "%s.attentions.%zu.%s", block, nth, rest);
}

static void unet_name(char out[NAME], const ldm_unet *u, const char *name) {
    static const struct pair pairs[] = {{"input_blocks.0.0.", "conv_in."},
                                        {"time_embed.0.", "time_embedding.linear_1."},
                                        {"time_embed.2.", "time_embedding.linear_2."},
                                        {"out.0.", "conv_norm_out."},
                                        {"out.2.", "conv_out."},
                                        {"middle_block.1.", "mid_block.attentions.0."}};
    char block[40];
    unsigned i, module;
    int at = 0;
    const size_t per_level = u->layers + 1;
    if (sscanf(name, "input_blocks.%4u.%1u.%n", &i, &module, &at) == 2 && at && i > 0) {
        snprintf(block, sizeof block, "down_blocks.%zu", (i - 1) / per_level);
        unet_block(out, block, (i - 1) % per_level, module, name + at);
    } else if (sscanf(name, "output_blocks.%4u.%1u.%n", &i, &module, &at) == 2 && at) {
        snprintf(block, sizeof block, "up_blocks.%zu", i / per_level);
        unet_block(out, block, i % per_level, module, name + at);
    } else if (sscanf(name, "middle_block.%1u.%n", &module, &at) == 1 && at && module % 2 == 0) {
        unet_resnet(out, "mid_block", module / 2, name + at);
    } else {
        replace_start(out, NAME, name, pairs, sizeof pairs / sizeof *pairs);
    }
}

rung_status ldm_map_unet(rung_weights *w, const char *name, const rung_tensor *t, void *arg, rung_err *err) {
    const char *rest = after(name, "model.diffusion_model.");
    const ldm_layout *l = arg;
    char out[NAME];
    if (!rest) return RUNG_OK;
    unet_name(out, &l->unet, rest);
    return weights_add(w, out, t, err);
}

/* ---- VAE ---- */

enum { SIDE = 8 }; /* length of "encoder." and "decoder." */

/* Names inside "encoder." and "decoder.". The original counts the decoder's levels from the highest resolution. */
static void vae_name(char out[NAME - SIDE], const ldm_vae *v, const char *name) {
    static const struct pair outer[] = {{"norm_out.", "conv_norm_out."}};
    static const struct pair resnet[] = {{"nin_shortcut.", "conv_shortcut."}};
    static const struct pair attention[] = {
        {"norm.", "group_norm."}, {"q.", "to_q."}, {"k.", "to_k."}, {"v.", "to_v."}, {"proj_out.", "to_out.0."}};
    char way[8], inner[INNER];
    unsigned i, block;
    int at = 0;
    if (sscanf(name, "mid.block_%1u.%n", &block, &at) == 1 && at && block > 0) {
        REPLACE_START(inner, name + at, resnet);
        snprintf(out, NAME - SIDE, "mid_block.resnets.%u.%s", block - 1, inner);
    } else if (after(name, "mid.attn_1.")) {
        REPLACE_START(inner, after(name, "mid.attn_1."), attention);
        snprintf(out, NAME - SIDE, "mid_block.attentions.0.%s", inner);
    } else if (sscanf(name, "%7[a-z].%4u.%n", way, &i, &at) == 2 && at && i < v->levels &&
               (strcmp(way, "up") == 0 || strcmp(way, "down") == 0)) {
        const char *rest = name + at, *conv = after(rest, "upsample.conv.");
        const size_t level = way[0] == 'u' ? v->levels - 1 - i : i;
        if (!conv) conv = after(rest, "downsample.conv.");
        at = 0;
        if (conv)
            snprintf(out, NAME - SIDE, "%s_blocks.%zu.%ssamplers.0.conv.%s", way, level, way, conv);
        else if (sscanf(rest, "block.%4u.%n", &block, &at) == 1 && at) {
            REPLACE_START(inner, rest + at, resnet);
            snprintf(out, NAME - SIDE, "%s_blocks.%zu.resnets.%u.%s", way, level, block, inner);
        } else {
            snprintf(out, NAME - SIDE, "%s", name);
        }
    } else {
        replace_start(out, NAME - SIDE, name, outer, 1);
    }
}

rung_status ldm_map_vae(rung_weights *w, const char *name, const rung_tensor *t, void *arg, rung_err *err) {
    static const char *const sides[] = {"encoder.", "decoder."};
    const char *rest = after(name, "first_stage_model.");
    const ldm_layout *l = arg;
    char out[NAME];
    if (!rest) return RUNG_OK;
    for (int i = 0; i < 2; i++) {
        const char *within = after(rest, sides[i]);
        if (!within) continue;
        memcpy(out, sides[i], SIDE);
        vae_name(out + SIDE, &l->vae, within);
        return weights_add(w, out, t, err);
    }
    return weights_add(w, rest, t, err);
}

/* ---- text encoders ---- */

static rung_status add_fused(rung_weights *w, size_t layer, const char *what, const rung_tensor *t, rung_err *err) {
    static const char *const names[] = {"q", "k", "v"};
    for (size_t i = 0; i < 3; i++) {
        char out[NAME];
        rung_tensor cut;
        snprintf(out, sizeof out, "encoder.layers.%zu.self_attn.%s_proj.%s", layer, names[i], what);
        RUNG_TRY(weights_cut_rows(w, out, t, i, 3, &cut, err));
        RUNG_TRY(weights_add(w, out, &cut, err));
    }
    return RUNG_OK;
}

static rung_status map_open_clip(rung_weights *w, const char *name, const rung_tensor *t, const ldm_text *text,
                                 rung_err *err) {
    static const struct pair outer[] = {{"positional_embedding", "embeddings.position_embedding.weight"},
                                        {"token_embedding.", "embeddings.token_embedding."},
                                        {"ln_final.", "final_layer_norm."},
                                        {"text_projection", "text_projection.weight"}};
    static const struct pair layer[] = {{"ln_1.", "layer_norm1."},
                                        {"ln_2.", "layer_norm2."},
                                        {"mlp.c_fc.", "mlp.fc1."},
                                        {"mlp.c_proj.", "mlp.fc2."},
                                        {"attn.", "self_attn."}};
    char out[NAME], inner[INNER];
    unsigned i;
    int at = 0;
    if (sscanf(name, "transformer.resblocks.%4u.%n", &i, &at) != 1 || !at) {
        REPLACE_START(out, name, outer);
        return weights_add(w, out, t, err);
    }
    if (i >= text->layers) return RUNG_OK;
    const char *fused = after(name + at, "attn.in_proj_");
    if (fused) return add_fused(w, i, fused, t, err);
    REPLACE_START(inner, name + at, layer);
    snprintf(out, sizeof out, "encoder.layers.%u.%s", i, inner);
    return weights_add(w, out, t, err);
}

rung_status ldm_map_text(rung_weights *w, const char *name, const rung_tensor *t, void *arg, rung_err *err) {
    const ldm_layout *l = arg;
    const char *clip = after(name, "cond_stage_model.transformer.");
    const char *open_clip = after(name, "cond_stage_model.model.");
    if (l->sd2) return open_clip ? map_open_clip(w, open_clip, t, &l->text, err) : RUNG_OK;
    if (!clip) return RUNG_OK;
    const char *rest = after(clip, "text_model.");
    return weights_add(w, rest ? rest : clip, t, err);
}
