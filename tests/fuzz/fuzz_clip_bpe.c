/* tests/fuzz/fuzz_clip_bpe.c - four parts between NUL bytes: merges.txt, tokenizer_config.json, tokenizer.json, a
 * prompt. The prompt goes through the tokenizer of those files, or through a fixed one when they are refused. */
#include <stdlib.h>
#include <string.h>

#include "textenc/tokenizer.h"

static cJSON *parse(const char *text, size_t bytes) {
    cJSON *json = NULL;
    rung_err err = {0};
    return bytes && !rung_json_parse(&json, text, bytes, "fuzz", &err) ? json : NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *part[4] = {NULL};
    size_t len[4] = {0};
    const char *at = (const char *)data, *end = at + size;
    for (int i = 0; i < 4 && at < end; i++) {
        const char *stop = memchr(at, 0, (size_t)(end - at));
        part[i] = at;
        len[i] = (size_t)((stop ? stop : end) - at);
        at = stop ? stop + 1 : end;
    }
    rung_err err = {0};
    cJSON *config = parse(part[1], len[1]), *whole = parse(part[2], len[2]);
    const tokenizer_files fixed = {.where = "fixed", .merges = "a b\nab c</w>\n", .merges_bytes = 13};
    const tokenizer_files f = {
        .where = "fuzz", .config = config, .tokenizer_json = whole, .merges = part[0], .merges_bytes = len[0]};
    rung_tokenizer *t = NULL;
    if (tokenizer_open(&t, TOKENIZER_CLIP, &f, &err)) {
        err = (rung_err){0};
        if (tokenizer_open(&t, TOKENIZER_CLIP, &fixed, &err)) abort();
    }
    rung_ids ids = {0};
    if (part[3]) (void)tokenizer_encode(t, part[3], len[3], &ids, &err);
    for (size_t i = 0; i < ids.n; i++) {
        if (ids.id[i] < 0) abort();
    }
    ids_free(&ids);
    tokenizer_close(&t);
    cJSON_Delete(whole);
    cJSON_Delete(config);
    return 0;
}
