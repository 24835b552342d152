/* textenc/tokenizer_model.c - a tokenizer from the files of a model's "tokenizer" folder. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "textenc/tokenizer.h"

enum { WHERE = 512 }; /* a path in a message, cut when longer */

static rung_status read_json(rung_model *m, const char *file, cJSON **out, rung_err *err) {
    char *text, where[WHERE];
    size_t bytes;
    *out = NULL;
    RUNG_TRY(rung_model_text(m, "tokenizer", file, &text, &bytes, err));
    if (!text) return RUNG_OK;
    snprintf(where, sizeof where, "%s/tokenizer/%s", rung_model_path(m), file);
    const rung_status st = rung_json_parse(out, text, bytes, where, err);
    free(text);
    return st;
}

static rung_status check_class(rung_model *m, tokenizer_kind kind, rung_err *err) {
    static const char *const classes[2][2] = {{"CLIPTokenizer", "CLIPTokenizerFast"},
                                              {"BertTokenizer", "BertTokenizerFast"}};
    const char *name = NULL;
    if (!rung_model_has(m, "tokenizer", &name))
        return rung_fail(err, RUNG_EFORMAT, "%s: the model has no tokenizer", rung_model_path(m));
    if (!name || strcmp(name, classes[kind][0]) == 0 || strcmp(name, classes[kind][1]) == 0) return RUNG_OK;
    return rung_fail(err, RUNG_EFORMAT, "%s: tokenizer is a %s, wanted %s for this text encoder", rung_model_path(m),
                     name, classes[kind][0]);
}

rung_status tokenizer_open_model(rung_tokenizer **out, tokenizer_kind kind, rung_model *m, rung_err *err) {
    *out = NULL;
    RUNG_TRY(check_class(m, kind, err));
    cJSON *config = NULL, *map = NULL, *added = NULL, *whole = NULL, *vocab = NULL;
    char *merges = NULL, *lines = NULL, where[WHERE];
    tokenizer_files f = {.where = where};
    snprintf(where, sizeof where, "%s/tokenizer", rung_model_path(m));
    rung_status st;
    RUNG_TRY_GOTO(st, done, read_json(m, "tokenizer_config.json", &config, err));
    RUNG_TRY_GOTO(st, done, read_json(m, "special_tokens_map.json", &map, err));
    RUNG_TRY_GOTO(st, done, read_json(m, "added_tokens.json", &added, err));
    RUNG_TRY_GOTO(st, done, read_json(m, "tokenizer.json", &whole, err));
    if (!whole && kind == TOKENIZER_CLIP) {
        RUNG_TRY_GOTO(st, done, read_json(m, "vocab.json", &vocab, err));
        RUNG_TRY_GOTO(st, done, rung_model_text(m, "tokenizer", "merges.txt", &merges, &f.merges_bytes, err));
    } else if (!whole) {
        RUNG_TRY_GOTO(st, done, rung_model_text(m, "tokenizer", "vocab.txt", &lines, &f.vocab_txt_bytes, err));
    }
    f.config = config;
    f.special_map = map;
    f.added = added;
    f.tokenizer_json = whole;
    f.vocab_json = vocab;
    f.merges = merges;
    f.vocab_txt = lines;
    st = tokenizer_open(out, kind, &f, err);
done:
    free(lines);
    free(merges);
    cJSON_Delete(vocab);
    cJSON_Delete(whole);
    cJSON_Delete(added);
    cJSON_Delete(map);
    cJSON_Delete(config);
    return st;
}
