/* textenc/tokenizer.c - opens a tokenizer from its files; cuts a text at special tokens and encodes what is between. */
#include "textenc/tokenizer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "textenc/clip_bpe.h"
#include "textenc/wordpiece.h"

struct rung_tokenizer {
    tokenizer_kind kind;
    clip_bpe *bpe;
    wordpiece wp;
    special_tokens special;
    size_t max_length;
    int32_t first, last, pad, comma;
};

static const char *const CLIP_DEFAULTS[SPECIAL_NAMES] = {[SPECIAL_BOS] = "<|startoftext|>",
                                                         [SPECIAL_EOS] = "<|endoftext|>",
                                                         [SPECIAL_UNK] = "<|endoftext|>",
                                                         [SPECIAL_PAD] = "<|endoftext|>"};
static const char *const BERT_DEFAULTS[SPECIAL_NAMES] = {[SPECIAL_UNK] = "[UNK]",
                                                         [SPECIAL_SEP] = "[SEP]",
                                                         [SPECIAL_PAD] = "[PAD]",
                                                         [SPECIAL_CLS] = "[CLS]",
                                                         [SPECIAL_MASK] = "[MASK]"};

static special_source special_of(tokenizer_kind kind, const tokenizer_files *f) {
    return (special_source){.config = f->config,
                            .map = f->special_map,
                            .added = f->added,
                            .tokenizer_json = f->tokenizer_json,
                            .where = f->where,
                            .defaults = kind == TOKENIZER_CLIP ? CLIP_DEFAULTS : BERT_DEFAULTS};
}

/* "model" of tokenizer.json, of the wanted type; NULL when there is no such file. */
static rung_status json_model(const tokenizer_files *f, const char *type, const cJSON **out, rung_err *err) {
    *out = NULL;
    if (!f->tokenizer_json) return RUNG_OK;
    const cJSON *model = cJSON_GetObjectItemCaseSensitive(f->tokenizer_json, "model");
    const char *found = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(model, "type"));
    if (!cJSON_IsObject(model) || (found && strcmp(found, type) != 0))
        return rung_fail(err, RUNG_EFORMAT, "%s/tokenizer.json: model type is '%s', wanted %s", f->where,
                         found ? found : "missing", type);
    *out = model;
    return RUNG_OK;
}

static rung_status open_clip(rung_tokenizer *t, const tokenizer_files *f, rung_err *err) {
    const special_source special = special_of(TOKENIZER_CLIP, f);
    clip_bpe_source s = {.where = f->where, .unk = special_content(&special, SPECIAL_UNK)};
    const cJSON *model;
    RUNG_TRY(json_model(f, "BPE", &model, err));
    if (model) {
        s.vocab = cJSON_GetObjectItemCaseSensitive(model, "vocab");
        s.merges_list = cJSON_GetObjectItemCaseSensitive(model, "merges");
        if (!s.vocab) return rung_fail(err, RUNG_EFORMAT, "%s/tokenizer.json: no vocabulary in it", f->where);
    } else {
        s.vocab = f->vocab_json;
        s.merges_text = f->merges;
        s.merges_bytes = f->merges_bytes;
        if (!f->merges)
            return rung_fail(err, RUNG_EFORMAT, "%s: found neither tokenizer.json nor merges.txt", f->where);
    }
    RUNG_TRY(clip_bpe_open(&t->bpe, &s, err));
    t->comma = vocab_find(clip_bpe_vocab(t->bpe), ",</w>", 5);
    return special_tokens_open(&t->special, &special, clip_bpe_vocab(t->bpe), err);
}

static rung_status open_bert(rung_tokenizer *t, const tokenizer_files *f, rung_err *err) {
    const special_source special = special_of(TOKENIZER_BERT, f);
    const cJSON *model;
    RUNG_TRY(json_model(f, "WordPiece", &model, err));
    if (model) {
        RUNG_TRY(vocab_add_json(&t->wp.vocab, cJSON_GetObjectItemCaseSensitive(model, "vocab"), f->where, err));
    } else if (f->vocab_txt) {
        RUNG_TRY(vocab_add_lines(&t->wp.vocab, f->vocab_txt, f->vocab_txt_bytes, f->where, err));
    } else {
        return rung_fail(err, RUNG_EFORMAT, "%s: found neither tokenizer.json nor vocab.txt", f->where);
    }
    rung_config c = {.root = f->config, .where = f->where, .err = err};
    t->wp.lower_case = cfg_bool(&c, "do_lower_case", true);
    t->wp.strip_accents = cfg_bool(&c, "strip_accents", t->wp.lower_case);
    t->wp.split_chinese = cfg_bool(&c, "tokenize_chinese_chars", true);
    RUNG_TRY(c.status);
    t->comma = -1;
    return special_tokens_open(&t->special, &special, &t->wp.vocab, err);
}

static void normalize(const rung_tokenizer *t, rung_text *out, const uint32_t *cp, size_t n) {
    if (t->kind == TOKENIZER_CLIP) {
        clip_bpe_normalize(out, cp, n);
    } else {
        wordpiece_normalize(&t->wp, out, cp, n);
    }
}

