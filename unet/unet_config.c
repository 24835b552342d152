#include "unet/unet_config.h"

#include <string.h>
#include <strings.h>

#include "kernels/base/size.h"
#include "unet/config_keys.h"

enum { WIDTH_MAX = 1 << 16, DEPTH_MAX = 64 };

/* resnet_skip_time_act, resnet_out_scale_factor, cross_attention_norm and mid_block_only_cross_attention reach only
 * block types that are refused below; the sizes of additions that must be null are read by nothing. */
static const config_key keys[] = {
    {"act_fn", KEY_READ},
    {"addition_embed_type", KEY_READ},
    {"addition_embed_type_num_heads", KEY_READ},
    {"addition_time_embed_dim", KEY_READ},
    {"attention_head_dim", KEY_READ},
    {"attention_type", KEY_READ},
    {"block_out_channels", KEY_READ},
    {"center_input_sample", KEY_READ},
    {"class_embed_type", KEY_ONLY_NULL},
    {"class_embeddings_concat", KEY_ONLY_FALSE},
    {"conv_in_kernel", KEY_READ},
    {"conv_out_kernel", KEY_READ},
    {"cross_attention_dim", KEY_READ},
    {"cross_attention_norm", KEY_READ},
    {"down_block_types", KEY_READ},
    {"downsample_padding", KEY_READ},
    {"dropout", KEY_READ},
    {"dual_cross_attention", KEY_ONLY_FALSE},
    {"encoder_hid_dim", KEY_READ},
    {"encoder_hid_dim_type", KEY_READ},
    {"flip_sin_to_cos", KEY_READ},
    {"freq_shift", KEY_READ},
    {"in_channels", KEY_READ},
    {"layers_per_block", KEY_READ},
    {"mid_block_only_cross_attention", KEY_READ},
    {"mid_block_scale_factor", KEY_READ},
    {"mid_block_type", KEY_READ},
    {"norm_eps", KEY_READ},
    {"norm_num_groups", KEY_READ},
    {"num_attention_heads", KEY_READ},
    {"num_class_embeds", KEY_ONLY_NULL},
    {"only_cross_attention", KEY_READ},
    {"out_channels", KEY_READ},
    {"projection_class_embeddings_input_dim", KEY_READ},
    {"resnet_out_scale_factor", KEY_READ},
    {"resnet_skip_time_act", KEY_READ},
    {"resnet_time_scale_shift", KEY_READ},
    {"reverse_transformer_layers_per_block", KEY_ONLY_NULL},
    {"sample_size", KEY_READ},
    {"time_cond_proj_dim", KEY_ONLY_NULL},
    {"time_embedding_act_fn", KEY_READ},
    {"time_embedding_dim", KEY_READ},
    {"time_embedding_type", KEY_READ},
    {"timestep_post_act", KEY_READ},
    {"transformer_layers_per_block", KEY_READ},
    {"up_block_types", KEY_READ},
    {"upcast_attention", KEY_READ},
    {"use_linear_projection", KEY_READ},
};

/* One number for all levels, or a list of one for each. */
static void read_levels(rung_config *c, const char *key, long def, long lo, long hi, size_t levels, size_t *out) {
    long v[UNET_LEVELS];
    size_t n;
    cfg_ints(c, key, v, UNET_LEVELS, &n, lo, hi);
    const bool list = cJSON_IsArray(cJSON_GetObjectItemCaseSensitive(c->root, key));
    if (list && n != levels && !c->status)
        cfg_refuse(c, "\"%s\" has %zu entries, \"block_out_channels\" has %zu", key, n, levels);
    for (size_t i = 0; i < levels; i++) out[i] = (size_t)(n == 0 || c->status ? def : v[list ? i : 0]);
}

