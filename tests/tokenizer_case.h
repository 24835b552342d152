/* tests/tokenizer_case.h - a tokenizer from a folder, and its ids against tests/golden/textenc/tokens.json. */
#ifndef RUNG_TOKENIZER_CASE_H
#define RUNG_TOKENIZER_CASE_H
#include <stdlib.h>
#include <string.h>

#include "tests/check.h"
#include "textenc/tokenizer.h"

#define GOLDEN RUNG_TEST_DIR "/golden/textenc/"

/* Files in memory: JSON as text, NULL where there is none. */
typedef struct {
    const char *config, *special_map, *added, *tokenizer_json, *vocab_json, *merges, *vocab_txt;
} file_texts;

static inline rung_status open_texts(rung_tokenizer **t, tokenizer_kind kind, const file_texts *x, rung_err *err) {
    const char *const text[] = {x->config, x->special_map, x->added, x->tokenizer_json, x->vocab_json};
    cJSON *json[5] = {0};
    rung_status st = RUNG_OK;
    *t = NULL;
    for (size_t i = 0; i < 5 && !st; i++) {
        if (text[i]) st = rung_json_parse(&json[i], text[i], strlen(text[i]), "test", err);
    }
    const tokenizer_files f = {.where = "test",
                               .config = json[0],
                               .special_map = json[1],
                               .added = json[2],
                               .tokenizer_json = json[3],
                               .vocab_json = json[4],
                               .merges = x->merges,
                               .merges_bytes = x->merges ? strlen(x->merges) : 0,
                               .vocab_txt = x->vocab_txt,
                               .vocab_txt_bytes = x->vocab_txt ? strlen(x->vocab_txt) : 0};
    if (!st) st = tokenizer_open(t, kind, &f, err);
    for (size_t i = 0; i < 5; i++) cJSON_Delete(json[i]);
    return st;
}

/* Must fail with `want` and a message that has `word` in it. */
static inline void open_refused(tokenizer_kind kind, const file_texts *x, rung_status want, const char *word) {
    rung_err err = {0};
    rung_tokenizer *t;
    const rung_status st = open_texts(&t, kind, x, &err);
    if (!CHECK(st == want && !t && strstr(err.msg, word)))
        fprintf(stderr, "  status %d '%s', wanted '%s'\n", (int)st, err.msg, word);
    tokenizer_close(&t);
}

static inline int same_ids(const rung_tokenizer *t, const char *text, const cJSON *want) {
    rung_ids got = {0};
    rung_err err = {0};
    int ok = tokenizer_encode(t, text, strlen(text), &got, &err) == RUNG_OK;
    /* the golden has the tokens around the text too */
    ok = ok && (int)got.n + 2 == cJSON_GetArraySize(want);
    size_t i = 0;
    for (const cJSON *id = want->child; ok && id; id = id->next, i++) {
        const int32_t mine = i == 0 ? tokenizer_first(t) : i <= got.n ? got.id[i - 1] : tokenizer_last(t);
        ok = mine == (int32_t)id->valuedouble;
    }
    ids_free(&got);
    return ok;
}

/* Every text of one case. */
static inline void check_tokens(const rung_tokenizer *t, const char *name) {
    cJSON *all = NULL;
    rung_err err = {0};
    if (!CHECK(rung_json_load(&all, GOLDEN "tokens.json", &err) == RUNG_OK)) return;
    const cJSON *c = cJSON_GetObjectItemCaseSensitive(all, name);
    const cJSON *text = cJSON_GetObjectItemCaseSensitive(c, "texts"), *ids = cJSON_GetObjectItemCaseSensitive(c, "ids");
    CHECK(cJSON_GetArraySize(text) >= 100 && cJSON_GetArraySize(text) == cJSON_GetArraySize(ids));
    text = text ? text->child : NULL;
    for (ids = ids ? ids->child : NULL; text && ids; text = text->next, ids = ids->next) {
        if (!CHECK(same_ids(t, text->valuestring, ids))) fprintf(stderr, "  %s: '%s'\n", name, text->valuestring);
    }
    cJSON_Delete(all);
}

static inline void check_model_tokens(tokenizer_kind kind, const char *name) {
    rung_err err = {0};
    rung_model *m = NULL;
    rung_tokenizer *t = NULL;
    char path[400];
    snprintf(path, sizeof path, GOLDEN "%s", name);
    if (CHECK(rung_model_open(&m, path, &err) == RUNG_OK) &&
        CHECK(tokenizer_open_model(&t, kind, m, &err) == RUNG_OK)) {
        check_tokens(t, name);
    } else {
        fprintf(stderr, "  %s: %s\n", name, err.msg);
    }
    tokenizer_close(&t);
    rung_model_close(&m);
}

/* Two texts, the same ids. */
static inline int equal_tokens(const rung_tokenizer *t, const char *a, const char *b) {
    rung_ids x = {0}, y = {0};
    rung_err err = {0};
    int ok = tokenizer_encode(t, a, strlen(a), &x, &err) == RUNG_OK &&
             tokenizer_encode(t, b, strlen(b), &y, &err) == RUNG_OK;
    ok = ok && x.n == y.n && (x.n == 0 || memcmp(x.id, y.id, x.n * sizeof *x.id) == 0);
    ids_free(&x);
    ids_free(&y);
    return ok;
}
#endif