/* Tokens that are looked for in normalised text are themselves normalised. */
static rung_status normalize_special(rung_tokenizer *t, rung_err *err) {
    for (size_t i = 0; i < t->special.n; i++) {
        special_token *s = &t->special.t[i];
        if (!s->normalized) continue;
        rung_text text = {0};
        normalize(t, &text, s->content.cp, s->content.n);
        text_free(&s->content);
        s->content = text;
        RUNG_TRY(text_check(&text, err));
    }
    return RUNG_OK;
}

/* "model_max_length"; tokenizers without a limit write 1e30. */
static rung_status read_max_length(rung_tokenizer *t, const tokenizer_files *f, rung_err *err) {
    rung_config c = {.root = f->config, .where = f->where, .err = err};
    const double n = cfg_real(&c, cfg_has(&c, "model_max_length") ? "model_max_length" : "max_len", 1e30, 3, HUGE_VAL);
    RUNG_TRY(c.status);
    t->max_length = n < 1e9 ? (size_t)n : SIZE_MAX;
    return RUNG_OK;
}

static rung_status finish(rung_tokenizer *t, const tokenizer_files *f, rung_err *err) {
    const bool clip = t->kind == TOKENIZER_CLIP;
    t->first = t->special.named[clip ? SPECIAL_BOS : SPECIAL_CLS];
    t->last = t->special.named[clip ? SPECIAL_EOS : SPECIAL_SEP];
    t->pad = t->special.named[SPECIAL_PAD];
    t->wp.unk = t->special.named[SPECIAL_UNK];
    if (t->first < 0 || t->last < 0 || t->pad < 0 || t->wp.unk < 0)
        return rung_fail(err, RUNG_EFORMAT, "%s: the tokenizer lacks one of its %s, pad and unk tokens", f->where,
                         clip ? "bos, eos" : "cls, sep");
    RUNG_TRY(normalize_special(t, err));
    return read_max_length(t, f, err);
}

rung_status tokenizer_open(rung_tokenizer **out, tokenizer_kind kind, const tokenizer_files *f, rung_err *err) {
    *out = NULL;
    rung_tokenizer *t = calloc(1, sizeof *t);
    if (!t) return rung_fail(err, RUNG_ENOMEM, "%s: no memory for a tokenizer", f->where);
    t->kind = kind;
    rung_status st;
    RUNG_TRY_GOTO(st, done, kind == TOKENIZER_CLIP ? open_clip(t, f, err) : open_bert(t, f, err));
    RUNG_TRY_GOTO(st, done, finish(t, f, err));
    *out = t;
    t = NULL;
done:
    tokenizer_close(&t);
    return st;
}

void tokenizer_close(rung_tokenizer **t) {
    if (!t || !*t) return;
    clip_bpe_close(&(*t)->bpe);
    wordpiece_free(&(*t)->wp);
    special_tokens_free(&(*t)->special);
    free(*t);
    *t = NULL;
}

static void encode_words(const rung_tokenizer *t, rung_ids *out, const uint32_t *cp, size_t n) {
    if (t->kind == TOKENIZER_CLIP) {
        clip_bpe_encode(t->bpe, out, cp, n);
    } else {
        wordpiece_encode(&t->wp, out, cp, n);
    }
}

/* A stretch of the text as it came: normalised, then cut at the tokens that are looked for in normalised text. */
static void encode_plain(const rung_tokenizer *t, rung_ids *out, const uint32_t *cp, size_t n) {
    rung_text text = {0};
    normalize(t, &text, cp, n);
    special_span span;
    for (size_t at = 0; special_next(&t->special, true, text.cp, text.n, &at, &span);) {
        if (span.id >= 0) {
            ids_push(out, span.id);
        } else {
            encode_words(t, out, text.cp + span.start, span.end - span.start);
        }
    }
    out->failed |= text.failed;
    text_free(&text);
}

rung_status tokenizer_encode_text(const rung_tokenizer *t, const uint32_t *cp, size_t n, rung_ids *out, rung_err *err) {
    special_span span;
    for (size_t at = 0; special_next(&t->special, false, cp, n, &at, &span);) {
        if (span.id >= 0) {
            ids_push(out, span.id);
        } else {
            encode_plain(t, out, cp + span.start, span.end - span.start);
        }
    }
    return ids_check(out, err);
}

rung_status tokenizer_encode(const rung_tokenizer *t, const char *text, size_t bytes, rung_ids *out, rung_err *err) {
    if (bytes > TOKENIZER_MAX_BYTES)
        return rung_fail(err, RUNG_EARG, "prompt: %zu bytes long, at most %d are taken", bytes, TOKENIZER_MAX_BYTES);
    rung_text raw = {0};
    text_decode(&raw, text, bytes);
    rung_status st = text_check(&raw, err);
    if (!st) st = tokenizer_encode_text(t, raw.cp, raw.n, out, err);
    text_free(&raw);
    return st;
}

int32_t tokenizer_first(const rung_tokenizer *t) { return t->first; }
int32_t tokenizer_last(const rung_tokenizer *t) { return t->last; }
int32_t tokenizer_pad(const rung_tokenizer *t) { return t->pad; }
int32_t tokenizer_comma(const rung_tokenizer *t) { return t->comma; }
size_t tokenizer_max_length(const rung_tokenizer *t) { return t->max_length; }
