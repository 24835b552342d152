#define _POSIX_C_SOURCE 200809L /* fnmatch */
#include "diffusion/convert_plan.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const weight_parts[] = {"text_encoder", "text_encoder_2", "unet", "transformer", "vae"};
enum { WEIGHT_PARTS = sizeof weight_parts / sizeof *weight_parts };

const convert_type *convert_type_find(const char *name) {
    static const convert_type types[] = {{"f32", RUNG_F32, false},     {"f16", RUNG_F16, false},
                                         {"bf16", RUNG_BF16, false},   {"fp6", RUNG_F6_E3M2, true},
                                         {"e2m3", RUNG_F6_E2M3, true}, {"fp5", RUNG_F5_E2M2, true}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(types[i].name, name) == 0) return &types[i];
    return NULL;
}

/* ---- the rule ---- */

struct rule {
    const char *part, *pattern; /* fnmatch; part NULL: every one */
    weight_role role;
};

/* The first row that fits decides. Names are those of diffusers and transformers. */
static const struct rule rules[] = {
    {NULL, "*scale_shift_table", WEIGHT_VECTOR},     {"unet", "conv_in.weight", WEIGHT_END},
    {"unet", "conv_out.weight", WEIGHT_END},         {"transformer", "pos_embed.proj.weight", WEIGHT_END},
    {"transformer", "proj_out.weight", WEIGHT_END},  {"vae", "encoder.conv_in.weight", WEIGHT_END},
    {"vae", "encoder.conv_out.weight", WEIGHT_END},  {"vae", "decoder.conv_in.weight", WEIGHT_END},
    {"vae", "decoder.conv_out.weight", WEIGHT_END},  {"vae", "quant_conv.weight", WEIGHT_END},
    {"vae", "post_quant_conv.weight", WEIGHT_END},   {NULL, "*position_embedding*", WEIGHT_END},
    {NULL, "*token_type_embeddings*", WEIGHT_END},   {NULL, "*relative_attention_bias*", WEIGHT_END},
    {NULL, "*token_embedding.weight", WEIGHT_TABLE}, {NULL, "*word_embeddings.weight", WEIGHT_TABLE},
    {NULL, "*embed_tokens.weight", WEIGHT_TABLE},    {NULL, "shared.weight", WEIGHT_TABLE},
    {"unet", "time_embedding.*", WEIGHT_TIME},       {"unet", "add_embedding.*", WEIGHT_TIME},
    {"unet", "class_embedding.*", WEIGHT_TIME},      {"unet", "*.time_emb_proj.weight", WEIGHT_TIME},
    {"transformer", "adaln_single.*", WEIGHT_TIME},
};

/* AutoencoderTiny numbers its layers: the first and the last of each side are its ends. */
static bool is_tiny_end(const char *name, const rung_tensor *t) {
    return t->ndim == 4 && (fnmatch("encoder.layers.0.weight", name, 0) == 0 ||
                            fnmatch("decoder.layers.0.weight", name, 0) == 0 || t->shape[0] <= 4 || t->shape[1] <= 4);
}

/* A pattern is of "part/name" or of the name alone. */
static bool is_named(const char *pattern, const char *part, const char *name) {
    char full[600];
    snprintf(full, sizeof full, "%s/%s", part, name);
    return fnmatch(pattern, full, 0) == 0 || fnmatch(pattern, name, 0) == 0;
}

weight_role weight_role_of(const char *part, const char *name, const rung_tensor *t, const char *const *keep,
                           size_t n_keep) {
    enum { WHOLE = 8 }; /* so many codes are whole bytes, whatever their bits */
    if (t->ndim < 2 || rung_tensor_row(t) < 2) return WEIGHT_VECTOR;
    for (size_t i = 0; i < n_keep; i++)
        if (is_named(keep[i], part, name)) return WEIGHT_KEPT;
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        if ((!rules[i].part || strcmp(rules[i].part, part) == 0) && fnmatch(rules[i].pattern, name, 0) == 0)
            return rules[i].role == WEIGHT_TABLE && rung_tensor_count(t) % WHOLE ? WEIGHT_END : rules[i].role;
    if (strcmp(part, "vae") == 0 && is_tiny_end(name, t)) return WEIGHT_END;
    return rung_tensor_count(t) % WHOLE ? WEIGHT_END : WEIGHT_MATRIX;
}