/* Block types in the file's order; attn[i] for CrossAttn*. */
static void read_types(rung_config *c, const char *key, const char *plain, const char *cross, size_t levels,
                       bool *attn) {
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(c->root, key);
    const bool down = strncmp(plain, "Down", 4) == 0;
    if (!list || cJSON_IsNull(list)) { /* the default has four levels, the coarsest without attention */
        for (size_t i = 0; i < levels; i++) attn[i] = down ? i != 3 : i != 0;
        if (levels != 4) cfg_refuse(c, "\"%s\" is missing and \"block_out_channels\" has %zu entries", key, levels);
        return;
    }
    const int found = cJSON_IsArray(list) ? cJSON_GetArraySize(list) : 0;
    if ((size_t)found != levels) {
        cfg_refuse(c, "\"%s\" has %d entries, \"block_out_channels\" has %zu", key, found, levels);
        return;
    }
    size_t i = 0;
    const cJSON *entry;
    cJSON_ArrayForEach(entry, list) {
        const char *s = cJSON_GetStringValue(entry);
        if (s && strncmp(s, "UNetRes", 7) == 0) s += 7; /* an old prefix that diffusers drops as well */
        attn[i] = s && strcmp(s, cross) == 0;
        if (!s || (!attn[i] && strcmp(s, plain) != 0))
            cfg_refuse(c, "\"%s\"[%zu] is %.60s; %s and %s are supported", key, i, s ? s : "no string", plain, cross);
        i++;
    }
}

static void read_channels(unet_config *u, rung_config *c) {
    static const long usual[] = {320, 640, 1280, 1280};
    long v[UNET_LEVELS];
    cfg_ints(c, "block_out_channels", v, UNET_LEVELS, &u->levels, 1, WIDTH_MAX);
    if (u->levels == 0) {
        u->levels = 4;
        memcpy(v, usual, sizeof usual);
    }
    for (size_t i = 0; i < u->levels; i++) {
        u->level[i].channels = (size_t)v[i];
        if (!c->status && u->level[i].channels % u->groups)
            cfg_refuse(c, "\"block_out_channels\"[%zu] is %ld, not divisible by \"norm_num_groups\" %zu", i, v[i],
                       u->groups);
    }
}

static void read_blocks(unet_config *u, rung_config *c) {
    static const char *const mids[] = {"UNetMidBlock2DCrossAttn", "UNetMidBlock2D"};
    const size_t n = u->levels;
    size_t layers[UNET_LEVELS], heads[UNET_LEVELS], depth[UNET_LEVELS];
    bool down[UNET_LEVELS], up[UNET_LEVELS], only[UNET_LEVELS];
    read_levels(c, "layers_per_block", 2, 1, UNET_LAYERS, n, layers);
    /* The name says width, the meaning is count: what diffusers does with attention_head_dim in this class. */
    const char *heads_key = cfg_has(c, "num_attention_heads") ? "num_attention_heads" : "attention_head_dim";
    read_levels(c, heads_key, 8, 1, WIDTH_MAX, n, heads);
    read_levels(c, "transformer_layers_per_block", 1, 0, DEPTH_MAX, n, depth);
    config_bools(c, "only_cross_attention", only, n);
    read_types(c, "down_block_types", "DownBlock2D", "CrossAttnDownBlock2D", n, down);
    read_types(c, "up_block_types", "UpBlock2D", "CrossAttnUpBlock2D", n, up);
    u->mid = UNET_MID_CROSS;
    if (cfg_has(c, "mid_block_type"))
        u->mid = config_word(c, "mid_block_type", mids, 2, 0) == 0 ? UNET_MID_CROSS : UNET_MID_RES;
    else if (config_present(c, "mid_block_type"))
        u->mid = UNET_MID_NONE;
    if (c->status) return;
    for (size_t i = 0; i < n; i++) {
        unet_level *v = &u->level[i];
        const bool attn = down[i] || up[n - 1 - i] || (i == n - 1 && u->mid == UNET_MID_CROSS);
        *v = (unet_level){.channels = v->channels,
                          .layers = layers[i],
                          .heads = attn ? heads[i] : 0,
                          .depth = depth[i],
                          .down_attn = down[i],
                          .up_attn = up[n - 1 - i],
                          .only_cross = only[i]};
        if (v->heads && v->channels % v->heads)
            cfg_refuse(c, "\"%s\" gives %zu heads for the %zu channels of level %zu", heads_key, v->heads, v->channels,
                       i);
    }
}

