/* textenc/clip_text.c - pre-norm transformer with causal attention; q, k, v are one projection. */
#include "textenc/clip_text.h"

#include <stdio.h>
#include <stdlib.h>

struct clip_text {
    encoder_config cfg;
    rung_backend *be;
    rung_weights *weights; /* the token table reads from the mapped file */
    rung_layers *layers;
    const rung_table *tokens;
    const float *positions; /* f32 [positions, width] */
    encoder_norm final;
    encoder_block *block;
};

static rung_status load(clip_text *t, rung_store store, rung_err *err) {
    static const encoder_names names = {.q = "self_attn.q_proj",
                                        .k = "self_attn.k_proj",
                                        .v = "self_attn.v_proj",
                                        .out = "self_attn.out_proj",
                                        .up = "mlp.fc1",
                                        .down = "mlp.fc2",
                                        .norm1 = "layer_norm1",
                                        .norm2 = "layer_norm2"};
    const encoder_config *c = &t->cfg;
    rung_loader l;
    RUNG_TRY(loader_start(&l, t->weights, t->be, store, err));
    t->tokens = load_table(&l, c->vocab, c->width, "embeddings.token_embedding.weight");
    t->positions = load_vector(&l, c->positions * c->width, "embeddings.position_embedding.weight");
    t->final = encoder_load_norm(&l, c->width, "", "final_layer_norm");
    for (size_t i = 0; i < c->layers && !l.status; i++) {
        char prefix[64];
        snprintf(prefix, sizeof prefix, "encoder.layers.%zu.", i);
        t->block[i] = encoder_load_block(&l, c, prefix, &names);
    }
    return loader_finish(&l, &t->layers);
}

static rung_status read_config(encoder_config *out, rung_model *m, rung_err *err) {
    static const encoder_config def = {
        .vocab = 49408, .width = 512, .heads = 8, .layers = 12, .inner = 2048, .positions = 77, .eps = 1e-5f};
    rung_config c;
    RUNG_TRY(rung_model_config(m, "text_encoder", &c, err));
    RUNG_TRY(encoder_config_read(out, &c, &def, "quick_gelu"));
    if (cfg_bool(&c, "use_attention_mask", false))
        cfg_refuse(&c, "use_attention_mask is true: masked padding is not supported for CLIP");
    return c.status;
}

rung_status clip_text_open(clip_text **out, rung_model *m, rung_backend *be, rung_store store, rung_err *err) {
    *out = NULL;
    clip_text *t = calloc(1, sizeof *t);
    if (!t) return rung_fail(err, RUNG_ENOMEM, "text encoder: no memory");
    t->be = be;
    rung_status st;
    RUNG_TRY_GOTO(st, done, read_config(&t->cfg, m, err));
    t->block = calloc(t->cfg.layers, sizeof *t->block);
    if (!t->block) {
        st = rung_fail(err, RUNG_ENOMEM, "text encoder: no memory for %zu layers", t->cfg.layers);
        goto done;
    }
    RUNG_TRY_GOTO(st, done, rung_model_weights(m, "text_encoder", &t->weights, err));
    RUNG_TRY_GOTO(st, done, load(t, store, err));
    *out = t;
    t = NULL;
done:
    clip_text_close(&t);
    return st;
}

void clip_text_close(clip_text **t) {
    if (!t || !*t) return;
    rung_layers_close(&(*t)->layers);
    rung_weights_close(&(*t)->weights);
    free((*t)->block);
    free(*t);
    *t = NULL;
}

const encoder_config *clip_text_config(const clip_text *t) { return &t->cfg; }

static void run_block(const rung_exec *e, const encoder_config *c, const encoder_block *b, const encoder_scratch *s,
                      size_t n) {
    const rung_epilogue add = {.residual = s->h};
    encoder_apply_norm(e, c, s->x, s->h, &b->norm1, n);
    op_linear(e, s->qkv, s->x, c->width, n, b->qkv, NULL);
    encoder_attention(e, c, s, n, true, NULL);
    op_linear(e, s->h, s->x, c->width, n, b->out, &add);
    encoder_apply_norm(e, c, s->x, s->h, &b->norm2, n);
    encoder_feed_forward(e, c, b, s, s->x, n);
}

static rung_status forward(const clip_text *t, const rung_exec *e, float *out, const int32_t *ids, size_t n,
                           size_t layers, rung_err *err) {
    const encoder_config *c = &t->cfg;
    const encoder_scratch s = encoder_scratch_alloc(e, c, n);
    op_lookup(e, s.h, t->tokens, ids, n);
    op_add_rows(e, s.h, s.h, t->positions, n, n, c->width);
    for (size_t i = 0; i < layers; i++) run_block(e, c, &t->block[i], &s, n);
    encoder_apply_norm(e, c, s.x, s.h, &t->final, n);
    op_download(e, out, s.x, n * c->width * sizeof *out);
    return exec_check(e, "CLIP text encoder", err);
}

rung_status clip_text_run(const clip_text *t, float *out, const int32_t *ids, size_t n, size_t layers, rung_err *err) {
    rung_arena a = {0};
    const rung_exec e = {.be = t->be, .arena = &a};
    RUNG_TRY(forward(t, &e, NULL, NULL, n, layers, err));
    RUNG_TRY(rung_arena_open(&a, t->be, a.peak, err));
    rung_status st = forward(t, &e, out, ids, n, layers, err);
    if (!st) st = t->be->ops->sync(t->be, err);
    rung_arena_close(&a, t->be);
    return st;
}
