/* textenc/textenc.c - picks tokenizer and encoder by the model's class, and puts prompts into the shape they want. */
#include "textenc/textenc.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/base/size.h"
#include "textenc/bert.h"
#include "textenc/clip_text.h"
#include "textenc/prompt_weights.h"
#include "textenc/tokenizer.h"

struct rung_textenc {
    rung_tokenizer *tokenizer;
    clip_text *clip; /* one of the two */
    bert *bert;
    size_t length; /* tokens that the encoder takes at once */
};

/* model_index.json's class, else what the encoder's own config says. */
static rung_status find_kind(rung_model *m, tokenizer_kind *out, rung_err *err) {
    const char *name = NULL;
    if (!rung_model_has(m, "text_encoder", &name))
        return rung_fail(err, RUNG_EFORMAT, "%s: the model has no text encoder", rung_model_path(m));
    rung_config c;
    RUNG_TRY(rung_model_config(m, "text_encoder", &c, err));
    if (!name) {
        const cJSON *list = cJSON_GetObjectItemCaseSensitive(c.root, "architectures");
        name = cJSON_GetStringValue(cJSON_GetArrayItem(list, 0));
    }
    if (!name) name = cfg_string(&c, "model_type", "missing");
    RUNG_TRY(c.status);
    const bool clip = strcmp(name, "CLIPTextModel") == 0 || strcmp(name, "clip_text_model") == 0;
    if (!clip && strcmp(name, "BertModel") != 0 && strcmp(name, "bert") != 0)
        return rung_fail(err, RUNG_EFORMAT,
                         "%s: text encoder '%.60s' is not supported: wanted CLIPTextModel or BertModel",
                         rung_model_path(m), name);
    *out = clip ? TOKENIZER_CLIP : TOKENIZER_BERT;
    return RUNG_OK;
}

static const encoder_config *config_of(const rung_textenc *t) {
    return t->clip ? clip_text_config(t->clip) : bert_config(t->bert);
}

rung_status rung_textenc_open(rung_textenc **out, rung_model *m, rung_backend *be, rung_store store, rung_err *err) {
    *out = NULL;
    rung_textenc *t = calloc(1, sizeof *t);
    if (!t) return rung_fail(err, RUNG_ENOMEM, "text encoder: no memory");
    tokenizer_kind kind = TOKENIZER_CLIP;
    rung_status st;
    RUNG_TRY_GOTO(st, done, find_kind(m, &kind, err));
    RUNG_TRY_GOTO(st, done, tokenizer_open_model(&t->tokenizer, kind, m, err));
    st = kind == TOKENIZER_CLIP ? clip_text_open(&t->clip, m, be, store, err) : bert_open(&t->bert, m, be, store, err);
    if (st) goto done;
    t->length = size_min(tokenizer_max_length(t->tokenizer), config_of(t)->positions);
    *out = t;
    t = NULL;
done:
    rung_textenc_close(&t);
    return st;
}

void rung_textenc_close(rung_textenc **t) {
    if (!t || !*t) return;
    tokenizer_close(&(*t)->tokenizer);
    clip_text_close(&(*t)->clip);
    bert_close(&(*t)->bert);
    free(*t);
    *t = NULL;
}

void rung_embeds_free(rung_embeds *e) {
    free(e->data);
    free(e->mask);
    *e = (rung_embeds){0};
}

static rung_status embeds_alloc(rung_embeds *e, size_t n, size_t d, bool mask, rung_err *err) {
    size_t count, bytes;
    *e = (rung_embeds){.n = n, .d = d};
    if (size_mul(n, d, &count) && size_mul(count, sizeof *e->data, &bytes)) e->data = malloc(size_max(bytes, 1));
    if (mask) e->mask = calloc(n, 1);
    if (e->data && (e->mask || !mask)) return RUNG_OK;
    return rung_fail(err, RUNG_ENOMEM, "prompt: no memory for embeddings [%zu, %zu]", n, d);
}

