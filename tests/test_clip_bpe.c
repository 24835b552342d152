/* tests/test_clip_bpe.c - CLIP's tokens against transformers (goldens), broken UTF-8, vocabularies that lie. */
#include "textenc/clip_bpe.h"

#include <time.h>

#include "assets/clip_merges.h"
#include "tests/tokenizer_case.h"

#define MERGES "#version: 0.2\na b</w>\nh e\n"

static void built_in(void) {
    rung_tokenizer *t = NULL;
    rung_err err = {0};
    tokenizer_files f = {.where = "built-in"};
    f.merges = clip_merges(&f.merges_bytes);
    if (!CHECK(tokenizer_open(&t, TOKENIZER_CLIP, &f, &err) == RUNG_OK)) return;
    CHECK(tokenizer_first(t) == 49406 && tokenizer_last(t) == 49407 && tokenizer_pad(t) == 49407);
    CHECK(tokenizer_comma(t) == 267);
    CHECK(tokenizer_max_length(t) == SIZE_MAX);
    check_tokens(t, "built-in");
    tokenizer_close(&t);
}

/* Unicode 3.9: one U+FFFD for each maximal part of a broken sequence. */
static void broken_utf8(const rung_tokenizer *t) {
    static const char *const cases[][2] = {
        {"a\xff", "a\uFFFD"},
        {"\xc3", "\uFFFD"},
        {"\xc3(", "\uFFFD("},
        {"\xe2\x82", "\uFFFD"},
        {"\xe2\x82\x41", "\uFFFD"
                         "A"},
        {"\xf0\x9f\x8e x", "\uFFFD x"},
        {"\xc0\x80", "\uFFFD\uFFFD"},
        {"\xe0\x80\x80", "\uFFFD\uFFFD\uFFFD"},
        {"\xed\xa0\x80", "\uFFFD\uFFFD\uFFFD"},
        {"\xf4\x90\x80\x80", "\uFFFD\uFFFD\uFFFD\uFFFD"},
        {"\xf5\x80", "\uFFFD\uFFFD"},
        {"\x80\xbf", "\uFFFD\uFFFD"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (!CHECK(equal_tokens(t, cases[i][0], cases[i][1]))) fprintf(stderr, "  case %zu\n", i);
    }
    CHECK(!equal_tokens(t, "\xff", "\xff\xff"));
}

/* A word of 64 KiB and one combining run must cost no more than n log n: far under a second each. */
static void long_words(const rung_tokenizer *t) {
    static char text[TOKENIZER_MAX_BYTES + 1];
    static const char *const unit[] = {"he", "a", "'", "\xcc\x81\xcc\x96", "<|endoftext|"};
    for (size_t k = 0; k < sizeof unit / sizeof *unit; k++) {
        const size_t len = strlen(unit[k]);
        rung_ids ids = {0};
        rung_err err = {0};
        size_t n = 0;
        for (; n + len <= TOKENIZER_MAX_BYTES; n += len) memcpy(text + n, unit[k], len);
        const clock_t start = clock();
        CHECK(tokenizer_encode(t, text, n, &ids, &err) == RUNG_OK && ids.n > 0);
        const double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
        if (!CHECK(seconds < 5)) fprintf(stderr, "  '%s' took %g s\n", unit[k], seconds);
        ids_free(&ids);
    }
}

static void refusals(void) {
    open_refused(TOKENIZER_CLIP, &(file_texts){0}, RUNG_EFORMAT, "merges.txt");
    open_refused(TOKENIZER_CLIP, &(file_texts){.merges = "a b c\n"}, RUNG_EFORMAT, "merge 1");
    open_refused(TOKENIZER_CLIP, &(file_texts){.merges = "a b\nab\n"}, RUNG_EFORMAT, "merge 2");
    open_refused(TOKENIZER_CLIP, &(file_texts){.merges = "zz b\n"}, RUNG_EFORMAT, "'zzb'");
    open_refused(TOKENIZER_CLIP, &(file_texts){.merges = "a b\n", .vocab_json = "{\"a\":0,\"b\":1}"}, RUNG_EFORMAT,
                 "'ab'");
    open_refused(TOKENIZER_CLIP, &(file_texts){.merges = "", .vocab_json = "{\"a\":-1}"}, RUNG_EFORMAT, "'a'");
    open_refused(TOKENIZER_CLIP, &(file_texts){.merges = "", .vocab_json = "{\"a\":0.5}"}, RUNG_EFORMAT, "'a'");
    open_refused(TOKENIZER_CLIP, &(file_texts){.merges = "", .vocab_json = "{\"a\":\"b\"}"}, RUNG_EFORMAT, "'a'");
    open_refused(TOKENIZER_CLIP, &(file_texts){.merges = "", .vocab_json = "{\"a\":1e300}"}, RUNG_EFORMAT, "'a'");
    open_refused(TOKENIZER_CLIP, &(file_texts){.merges = "", .vocab_json = "7"}, RUNG_EFORMAT, "neither");
    open_refused(TOKENIZER_CLIP, &(file_texts){.tokenizer_json = "{}"}, RUNG_EFORMAT, "BPE");
    open_refused(TOKENIZER_CLIP, &(file_texts){.tokenizer_json = "{\"model\":{\"type\":\"WordPiece\"}}"}, RUNG_EFORMAT,
                 "WordPiece");
    open_refused(TOKENIZER_CLIP, &(file_texts){.tokenizer_json = "{\"model\":{\"vocab\":{\"a\":0},\"merges\":3}}"},
                 RUNG_EFORMAT, "merges");
    open_refused(TOKENIZER_CLIP,
                 &(file_texts){.tokenizer_json = "{\"model\":{\"vocab\":{\"a\":0},\"merges\":[[\"a\"]]}}"},
                 RUNG_EFORMAT, "pair");
    open_refused(TOKENIZER_CLIP, &(file_texts){.merges = MERGES, .config = "{\"pad_token\":{\"x\":1}}"}, RUNG_EFORMAT,
                 "pad_token");
    open_refused(TOKENIZER_CLIP, &(file_texts){.merges = MERGES, .config = "{\"pad_token\":\"\"}"}, RUNG_EFORMAT,
                 "pad_token");
    open_refused(TOKENIZER_CLIP, &(file_texts){.merges = MERGES, .config = "{\"model_max_length\":2}"}, RUNG_EFORMAT,
                 "model_max_length");
    open_refused(TOKENIZER_CLIP, &(file_texts){.merges = MERGES, .config = "{\"model_max_length\":\"77\"}"},
                 RUNG_EFORMAT, "model_max_length");
    open_refused(TOKENIZER_CLIP, &(file_texts){.merges = MERGES, .config = "{\"added_tokens_decoder\":{\"1\":{}}}"},
                 RUNG_EFORMAT, "added token");
}

/* What a config says about its tokens, where the goldens do not go. */
static void special_tokens_of_configs(void) {
    static const char map[] = "{\"pad_token\":{\"content\":\"!\",\"normalized\":false}}";
    rung_tokenizer *t = NULL;
    rung_err err = {0};
    if (CHECK(open_texts(&t, TOKENIZER_CLIP, &(file_texts){.merges = MERGES, .special_map = map}, &err) == RUNG_OK))
        CHECK(tokenizer_pad(t) == 0);
    tokenizer_close(&t);
    /* "added_tokens_decoder" in the config makes special_tokens_map.json count for nothing */
    const file_texts decoder = {.merges = MERGES, .special_map = map, .config = "{\"added_tokens_decoder\":{}}"};
    if (CHECK(open_texts(&t, TOKENIZER_CLIP, &decoder, &err) == RUNG_OK)) CHECK(tokenizer_pad(t) == 515);
    tokenizer_close(&t);
    /* a token that the vocabulary lacks gets the next id */
    const file_texts added = {.merges = MERGES, .config = "{\"pad_token\":\"<pad>\",\"model_max_length\":1e30}"};
    if (CHECK(open_texts(&t, TOKENIZER_CLIP, &added, &err) == RUNG_OK)) {
        CHECK(tokenizer_pad(t) == 516);
        CHECK(tokenizer_max_length(t) == SIZE_MAX);
        CHECK(equal_tokens(t, "a<pad>b", "a <pad> b"));
        broken_utf8(t);
        long_words(t);
    }
    tokenizer_close(&t);
    /* where two tokens match, the longer one is meant, whichever comes first */
    const file_texts nested = {.merges = MERGES, .config = "{\"additional_special_tokens\":[\"<a>b\",\"<a>\"]}"};
    rung_ids ids = {0};
    if (CHECK(open_texts(&t, TOKENIZER_CLIP, &nested, &err) == RUNG_OK) &&
        CHECK(tokenizer_encode(t, "<a>b<a>", 7, &ids, &err) == RUNG_OK))
        CHECK(ids.n == 2 && ids.id[0] == 516 && ids.id[1] == 517);
    ids_free(&ids);
    tokenizer_close(&t);
}

int main(void) {
    built_in();
    check_model_tokens(TOKENIZER_CLIP, "clip_a");
    check_model_tokens(TOKENIZER_CLIP, "clip_b");
    check_model_tokens(TOKENIZER_CLIP, "clip_c");
    special_tokens_of_configs();
    refusals();
    return check_result();
}