const char *weight_role_name(weight_role r) {
    static const char *const names[] = {"vector", "end", "kept", "table", "time", "matrix"};
    return names[r];
}

/* ---- the plan ---- */

static bool is_half(rung_dtype t) { return t == RUNG_F16 || t == RUNG_BF16; }

static rung_dtype target_dtype(const convert_type *type, weight_role role, const rung_tensor *t) {
    if (!rung_dtype_is_float(t->dtype)) return t->dtype;
    if (!type->few_bits) return type->dtype;
    if (role == WEIGHT_VECTOR) return t->dtype == RUNG_F64 ? RUNG_F32 : t->dtype;
    if (role != WEIGHT_END && role != WEIGHT_KEPT) return type->dtype;
    return is_half(t->dtype) || t->scale ? t->dtype : RUNG_F16;
}

bool convert_is_copy(const convert_item *it) { return it->to == it->source.dtype && it->sparsity == 0; }

static rung_status add_item(convert_plan *p, const convert_item *it, rung_err *err) {
    if (p->count == p->cap) {
        const size_t cap = p->cap ? 2 * p->cap : 512;
        convert_item *grown = realloc(p->items, cap * sizeof *grown);
        if (!grown) return rung_fail(err, RUNG_ENOMEM, "no memory for a plan of %zu tensors", cap);
        p->items = grown;
        p->cap = cap;
    }
    p->items[p->count++] = *it;
    return RUNG_OK;
}

/* The original layout keeps the matrices of the VAE's attention as 1x1 convolutions, diffusers as matrices. */
static void squeeze(const char *part, const char *name, rung_tensor *t) {
    if (strcmp(part, "vae") == 0 && t->ndim == 4 && t->shape[2] == 1 && t->shape[3] == 1 &&
        fnmatch("*.attentions.*.to_*", name, 0) == 0)
        t->ndim = 2;
}

static rung_status plan_part(convert_plan *p, const char *part, rung_weights *w, const convert_type *type,
                             const char *const *keep, size_t n_keep, rung_err *err) {
    for (size_t i = 0; i < rung_weights_count(w); i++) {
        convert_item it = {
            .part = part, .name = rung_weights_name(w, i), .from = w, .source = *rung_weights_tensor(w, i)};
        squeeze(part, it.name, &it.source);
        it.role = rung_dtype_is_float(it.source.dtype) ? weight_role_of(part, it.name, &it.source, keep, n_keep)
                                                       : WEIGHT_VECTOR;
        it.to = target_dtype(type, it.role, &it.source);
        it.held = rung_tensor_count(&it.source);
        RUNG_TRY(add_item(p, &it, err));
    }
    return RUNG_OK;
}

/* A pattern that fits nothing is a slip of the pen. */
static rung_status check_keep(const convert_plan *p, const char *const *keep, size_t n_keep, rung_err *err) {
    for (size_t k = 0; k < n_keep; k++) {
        size_t i = 0;
        while (i < p->count && !is_named(keep[k], p->items[i].part, p->items[i].name)) i++;
        if (i == p->count)
            return rung_fail(err, RUNG_EARG, "keep is '%s', which no tensor of the model is called", keep[k]);
    }
    return RUNG_OK;
}

rung_status convert_plan_open(convert_plan *p, rung_model *m, const convert_type *type, const char *const *keep,
                              size_t n_keep, rung_err *err) {
    *p = (convert_plan){0};
    p->files = calloc(WEIGHT_PARTS, sizeof *p->files);
    p->parts = calloc(WEIGHT_PARTS, sizeof *p->parts);
    if (!p->files || !p->parts) return rung_fail(err, RUNG_ENOMEM, "no memory for a plan");
    for (size_t i = 0; i < WEIGHT_PARTS; i++) {
        if (!rung_model_has(m, weight_parts[i], NULL)) continue;
        RUNG_TRY(rung_model_weights(m, weight_parts[i], &p->files[p->n_files], err));
        p->parts[p->n_files] = weight_parts[i];
        RUNG_TRY(plan_part(p, weight_parts[i], p->files[p->n_files++], type, keep, n_keep, err));
    }
    return check_keep(p, keep, n_keep, err);
}

void convert_plan_close(convert_plan *p) {
    for (size_t i = 0; i < p->n_files; i++) rung_weights_close(&p->files[i]);
    free(p->files);
    free(p->parts);
    free(p->items);
    *p = (convert_plan){0};
}