/* The tokenizer and the encoder are two files that need not fit each other. */
static rung_status check_ids(const rung_textenc *t, const int32_t *id, size_t n, rung_err *err) {
    const size_t vocab = config_of(t)->vocab;
    for (size_t i = 0; i < n; i++) {
        if ((size_t)id[i] >= vocab)
            return rung_fail(err, RUNG_ESHAPE, "prompt: token %d, but the text encoder's vocabulary has %zu",
                             (int)id[i], vocab);
    }
    return RUNG_OK;
}

/* ---- CLIP --------------------------------------------------------------------------------------------------- */

/* The whole prompt as one chunk, cut at the encoder's length. */
static rung_status fill_literal(const rung_textenc *t, const char *prompt, prompt_chunks *c, rung_err *err) {
    rung_ids ids = {0};
    rung_status st = tokenizer_encode(t->tokenizer, prompt, strlen(prompt), &ids, err);
    if (!st) st = chunks_add(c, ids.id, size_min(ids.n, c->room), 1, err);
    if (!st) st = chunks_finish(c, err);
    ids_free(&ids);
    return st;
}

static rung_status fill_weighted(const rung_textenc *t, const char *prompt, prompt_chunks *c, rung_err *err) {
    rung_prompt p;
    rung_ids ids = {0};
    const size_t bytes = strlen(prompt);
    if (bytes > TOKENIZER_MAX_BYTES)
        return rung_fail(err, RUNG_EARG, "prompt: %zu bytes long, at most %d are taken", bytes, TOKENIZER_MAX_BYTES);
    RUNG_TRY(prompt_parse(&p, prompt, bytes, err));
    rung_status st = RUNG_OK;
    for (size_t i = 0; i < p.pieces; i++) {
        const prompt_piece *piece = &p.piece[i];
        if (piece->is_break) {
            RUNG_TRY_GOTO(st, done, chunks_break(c, err));
            continue;
        }
        ids.n = 0;
        RUNG_TRY_GOTO(st, done, tokenizer_encode_text(t->tokenizer, p.text.cp + piece->start, piece->n, &ids, err));
        RUNG_TRY_GOTO(st, done, chunks_add(c, ids.id, ids.n, piece->weight, err));
    }
    st = chunks_finish(c, err);
done:
    ids_free(&ids);
    prompt_free(&p);
    return st;
}

/* Chunk i of c between start and end token, padded with the tokenizer's own pad token; past the last: an empty one.
 * An <|endoftext|> that the prompt itself names is a token like any other, as in diffusers; A1111 with SD2 turns all
 * that follows it into padding. */
static void frame_chunk(const rung_textenc *t, const prompt_chunks *c, size_t i, int32_t *id, float *weight) {
    const size_t used = i < c->chunks ? c->used[i] : 0;
    for (size_t k = 0; k < t->length; k++) {
        id[k] = tokenizer_pad(t->tokenizer);
        weight[k] = 1;
    }
    id[0] = tokenizer_first(t->tokenizer);
    id[used + 1] = tokenizer_last(t->tokenizer);
    if (!used) return;
    memcpy(id + 1, c->id + i * c->room, used * sizeof *id);
    memcpy(weight + 1, c->weight + i * c->room, used * sizeof *weight);
}

static rung_status encode_chunks(const rung_textenc *t, const prompt_chunks *c, size_t layers, size_t min_n,
                                 rung_embeds *out, rung_err *err) {
    const size_t d = config_of(t)->width, n = t->length;
    const size_t chunks = size_max(c->chunks, size_div_up(min_n, n));
    int32_t *id = malloc(n * sizeof *id);
    float *weight = malloc(n * sizeof *weight);
    rung_status st;
    if (!id || !weight) {
        st = rung_fail(err, RUNG_ENOMEM, "prompt: no memory for %zu tokens", n);
        goto done;
    }
    RUNG_TRY_GOTO(st, done, embeds_alloc(out, chunks * n, d, false, err));
    for (size_t i = 0; i < chunks; i++) {
        float *z = out->data + i * n * d;
        if (i > c->chunks) { /* all empty chunks are equal */
            memcpy(z, z - n * d, n * d * sizeof *z);
            continue;
        }
        frame_chunk(t, c, i, id, weight);
        RUNG_TRY_GOTO(st, done, check_ids(t, id, n, err));
        RUNG_TRY_GOTO(st, done, clip_text_run(t->clip, z, id, n, layers, err));
        RUNG_TRY_GOTO(st, done, prompt_apply_weights(z, weight, n, d, err));
    }
done:
    free(weight);
    free(id);
    return st;
}

