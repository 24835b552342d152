/* tests/fuzz/fuzz_wordpiece.c - three parts between NUL bytes: vocab.txt, tokenizer_config.json, a prompt. */
#include <stdlib.h>
#include <string.h>

#include "textenc/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *part[3] = {"", "", ""};
    size_t len[3] = {0};
    const char *at = (const char *)data, *end = at + size;
    for (int i = 0; i < 3 && at < end; i++) {
        const char *stop = memchr(at, 0, (size_t)(end - at));
        part[i] = at;
        len[i] = (size_t)((stop ? stop : end) - at);
        at = stop ? stop + 1 : end;
    }
    rung_err err = {0};
    cJSON *config = NULL;
    if (len[1] && rung_json_parse(&config, part[1], len[1], "fuzz", &err)) err = (rung_err){0};
    const tokenizer_files f = {.where = "fuzz", .config = config, .vocab_txt = part[0], .vocab_txt_bytes = len[0]};
    rung_tokenizer *t = NULL;
    rung_ids ids = {0};
    if (!tokenizer_open(&t, TOKENIZER_BERT, &f, &err)) (void)tokenizer_encode(t, part[2], len[2], &ids, &err);
    for (size_t i = 0; i < ids.n; i++) {
        if (ids.id[i] < 0) abort();
    }
    ids_free(&ids);
    tokenizer_close(&t);
    cJSON_Delete(config);
    return 0;
}
