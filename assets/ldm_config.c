/* assets/ldm_config.c - the configs that a single file does not carry, as diffusers' model repositories have them. */
#include <string.h>

#include "assets/ldm.h"

/* What does not depend on the file. GroupNorm's groups cannot be seen in a shape: the original code has 32 always. */
static const char UNET[] =
    "{\"_class_name\": \"UNet2DConditionModel\", \"act_fn\": \"silu\", \"center_input_sample\": false,"
    " \"downsample_padding\": 1, \"flip_sin_to_cos\": true, \"freq_shift\": 0, \"mid_block_scale_factor\": 1,"
    " \"mid_block_type\": \"UNetMidBlock2DCrossAttn\", \"norm_eps\": 1e-05, \"norm_num_groups\": 32}";
static const char VAE[] = "{\"_class_name\": \"AutoencoderKL\", \"act_fn\": \"silu\", \"norm_num_groups\": 32,"
                          " \"sample_size\": 512, \"scaling_factor\": 0.18215}";
static const char TEXT[] = "{\"architectures\": [\"CLIPTextModel\"], \"model_type\": \"clip_text_model\","
                           " \"layer_norm_eps\": 1e-05, \"bos_token_id\": 49406, \"eos_token_id\": 49407}";
static const char TOKENIZER[] =
    "{\"tokenizer_class\": \"CLIPTokenizer\", \"bos_token\": \"<|startoftext|>\", \"eos_token\": \"<|endoftext|>\","
    " \"unk_token\": \"<|endoftext|>\", \"do_lower_case\": true}";
static const char SD1_SCHEDULER[] =
    "{\"_class_name\": \"PNDMScheduler\", \"beta_end\": 0.012, \"beta_schedule\": \"scaled_linear\","
    " \"beta_start\": 0.00085, \"clip_sample\": false, \"num_train_timesteps\": 1000, \"set_alpha_to_one\": false,"
    " \"skip_prk_steps\": true, \"steps_offset\": 1, \"trained_betas\": null}";
static const char SD2_SCHEDULER[] =
    "{\"_class_name\": \"DDIMScheduler\", \"beta_end\": 0.012, \"beta_schedule\": \"scaled_linear\","
    " \"beta_start\": 0.00085, \"clip_sample\": false, \"num_train_timesteps\": 1000,"
    " \"prediction_type\": \"v_prediction\", \"set_alpha_to_one\": false, \"skip_prk_steps\": true,"
    " \"steps_offset\": 1, \"trained_betas\": null}";

/* A config being written; `failed` sticks when memory ran out. */
struct writer {
    cJSON *root;
    bool failed;
};

static void add_size(struct writer *w, const char *key, size_t v) {
    w->failed |= !cJSON_AddNumberToObject(w->root, key, (double)v);
}

static void add_bool(struct writer *w, const char *key, bool v) {
    w->failed |= !cJSON_AddBoolToObject(w->root, key, v);
}

static void add_text(struct writer *w, const char *key, const char *v) {
    w->failed |= !cJSON_AddStringToObject(w->root, key, v);
}

static cJSON *add_list(struct writer *w, const char *key) {
    cJSON *list = cJSON_AddArrayToObject(w->root, key);
    w->failed |= !list;
    return list;
}

static void append(struct writer *w, cJSON *list, cJSON *item) {
    if (item && cJSON_AddItemToArray(list, item)) return;
    cJSON_Delete(item);
    w->failed = true;
}

static size_t heads(size_t width) { return width < 64 ? 1 : width / 64; }