static rung_status encode_clip(const rung_textenc *t, const char *prompt, const rung_text_options *o, rung_embeds *out,
                               rung_err *err) {
    const size_t layers = config_of(t)->layers;
    if (o->clip_skip < 0 || (size_t)o->clip_skip > layers + 1)
        return rung_fail(err, RUNG_EARG, "clip skip %d: the text encoder has %zu layers, wanted 1 to %zu", o->clip_skip,
                         layers, layers + 1);
    prompt_chunks c;
    chunks_start(&c, t->length - 2, tokenizer_comma(t->tokenizer));
    rung_status st = o->literal ? fill_literal(t, prompt, &c, err) : fill_weighted(t, prompt, &c, err);
    if (!st) st = encode_chunks(t, &c, o->clip_skip ? layers + 1 - (size_t)o->clip_skip : layers, o->min_n, out, err);
    chunks_free(&c);
    return st;
}

/* ---- BERT --------------------------------------------------------------------------------------------------- */

static rung_status encode_bert(const rung_textenc *t, const char *prompt, const rung_text_options *o, rung_embeds *out,
                               rung_err *err) {
    if (o->clip_skip < 0 || o->clip_skip > 1)
        return rung_fail(err, RUNG_EARG, "clip skip %d: this model's text encoder is BERT, not CLIP", o->clip_skip);
    if (o->min_n > t->length)
        return rung_fail(err, RUNG_EARG, "%zu rows of embeddings wanted, the text encoder takes %zu", o->min_n,
                         t->length);
    rung_ids ids = {0};
    rung_status st;
    ids_push(&ids, tokenizer_first(t->tokenizer));
    RUNG_TRY_GOTO(st, done, tokenizer_encode(t->tokenizer, prompt, strlen(prompt), &ids, err));
    ids.n = size_min(ids.n, t->length - 1);
    ids_push(&ids, tokenizer_last(t->tokenizer));
    const size_t real = ids.n;
    while (ids.n < o->min_n && !ids.failed) ids_push(&ids, tokenizer_pad(t->tokenizer));
    RUNG_TRY_GOTO(st, done, ids_check(&ids, err));
    RUNG_TRY_GOTO(st, done, check_ids(t, ids.id, ids.n, err));
    RUNG_TRY_GOTO(st, done, embeds_alloc(out, ids.n, config_of(t)->width, true, err));
    memset(out->mask, 1, real);
    st = bert_run(t->bert, out->data, ids.id, out->mask, ids.n, err);
done:
    ids_free(&ids);
    return st;
}

/* ------------------------------------------------------------------------------------------------------------- */

rung_status rung_textenc_encode(rung_textenc *t, const char *prompt, const rung_text_options *o, rung_embeds *out,
                                rung_err *err) {
    *out = (rung_embeds){0};
    const rung_status st = t->clip ? encode_clip(t, prompt, o, out, err) : encode_bert(t, prompt, o, out, err);
    if (st) rung_embeds_free(out);
    return st;
}

rung_status rung_textenc_tokens(const rung_textenc *t, const char *prompt, int32_t **ids, size_t *n, rung_err *err) {
    rung_ids list = {0};
    *ids = NULL;
    *n = 0;
    ids_push(&list, tokenizer_first(t->tokenizer));
    rung_status st = tokenizer_encode(t->tokenizer, prompt, strlen(prompt), &list, err);
    ids_push(&list, tokenizer_last(t->tokenizer));
    if (!st) st = ids_check(&list, err);
    if (st) {
        ids_free(&list);
        return st;
    }
    *ids = list.id;
    *n = list.n;
    return RUNG_OK;
}
