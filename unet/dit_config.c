#include "unet/dit_config.h"

#include <string.h>

#include "kernels/base/size.h"
#include "unet/config_keys.h"

enum { WIDTH_MAX = 1 << 16 };

/* double_self_attention to use_linear_projection: left over in configs written when the class was Transformer2DModel.
 */
static const config_key keys[] = {
    {"activation_fn", KEY_READ},
    {"attention_bias", KEY_READ},
    {"attention_head_dim", KEY_READ},
    {"attention_type", KEY_READ},
    {"caption_channels", KEY_READ},
    {"cross_attention_dim", KEY_READ},
    {"double_self_attention", KEY_ONLY_FALSE},
    {"dropout", KEY_READ},
    {"in_channels", KEY_READ},
    {"interpolation_scale", KEY_READ},
    {"ladder", KEY_READ},
    {"ladder_layers", KEY_READ},
    {"norm_elementwise_affine", KEY_READ},
    {"norm_eps", KEY_READ},
    {"norm_num_groups", KEY_READ},
    {"norm_type", KEY_READ},
    {"num_attention_heads", KEY_READ},
    {"num_embeds_ada_norm", KEY_READ},
    {"num_layers", KEY_READ},
    {"num_vector_embeds", KEY_ONLY_NULL},
    {"only_cross_attention", KEY_ONLY_FALSE},
    {"out_channels", KEY_READ},
    {"parallel", KEY_READ},
    {"patch_size", KEY_READ},
    {"sample_size", KEY_READ},
    {"upcast_attention", KEY_READ},
    {"use_additional_conditions", KEY_READ},
    {"use_linear_projection", KEY_READ},
};

/* What a missing key means, by class. */
typedef struct {
    long heads, head_dim, in, out, layers, cross, sample, caption; /* caption 0: null */
    bool ladder;
} defaults;
static const defaults pixart = {16, 72, 4, 8, 28, 1152, 128, 0, false};
static const defaults ladder = {8, 32, 8, 8, 8, 256, 16, 384, true};

static rung_act read_activation(rung_config *c) {
    static const char *const names[] = {"gelu-approximate", "gelu", "geglu", "geglu-approximate", "linear-silu"};
    static const rung_act acts[] = {RUNG_ACT_GELU_TANH, RUNG_ACT_GELU, RUNG_ACT_GEGLU, RUNG_ACT_QUICK_GELU,
                                    RUNG_ACT_SILU};
    return acts[config_word(c, "activation_fn", names, sizeof names / sizeof *names, 0)];
}

/* A key whose null is a value of its own: missing gives def, null gives null_value. */
static size_t read_nullable(rung_config *c, const char *key, long def, long null_value) {
    const bool null = config_present(c, key) && !cfg_has(c, key);
    return (size_t)cfg_int(c, key, null ? null_value : def, 1, WIDTH_MAX);
}

static void read_sizes(dit_config *d, rung_config *c, const defaults *def) {
    d->in_channels = (size_t)cfg_int(c, "in_channels", def->in, 1, WIDTH_MAX);
    d->out_channels = read_nullable(c, "out_channels", def->out, (long)d->in_channels);
    d->layers = (size_t)cfg_int(c, "num_layers", def->layers, 1, DIT_LAYERS);
    d->heads = (size_t)cfg_int(c, "num_attention_heads", def->heads, 1, 4096);
    d->width = d->heads * (size_t)cfg_int(c, "attention_head_dim", def->head_dim, 1, 4096);
    d->context_dim = read_nullable(c, "cross_attention_dim", def->cross, 0);
    d->caption_dim = read_nullable(c, "caption_channels", def->caption, 0);
    d->sample_size = (size_t)cfg_int(c, "sample_size", def->sample, 1, WIDTH_MAX);
    d->patch = (size_t)cfg_int(c, "patch_size", 2, 1, 64);
    d->interpolation_scale = cfg_real(c, "interpolation_scale", (double)size_max(d->sample_size / 64, 1), 1e-6, 1e6);
}