static void write_unet(struct writer *w, const ldm_layout *l) {
    const ldm_unet *u = &l->unet;
    cJSON *ch = add_list(w, "block_out_channels"), *depth = add_list(w, "transformer_layers_per_block");
    cJSON *down = add_list(w, "down_block_types"), *up = add_list(w, "up_block_types");
    for (size_t i = 0; i < u->levels; i++) {
        const bool last = i + 1 == u->levels, attends = u->depth[i] > 0;
        append(w, ch, cJSON_CreateNumber((double)u->ch[i]));
        append(w, down, cJSON_CreateString(attends ? "CrossAttnDownBlock2D" : "DownBlock2D"));
        append(w, up, cJSON_CreateString(u->depth[u->levels - 1 - i] ? "CrossAttnUpBlock2D" : "UpBlock2D"));
        /* the middle block takes the last level's number */
        append(w, depth, cJSON_CreateNumber((double)(attends ? u->depth[i] : last ? u->mid_depth : 1)));
    }
    if (l->sd2) {
        cJSON *list = add_list(w, "attention_head_dim"); /* diffusers' name for the number of heads */
        for (size_t i = 0; i < u->levels; i++) append(w, list, cJSON_CreateNumber((double)heads(u->ch[i])));
    } else {
        add_size(w, "attention_head_dim", 8);
    }
    add_size(w, "in_channels", u->in);
    add_size(w, "out_channels", u->out);
    add_size(w, "layers_per_block", u->layers);
    add_size(w, "cross_attention_dim", u->context);
    add_size(w, "sample_size", l->sd2 ? 96 : 64); /* trained at 768 (v-prediction) and 512 pixels */
    add_bool(w, "use_linear_projection", u->linear);
}

static void write_vae(struct writer *w, const ldm_vae *v) {
    cJSON *ch = add_list(w, "block_out_channels");
    cJSON *down = add_list(w, "down_block_types"), *up = add_list(w, "up_block_types");
    for (size_t i = 0; i < v->levels; i++) {
        append(w, ch, cJSON_CreateNumber((double)v->ch[i]));
        append(w, down, cJSON_CreateString("DownEncoderBlock2D"));
        append(w, up, cJSON_CreateString("UpDecoderBlock2D"));
    }
    add_size(w, "in_channels", v->in);
    add_size(w, "out_channels", v->out);
    add_size(w, "latent_channels", v->latent);
    add_size(w, "layers_per_block", v->layers);
    add_bool(w, "use_quant_conv", v->quant);
    add_bool(w, "use_post_quant_conv", v->post_quant);
    add_bool(w, "mid_block_add_attention", v->attention);
}

static void write_text(struct writer *w, const ldm_layout *l) {
    const ldm_text *t = &l->text;
    add_size(w, "vocab_size", t->vocab);
    add_size(w, "hidden_size", t->width);
    add_size(w, "intermediate_size", t->intermediate);
    add_size(w, "num_hidden_layers", t->layers);
    add_size(w, "num_attention_heads", heads(t->width));
    add_size(w, "max_position_embeddings", t->positions);
    add_text(w, "hidden_act", l->sd2 ? "gelu" : "quick_gelu");
}

static const char *base_text(const ldm_layout *l, const char *part) {
    if (strcmp(part, "unet") == 0) return UNET;
    if (strcmp(part, "vae") == 0) return VAE;
    if (strcmp(part, "text_encoder") == 0) return TEXT;
    if (strcmp(part, "tokenizer") == 0) return TOKENIZER;
    return l->sd2 ? SD2_SCHEDULER : SD1_SCHEDULER;
}

rung_status ldm_config(const ldm_layout *l, const char *part, cJSON **out, rung_err *err) {
    const char *base = base_text(l, part);
    struct writer w = {0};
    *out = NULL;
    RUNG_TRY(rung_json_parse(&w.root, base, strlen(base), "built-in config", err));
    if (base == UNET) write_unet(&w, l);
    if (base == VAE) write_vae(&w, &l->vae);
    if (base == TEXT) write_text(&w, l);
    if (base == TOKENIZER) {
        add_size(&w, "model_max_length", l->has_text ? l->text.positions : 77);
        add_text(&w, "pad_token", l->sd2 ? "!" : "<|endoftext|>");
    }
    if (w.failed) {
        cJSON_Delete(w.root);
        return rung_fail(err, RUNG_ENOMEM, "built-in config of %s: out of memory", part);
    }
    *out = w.root;
    return RUNG_OK;
}
