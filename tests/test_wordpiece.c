/* tests/test_wordpiece.c - BERT's tokens against transformers (goldens), each option of its normaliser, bad files. */
#include "textenc/wordpiece.h"

#include "tests/tokenizer_case.h"

/* [PAD] 0, [UNK] 1, [CLS] 2, [SEP] 3, [MASK] 4, then the rest in order */
#define VOCAB                                                                                                          \
    "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nun\n##aff\n##able\n\xc3\xa9\ne\nE\n\xe6\x97\xa5\n##"                          \
    "\xe6\x9c\xac\n\xe6\x9c\xac\n-  \r\n"

static void ids_are(const char *config, const char *text, const int32_t *want, size_t n) {
    rung_tokenizer *t = NULL;
    rung_err err = {0};
    rung_ids got = {0};
    const file_texts x = {.config = config, .vocab_txt = VOCAB};
    if (CHECK(open_texts(&t, TOKENIZER_BERT, &x, &err) == RUNG_OK) &&
        CHECK(tokenizer_encode(t, text, strlen(text), &got, &err) == RUNG_OK)) {
        if (!CHECK(got.n == n && memcmp(got.id, want, n * sizeof *want) == 0))
            fprintf(stderr, "  %s '%s': %zu ids, the first %d\n", config ? config : "", text, got.n,
                    got.n ? (int)got.id[0] : -1);
    }
    ids_free(&got);
    tokenizer_close(&t);
}
#define IDS_ARE(config, text, ...)                                                                                     \
    ids_are(config, text, (const int32_t[]){__VA_ARGS__}, sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t))

static void options(void) {
    IDS_ARE(NULL, "unaffable", 5, 6, 7);
    IDS_ARE(NULL, "unaffablex", 1);
    IDS_ARE(NULL, "E \xc3\xa9 \xc3\x89", 9, 9, 9);
    IDS_ARE("{\"strip_accents\":false}", "E \xc3\xa9 \xc3\x89", 9, 8, 8);
    IDS_ARE("{\"do_lower_case\":false}", "E \xc3\xa9 \xc3\x89", 10, 8, 1);
    IDS_ARE("{\"do_lower_case\":false,\"strip_accents\":true}", "E \xc3\xa9 \xc3\x89", 10, 9, 10);
    IDS_ARE(NULL, "\xe6\x97\xa5\xe6\x9c\xac", 11, 13);
    IDS_ARE("{\"tokenize_chinese_chars\":false}", "\xe6\x97\xa5\xe6\x9c\xac", 11, 12);
    IDS_ARE(NULL, "un-un", 5, 14, 5);
    IDS_ARE(NULL, "e[MASK]e [mask]", 9, 4, 9, 1, 1, 1);
    IDS_ARE(NULL,
            "e\x01"
            "e",
            1);
    IDS_ARE(NULL,
            "un\x01"
            "aff\xff"
            "able",
            5, 6, 7); /* control characters and U+FFFD vanish */
}

static void refusals(void) {
    open_refused(TOKENIZER_BERT, &(file_texts){0}, RUNG_EFORMAT, "vocab.txt");
    open_refused(TOKENIZER_BERT, &(file_texts){.tokenizer_json = "{\"model\":{\"type\":\"BPE\"}}"}, RUNG_EFORMAT,
                 "BPE");
    open_refused(TOKENIZER_BERT, &(file_texts){.tokenizer_json = "{\"model\":{}}"}, RUNG_EFORMAT, "neither");
    open_refused(TOKENIZER_BERT, &(file_texts){.tokenizer_json = "{\"model\":{\"vocab\":[1]}}"}, RUNG_EFORMAT,
                 "entry 0");
    open_refused(TOKENIZER_BERT, &(file_texts){.vocab_txt = VOCAB, .config = "{\"do_lower_case\":3}"}, RUNG_EFORMAT,
                 "do_lower_case");
}

int main(void) {
    check_model_tokens(TOKENIZER_BERT, "bert_a");
    check_model_tokens(TOKENIZER_BERT, "bert_b");
    options();
    refusals();
    return check_result();
}