static void check_sizes(const dit_config *d, rung_config *c) {
    if (d->width > WIDTH_MAX)
        cfg_refuse(c, "\"num_attention_heads\" %zu times \"attention_head_dim\" %zu is too wide", d->heads,
                   d->width / d->heads);
    if (d->width % 4)
        cfg_refuse(c,
                   "\"num_attention_heads\" times \"attention_head_dim\" is %zu: position embeddings want a "
                   "multiple of 4",
                   d->width);
    if (d->size_conditions && d->width % 3)
        cfg_refuse(c,
                   "\"use_additional_conditions\" with width %zu: it is shared out among three, so must be a "
                   "multiple of 3",
                   d->width);
    if (d->sample_size < d->patch)
        cfg_refuse(c, "\"sample_size\" is %zu, less than \"patch_size\" %zu", d->sample_size, d->patch);
    if (d->context_dim == 0)
        cfg_refuse(c, "\"cross_attention_dim\" is null: a network without cross-attention reads no prompt");
    if (d->caption_dim && d->context_dim != d->width)
        cfg_refuse(c, "\"cross_attention_dim\" is %zu, but \"caption_channels\" are projected to %zu", d->context_dim,
                   d->width);
}

/* "ladder_layers": the last k layers, or a list of layers; without it, all of a ladder. */
static void read_ladder(dit_config *d, rung_config *c, bool on, bool is_ladder) {
    static const char layers[] = "ladder_layers";
    const cJSON *list = cfg_has(c, layers) ? cJSON_GetObjectItemCaseSensitive(c->root, layers) : NULL;
    const size_t known = size_min(d->layers, DIT_LAYERS);
    size_t last = on ? known : 0;
    if (list && !on) cfg_refuse(c, "\"ladder_layers\" is set, but \"ladder\" is not");
    if (cJSON_IsArray(list)) {
        const cJSON *v;
        last = 0;
        cJSON_ArrayForEach(v, list) {
            const double i = cJSON_IsNumber(v) ? v->valuedouble : -1;
            if (!(i >= 0 && i < (double)known && i == (double)(size_t)i)) {
                cfg_refuse(c, "\"ladder_layers\" holds what is none of the layers 0 to %zu", known - 1);
                return;
            }
            d->stale[(size_t)i] = true;
        }
    } else if (list) {
        last = (size_t)cfg_int(c, layers, 0, 0, (long)known);
    }
    for (size_t i = known - size_min(last, known); i < known; i++) d->stale[i] = true;
    for (size_t i = 0; i < known; i++) d->stale_layers += d->stale[i];
    d->parallel = cfg_bool(c, "parallel", false);
    if (d->parallel && (d->stale_layers || !is_ladder))
        cfg_refuse(c, "\"parallel\" is set, but %s", is_ladder ? "so is \"ladder\"" : "the class does not have it");
}

rung_status dit_config_read(dit_config *d, rung_config *c, const char *class_name) {
    static const char *const norms[] = {"ada_norm_single"}, *const attention_types[] = {"default"};
    const bool is_ladder = class_name && strcmp(class_name, "LadderTransformer2DModel") == 0;
    const defaults *def = is_ladder ? &ladder : &pixart;
    *d = (dit_config){0};
    config_check_keys(c, keys, sizeof keys / sizeof *keys);
    read_sizes(d, c, def);
    d->size_conditions = cfg_bool(c, "use_additional_conditions", !is_ladder && d->sample_size == 128);
    d->attention_bias = cfg_bool(c, "attention_bias", true);
    d->norm_affine = cfg_bool(c, "norm_elementwise_affine", false);
    d->eps = (float)cfg_real(c, "norm_eps", 1e-6, 0, 1);
    d->act = read_activation(c);
    const bool ladder_on = cfg_bool(c, "ladder", def->ladder);
    config_word(c, "norm_type", norms, 1, 0);
    config_word(c, "attention_type", attention_types, 1, 0);
    if (ladder_on && !is_ladder) cfg_refuse(c, "\"ladder\" is set, but the class is not LadderTransformer2DModel");
    if (config_present(c, "num_embeds_ada_norm") && !cfg_has(c, "num_embeds_ada_norm"))
        cfg_refuse(c, "\"num_embeds_ada_norm\" is null: ada_norm_single needs it");
    cfg_int(c, "num_embeds_ada_norm", 1000, 1, 1L << 30);
    read_ladder(d, c, ladder_on, is_ladder);
    check_sizes(d, c);
    return c->status;
}