static rung_act read_act(rung_config *c, const char *key) {
    static const struct {
        const char *name;
        rung_act act;
    } acts[] = {{"silu", RUNG_ACT_SILU}, {"swish", RUNG_ACT_SILU}, {"gelu", RUNG_ACT_GELU}, {"relu", RUNG_ACT_RELU}};
    const char *s = cfg_string(c, key, NULL);
    if (!s) return RUNG_ACT_NONE;
    for (size_t i = 0; i < sizeof acts / sizeof *acts; i++)
        if (strcasecmp(acts[i].name, s) == 0) return acts[i].act;
    cfg_refuse(c, "\"%s\": \"%.60s\" is not supported", key, s);
    return RUNG_ACT_NONE;
}

static void read_time(unet_config *u, rung_config *c) {
    static const char *const types[] = {"positional"}, *const shifts[] = {"default", "scale_shift"};
    config_word(c, "time_embedding_type", types, 1, 0);
    u->scale_shift = config_word(c, "resnet_time_scale_shift", shifts, 2, 0) == 1;
    u->time_dim = (size_t)cfg_int(c, "time_embedding_dim", (long)(4 * u->level[0].channels), 1, 4 * WIDTH_MAX);
    u->flip_sin_to_cos = cfg_bool(c, "flip_sin_to_cos", true);
    u->freq_shift = cfg_real(c, "freq_shift", 0, -WIDTH_MAX, WIDTH_MAX);
    u->time_post_act = read_act(c, "timestep_post_act");
    u->time_act = read_act(c, "time_embedding_act_fn");
    const size_t half = u->level[0].channels / 2; /* one channel alone has no frequency, its embedding is 0 */
    if (!c->status && half > 0 && (double)half == u->freq_shift)
        cfg_refuse(c, "\"freq_shift\" is %g, half of \"block_out_channels\"[0]: no frequencies are left",
                   u->freq_shift);
}

static void read_text(unet_config *u, rung_config *c) {
    static const char *const projections[] = {"text_proj"};
    long v[UNET_LEVELS];
    size_t n;
    cfg_ints(c, "cross_attention_dim", v, UNET_LEVELS, &n, 1, WIDTH_MAX);
    u->context_dim = n ? (size_t)v[0] : 1280;
    for (size_t i = 1; i < n; i++)
        if (v[i] != v[0]) cfg_refuse(c, "\"cross_attention_dim\" differs from level to level: one text cannot fit all");
    config_word(c, "encoder_hid_dim_type", projections, 1, 0);
    u->text_proj = cfg_has(c, "encoder_hid_dim");
    u->text_dim = (size_t)cfg_int(c, "encoder_hid_dim", (long)u->context_dim, 1, WIDTH_MAX);
    if (cfg_has(c, "encoder_hid_dim_type") && !u->text_proj)
        cfg_refuse(c, "\"encoder_hid_dim_type\" is set, \"encoder_hid_dim\" is not");
}

/* SDXL: pooled text and the picture's sizes join the time embedding. */
static void read_addition(unet_config *u, rung_config *c) {
    static const char *const types[] = {"text_time"};
    if (!cfg_has(c, "addition_embed_type")) return;
    config_word(c, "addition_embed_type", types, 1, 0);
    u->added_dim = (size_t)cfg_need_int(c, "addition_time_embed_dim", 1, WIDTH_MAX);
    const size_t sizes = UNET_SIZE_IDS * u->added_dim;
    const size_t all = (size_t)cfg_need_int(c, "projection_class_embeddings_input_dim", 1, 8 * WIDTH_MAX);
    if (!c->status && all <= sizes)
        cfg_refuse(c,
                   "\"projection_class_embeddings_input_dim\" is %zu: nothing is left for pooled text beside %d "
                   "times \"addition_time_embed_dim\" %zu",
                   all, UNET_SIZE_IDS, u->added_dim);
    if (!c->status && (double)(u->added_dim / 2) == u->freq_shift && u->added_dim > 1)
        cfg_refuse(c, "\"freq_shift\" is %g, half of \"addition_time_embed_dim\"", u->freq_shift);
    u->pooled_dim = all - size_min(all, sizes);
}

