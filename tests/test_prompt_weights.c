/* tests/test_prompt_weights.c - the prompt grammar against stable-diffusion-webui's (golden pieces.json, made by
 * tools/goldens/textenc.py), chunks with their commas, and what weights do to an embedding. */
#include "textenc/prompt_weights.h"

#include <stdlib.h>
#include <string.h>

#include "assets/json.h"
#include "tests/check.h"

#define GOLDEN RUNG_TEST_DIR "/golden/textenc/"

static int same_text(const rung_prompt *p, const prompt_piece *piece, const char *want) {
    rung_text w = {0};
    text_decode(&w, want, strlen(want));
    const int ok = w.n == piece->n && (w.n == 0 || memcmp(w.cp, p->text.cp + piece->start, w.n * sizeof *w.cp) == 0);
    text_free(&w);
    return ok;
}

static int same_pieces(const char *prompt, const cJSON *want) {
    rung_prompt p;
    rung_err err = {0};
    if (prompt_parse(&p, prompt, strlen(prompt), &err)) return 0;
    int ok = (int)p.pieces == cJSON_GetArraySize(want);
    size_t i = 0;
    for (const cJSON *w = want->child; ok && w; w = w->next, i++) {
        const char *text = cJSON_GetArrayItem(w, 0)->valuestring;
        const double weight = cJSON_GetArrayItem(w, 1)->valuedouble;
        ok = same_text(&p, &p.piece[i], text) && p.piece[i].weight == weight &&
             p.piece[i].is_break == (strcmp(text, "BREAK") == 0 && weight == -1);
    }
    prompt_free(&p);
    return ok;
}

static void grammar(void) {
    cJSON *cases = NULL;
    rung_err err = {0};
    if (!CHECK(rung_json_load(&cases, GOLDEN "pieces.json", &err) == RUNG_OK)) return;
    CHECK(cJSON_GetArraySize(cases) > 100);
    for (const cJSON *c = cases->child; c; c = c->next) {
        const char *prompt = cJSON_GetObjectItemCaseSensitive(c, "prompt")->valuestring;
        if (!CHECK(same_pieces(prompt, cJSON_GetObjectItemCaseSensitive(c, "pieces"))))
            fprintf(stderr, "  '%s'\n", prompt);
    }
    cJSON_Delete(cases);
}

static void bad_numbers(void) {
    static const char *const prompts[] = {"(a:1.2.3)", "(a:.)",   "(a:+.)",
                                          "(a:--1)",   "(a:1e5)", "(a:99999999999999999999999999999999999999999)"};
    for (size_t i = 0; i < sizeof prompts / sizeof *prompts; i++) {
        rung_prompt p;
        rung_err err = {0};
        const rung_status st = prompt_parse(&p, prompts[i], strlen(prompts[i]), &err);
        /* "--1" and "1e5" are no weights but text in the grammar itself */
        const rung_status want = i == 3 || i == 4 ? RUNG_OK : RUNG_EARG;
        if (!CHECK(st == want && (st == RUNG_OK || err.msg[0]))) fprintf(stderr, "  '%s' %s\n", prompts[i], err.msg);
        prompt_free(&p);
    }
}

enum { ROOM = 75, COMMA = 7, WORD = 1000 };

/* n tokens WORD, WORD + 1, ...; the ones at `commas` are commas. The lengths of the chunks must be `want`. */
static void chunk_lengths(size_t n, const size_t *commas, size_t n_commas, const size_t *want, size_t n_want) {
    prompt_chunks c;
    rung_err err = {0};
    int ok = 1;
    chunks_start(&c, ROOM, COMMA);
    for (size_t i = 0; i < n; i++) {
        int32_t id = (int32_t)(WORD + i);
        for (size_t k = 0; k < n_commas; k++) id = commas[k] == i ? COMMA : id;
        ok = ok && chunks_add(&c, &id, 1, 1 + (double)i, &err) == RUNG_OK;
    }
    ok = ok && chunks_finish(&c, &err) == RUNG_OK && c.chunks == n_want;
    size_t at = 0;
    for (size_t i = 0; ok && i < n_want; i++) {
        ok = c.used[i] == want[i];
        for (size_t k = 0; ok && k < c.used[i]; k++, at++) {
            const int32_t id = c.id[i * ROOM + k];
            ok = (id == COMMA || id == (int32_t)(WORD + at)) && c.weight[i * ROOM + k] == 1 + (float)at;
        }
    }
    if (!CHECK(ok && at == n)) fprintf(stderr, "  %zu tokens, %zu chunks\n", n, c.chunks);
    chunks_free(&c);
}
#define LIST(...) (const size_t[]){__VA_ARGS__}, sizeof((const size_t[]){__VA_ARGS__}) / sizeof(size_t)

static void chunks(void) {
    chunk_lengths(0, NULL, 0, LIST(0));
    chunk_lengths(75, NULL, 0, LIST(75));
    chunk_lengths(76, NULL, 0, LIST(75, 1));
    chunk_lengths(76, LIST(60), LIST(61, 15));
    chunk_lengths(76, LIST(55), LIST(56, 20)); /* 20 back: the last that counts */
    chunk_lengths(76, LIST(54), LIST(75, 1));
    chunk_lengths(76, LIST(74), LIST(75, 1));
    chunk_lengths(76, LIST(75), LIST(75, 1)); /* the comma itself does not fit: no going back */
    chunk_lengths(76, LIST(60, 75), LIST(75, 1));
    chunk_lengths(160, LIST(60, 130), LIST(61, 70, 29));
}

static void breaks(void) {
    prompt_chunks c;
    rung_err err = {0};
    const int32_t id[] = {WORD, WORD + 1};
    chunks_start(&c, ROOM, -1);
    CHECK(chunks_break(&c, &err) == RUNG_OK);
    CHECK(chunks_add(&c, id, 2, 1, &err) == RUNG_OK);
    CHECK(chunks_break(&c, &err) == RUNG_OK);
    CHECK(chunks_finish(&c, &err) == RUNG_OK);
    CHECK(c.chunks == 2 && c.used[0] == 0 && c.used[1] == 2);
    chunks_free(&c);
}

static void weights(void) {
    const float ones[] = {1, 1, 1}, some[] = {1, 2, 1}, cancel[] = {1, -1, 1};
    float z[] = {1, 2, 3, 4, 5, 6}, same[] = {1, 2, 3, 4, 5, 6}, zero[] = {1, 0, 1, 0, 0, 0};
    rung_err err = {0};
    CHECK(prompt_apply_weights(z, ones, 3, 2, &err) == RUNG_OK && memcmp(z, same, sizeof z) == 0);
    /* rows 1 2 | 6 8 | 5 6: sum 21 becomes 28, so all times 21 / 28 */
    const float want[] = {0.75f, 1.5f, 4.5f, 6, 3.75f, 4.5f};
    CHECK(prompt_apply_weights(z, some, 3, 2, &err) == RUNG_OK && close_all(z, want, 6, 1e-6f));
    CHECK(prompt_apply_weights(zero, cancel, 3, 2, &err) == RUNG_EARG && strstr(err.msg, "cancel"));
}

int main(void) {
    grammar();
    bad_numbers();
    chunks();
    breaks();
    weights();
    return check_result();
}
