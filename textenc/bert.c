/* textenc/bert.c - post-norm transformer: every norm follows its residual addition. */
#include "textenc/bert.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/size.h"

struct bert {
    encoder_config cfg;
    size_t types;
    rung_backend *be;
    rung_weights *weights; /* the token table reads from the mapped file */
    rung_layers *layers;
    const rung_table *tokens;
    const float *positions, *type; /* f32 [positions, width]; [types, width], of which row 0 counts */
    encoder_norm norm;
    encoder_block *block;
};

/* Files of BertModel hold a pooler, those of BertFor... also heads: both are of no use here and no surplus. */
static void pass_over_heads(rung_weights *w) {
    for (size_t i = 0; i < rung_weights_count(w); i++) {
        const char *name = rung_weights_name(w, i);
        const char *stem = strncmp(name, "bert.", 5) == 0 ? name + 5 : name;
        if (strncmp(stem, "pooler.", 7) == 0 || strncmp(name, "cls.", 4) == 0) rung_weights_find(w, name);
    }
}

static rung_status load(bert *b, rung_store store, rung_err *err) {
    static const encoder_names names = {.q = "attention.self.query",
                                        .k = "attention.self.key",
                                        .v = "attention.self.value",
                                        .out = "attention.output.dense",
                                        .up = "intermediate.dense",
                                        .down = "output.dense",
                                        .norm1 = "attention.output.LayerNorm",
                                        .norm2 = "output.LayerNorm"};
    const encoder_config *c = &b->cfg;
    rung_loader l;
    RUNG_TRY(loader_start(&l, b->weights, b->be, store, err));
    const char *prefix = load_has(&l, "bert.embeddings.word_embeddings.weight") ? "bert." : "";
    b->tokens = load_table(&l, c->vocab, c->width, "%sembeddings.word_embeddings.weight", prefix);
    b->positions = load_vector(&l, c->positions * c->width, "%sembeddings.position_embeddings.weight", prefix);
    b->type = load_vector(&l, b->types * c->width, "%sembeddings.token_type_embeddings.weight", prefix);
    b->norm = encoder_load_norm(&l, c->width, prefix, "embeddings.LayerNorm");
    for (size_t i = 0; i < c->layers && !l.status; i++) {
        char layer[64];
        snprintf(layer, sizeof layer, "%sencoder.layer.%zu.", prefix, i);
        b->block[i] = encoder_load_block(&l, c, layer, &names);
    }
    pass_over_heads(b->weights);
    return loader_finish(&l, &b->layers);
}

static rung_status read_config(bert *b, rung_model *m, rung_err *err) {
    static const encoder_config def = {
        .vocab = 30522, .width = 768, .heads = 12, .layers = 12, .inner = 3072, .positions = 512, .eps = 1e-12f};
    rung_config c;
    RUNG_TRY(rung_model_config(m, "text_encoder", &c, err));
    RUNG_TRY(encoder_config_read(&b->cfg, &c, &def, "gelu"));
    b->types = (size_t)cfg_int(&c, "type_vocab_size", 2, 1, 1024);
    const char *positions = cfg_string(&c, "position_embedding_type", "absolute");
    if (!c.status && strcmp(positions, "absolute") != 0)
        cfg_refuse(&c, "position_embedding_type '%.60s' is not supported: wanted absolute", positions);
    if (cfg_bool(&c, "is_decoder", false)) cfg_refuse(&c, "is_decoder is true: wanted an encoder");
    return c.status;
}

rung_status bert_open(bert **out, rung_model *m, rung_backend *be, rung_store store, rung_err *err) {
    *out = NULL;
    bert *b = calloc(1, sizeof *b);
    if (!b) return rung_fail(err, RUNG_ENOMEM, "text encoder: no memory");
    b->be = be;
    rung_status st;
    RUNG_TRY_GOTO(st, done, read_config(b, m, err));
    b->block = calloc(b->cfg.layers, sizeof *b->block);
    if (!b->block) {
        st = rung_fail(err, RUNG_ENOMEM, "text encoder: no memory for %zu layers", b->cfg.layers);
        goto done;
    }
    RUNG_TRY_GOTO(st, done, rung_model_weights(m, "text_encoder", &b->weights, err));
    RUNG_TRY_GOTO(st, done, load(b, store, err));
    *out = b;
    b = NULL;
done:
    bert_close(&b);
    return st;
}

void bert_close(bert **b) {
    if (!b || !*b) return;
    rung_layers_close(&(*b)->layers);
    rung_weights_close(&(*b)->weights);
    free((*b)->block);
    free(*b);
    *b = NULL;
}

const encoder_config *bert_config(const bert *b) { return &b->cfg; }

static void run_block(const rung_exec *e, const encoder_config *c, const encoder_block *b, const encoder_scratch *s,
                      const float *key_bias, size_t n) {
    const rung_epilogue add = {.residual = s->h};
    op_linear(e, s->qkv, s->h, c->width, n, b->qkv, NULL);
    encoder_attention(e, c, s, n, false, key_bias);
    op_linear(e, s->h, s->x, c->width, n, b->out, &add);
    encoder_apply_norm(e, c, s->h, s->h, &b->norm1, n);
    encoder_feed_forward(e, c, b, s, s->h, n);
    encoder_apply_norm(e, c, s->h, s->h, &b->norm2, n);
}

static rung_status forward(const bert *b, const rung_exec *e, float *out, const int32_t *ids, const float *host_bias,
                           size_t n, rung_err *err) {
    const encoder_config *c = &b->cfg;
    const encoder_scratch s = encoder_scratch_alloc(e, c, n);
    float *bias = exec_floats(e, 1, n);
    op_upload(e, bias, host_bias, n * sizeof *bias);
    op_lookup(e, s.h, b->tokens, ids, n);
    op_add_rows(e, s.h, s.h, b->type, n, 1, c->width);
    op_add_rows(e, s.h, s.h, b->positions, n, n, c->width);
    encoder_apply_norm(e, c, s.h, s.h, &b->norm, n);
    for (size_t i = 0; i < c->layers; i++) run_block(e, c, &b->block[i], &s, bias, n);
    op_download(e, out, s.h, n * c->width * sizeof *out);
    return exec_check(e, "BERT text encoder", err);
}

rung_status bert_run(const bert *b, float *out, const int32_t *ids, const unsigned char *mask, size_t n,
                     rung_err *err) {
    float *bias = malloc(size_max(n, 1) * sizeof *bias);
    if (!bias) return rung_fail(err, RUNG_ENOMEM, "BERT text encoder: no memory for a mask of %zu", n);
    for (size_t i = 0; i < n; i++) bias[i] = mask[i] ? 0 : -INFINITY;
    rung_arena a = {0};
    const rung_exec e = {.be = b->be, .arena = &a};
    rung_status st;
    RUNG_TRY_GOTO(st, done, forward(b, &e, NULL, NULL, NULL, n, err));
    RUNG_TRY_GOTO(st, done, rung_arena_open(&a, b->be, a.peak, err));
    st = forward(b, &e, out, ids, bias, n, err);
    if (!st) st = b->be->ops->sync(b->be, err);
done:
    rung_arena_close(&a, b->be);
    free(bias);
    return st;
}