/* The side of a square; a list [h, w] counts only when it is one. */
static size_t read_sample_size(rung_config *c) {
    long v[2];
    size_t n;
    cfg_ints(c, "sample_size", v, 2, &n, 1, WIDTH_MAX);
    return n == 0 || (n == 2 && v[0] != v[1]) ? 0 : (size_t)v[0];
}

rung_status unet_config_read(unet_config *u, rung_config *c) {
    static const char *const attention_types[] = {"default"};
    *u = (unet_config){0};
    config_check_keys(c, keys, sizeof keys / sizeof *keys);
    u->in_channels = (size_t)cfg_int(c, "in_channels", 4, 1, WIDTH_MAX);
    u->out_channels = (size_t)cfg_int(c, "out_channels", 4, 1, WIDTH_MAX);
    u->sample_size = read_sample_size(c);
    u->groups = (size_t)cfg_int(c, "norm_num_groups", 32, 1, WIDTH_MAX);
    u->eps = (float)cfg_real(c, "norm_eps", 1e-5, 0, 1);
    u->mid_scale = (float)cfg_real(c, "mid_block_scale_factor", 1, 1e-6, 1e6);
    u->center_input = cfg_bool(c, "center_input_sample", false);
    u->conv_in_kernel = (size_t)cfg_int(c, "conv_in_kernel", 3, 1, 31);
    u->conv_out_kernel = (size_t)cfg_int(c, "conv_out_kernel", 3, 1, 31);
    u->down_padding = (size_t)cfg_int(c, "downsample_padding", 1, 0, 8);
    if (u->conv_in_kernel % 2 == 0) cfg_refuse(c, "\"conv_in_kernel\" is %zu: odd ones only", u->conv_in_kernel);
    if (u->conv_out_kernel % 2 == 0) cfg_refuse(c, "\"conv_out_kernel\" is %zu: odd ones only", u->conv_out_kernel);
    config_word(c, "attention_type", attention_types, 1, 0);
    const rung_act act = read_act(c, "act_fn");
    if (act != RUNG_ACT_NONE && act != RUNG_ACT_SILU) cfg_refuse(c, "\"act_fn\" is not silu: not supported");
    if (config_present(c, "norm_num_groups") && !cfg_has(c, "norm_num_groups"))
        cfg_refuse(c, "\"norm_num_groups\" is null: residual blocks need one");
    read_channels(u, c);
    read_blocks(u, c);
    read_time(u, c);
    read_text(u, c);
    read_addition(u, c);
    return c->status;
}

/* Side of the next level, 0 when the 3x3 kernel finds no room. */
static size_t halved(const unet_config *u, size_t side) {
    const size_t padded = side + (u->down_padding ? 2 * u->down_padding : 1);
    return padded < 3 ? 0 : (padded - 3) / 2 + 1;
}

rung_status unet_config_sizes(const unet_config *u, size_t h, size_t w, size_t hs[UNET_LEVELS], size_t ws[UNET_LEVELS],
                              rung_err *err) {
    bool divides = true; /* then diffusers doubles on the way up; else it asks for the skip's own size */
    hs[0] = h;
    ws[0] = w;
    for (size_t i = 1; i < u->levels; i++) {
        const size_t factor = (size_t)1 << i;
        divides = divides && h % factor == 0 && w % factor == 0;
        hs[i] = halved(u, hs[i - 1]);
        ws[i] = halved(u, ws[i - 1]);
        if (hs[i] == 0 || ws[i] == 0)
            return rung_fail(err, RUNG_ESHAPE, "latents of %zux%zu are too small for %zu levels", h, w, u->levels);
    }
    for (size_t i = 1; divides && i < u->levels; i++)
        if (2 * hs[i] != hs[i - 1] || 2 * ws[i] != ws[i - 1])
            return rung_fail(err, RUNG_ESHAPE,
                             "latents of %zux%zu with downsample_padding %zu: %zux%zu of level %zu "
                             "doubled is not %zux%zu",
                             h, w, u->down_padding, hs[i], ws[i], i, hs[i - 1], ws[i - 1]);
    return RUNG_OK;
}
