/* tests/test_textenc.c - embeddings of tiny encoders against transformers: every golden case of
 * tests/golden/textenc/cases.json, and what must be refused. Made by tools/goldens/textenc.py. */
#define _POSIX_C_SOURCE 200809L /* mkdir */
#include "textenc/textenc.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "assets/npy.h"
#include "kernels/base/cpu.h"
#include "tests/check.h"

#define GOLDEN RUNG_TEST_DIR "/golden/textenc/"

static const double TOLERANCE = 1e-5; /* of the norm; f32 against f32 comes to about 1e-6 */

static rung_backend *backend;

static rung_status open_model(const char *path, rung_model **m, rung_textenc **t, rung_err *err) {
    *t = NULL;
    RUNG_TRY(rung_model_open(m, path, err));
    return rung_textenc_open(t, *m, backend, RUNG_STORE_STORED, err);
}

static int flag(const cJSON *c, const char *key) {
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(c, key);
    return cJSON_IsTrue(v) ? 1 : v && cJSON_IsNumber(v) ? (int)v->valuedouble : 0;
}

static const char *text(const cJSON *c, const char *key) {
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(c, key));
}

static int mask_is(const rung_embeds *e, size_t real) {
    for (size_t i = 0; i < e->n; i++) {
        if (e->mask[i] != (i < real)) return 0;
    }
    return 1;
}

static void check_case(rung_textenc *t, const cJSON *c) {
    char path[400];
    rung_err err = {0};
    rung_embeds e = {0};
    rung_npy want = {0};
    const rung_text_options o = {
        .clip_skip = flag(c, "clip_skip"), .literal = flag(c, "literal"), .min_n = (size_t)flag(c, "min_n")};
    snprintf(path, sizeof path, GOLDEN "%s", text(c, "file"));
    int ok = CHECK(rung_npy_read(&want, path, &err) == RUNG_OK);
    ok = ok && CHECK(rung_textenc_encode(t, text(c, "prompt"), &o, &e, &err) == RUNG_OK);
    ok = ok && CHECK(want.ndim == 2 && e.n == want.shape[0] && e.d == want.shape[1]);
    const double diff = ok ? rel_l2(e.data, want.data, want.count) : 0;
    ok = ok && CHECK(diff <= TOLERANCE);
    const int real = flag(c, "real");
    ok = ok && CHECK(real ? e.mask && mask_is(&e, (size_t)real) : !e.mask);
    if (!ok) fprintf(stderr, "  %s: n=%zu d=%zu diff=%g %s\n", text(c, "file"), e.n, e.d, diff, err.msg);
    rung_npy_free(&want);
    rung_embeds_free(&e);
}

static void golden(const char *name) {
    char path[400];
    rung_err err = {0};
    rung_model *m = NULL;
    rung_textenc *t = NULL;
    cJSON *cases = NULL;
    snprintf(path, sizeof path, GOLDEN "%s", name);
    if (CHECK(open_model(path, &m, &t, &err) == RUNG_OK) &&
        CHECK(rung_json_load(&cases, GOLDEN "cases.json", &err) == RUNG_OK)) {
        int seen = 0;
        for (const cJSON *c = cases->child; c; c = c->next) {
            if (strcmp(text(c, "model"), name) != 0) continue;
            check_case(t, c);
            seen++;
        }
        CHECK(seen >= 5);
    } else {
        fprintf(stderr, "  %s: %s\n", name, err.msg);
    }
    cJSON_Delete(cases);
    rung_textenc_close(&t);
    rung_model_close(&m);
}

/* Without weights, within one chunk, the plain way and the weighted one are the same to the bit. */
static void plain_is_literal(rung_textenc *t) {
    rung_err err = {0};
    rung_embeds a = {0}, b = {0}, c = {0};
    const rung_text_options weighted = {0}, literal = {.literal = true};
    CHECK(rung_textenc_encode(t, "a red apple, 3d", &weighted, &a, &err) == RUNG_OK);
    CHECK(rung_textenc_encode(t, "a red apple, 3d", &literal, &b, &err) == RUNG_OK);
    CHECK(rung_textenc_encode(t, "a (red:1.0) apple, 3d", &weighted, &c, &err) == RUNG_OK);
    if (CHECK(a.n == 77 && b.n == 77 && c.n == 77)) {
        CHECK(memcmp(a.data, b.data, a.n * a.d * sizeof *a.data) == 0);
        CHECK(memcmp(a.data, c.data, a.n * a.d * sizeof *a.data) == 0);
    }
    rung_embeds_free(&a);
    rung_embeds_free(&b);
    rung_embeds_free(&c);
}

/* The refusal comes with a message that has `word` in it, and nothing to free. */
static void refused(rung_textenc *t, const char *prompt, rung_text_options o, rung_status want, const char *word) {
    rung_err err = {0};
    rung_embeds e = {0};
    const rung_status st = rung_textenc_encode(t, prompt, &o, &e, &err);
    if (!CHECK(st == want && strstr(err.msg, word) && !e.data && !e.mask))
        fprintf(stderr, "  %.40s: status %d '%s', wanted '%s'\n", prompt, (int)st, err.msg, word);
    rung_embeds_free(&e);
}

static void refusals(void) {
    rung_err err = {0};
    rung_model *m = NULL, *mb = NULL;
    rung_textenc *t = NULL, *b = NULL;
    if (!CHECK(open_model(GOLDEN "clip_a", &m, &t, &err) == RUNG_OK) ||
        !CHECK(open_model(GOLDEN "bert_a", &mb, &b, &err) == RUNG_OK))
        goto done;
    plain_is_literal(t);
    char *huge = malloc(65538);
    if (!CHECK(huge)) goto done;
    memset(huge, 'x', 65537);
    huge[65537] = 0;
    refused(t, huge, (rung_text_options){0}, RUNG_EARG, "65537");
    refused(t, huge, (rung_text_options){.literal = true}, RUNG_EARG, "65537");
    refused(b, huge, (rung_text_options){0}, RUNG_EARG, "65537");
    free(huge);
    refused(t, "a", (rung_text_options){.clip_skip = 5}, RUNG_EARG, "3 layers");
    refused(t, "a", (rung_text_options){.clip_skip = -1}, RUNG_EARG, "clip skip -1");
    refused(b, "a", (rung_text_options){.clip_skip = 2}, RUNG_EARG, "BERT");
    refused(b, "a", (rung_text_options){.min_n = 65}, RUNG_EARG, "64");
    refused(t, "(a:1.2.3)", (rung_text_options){0}, RUNG_EARG, "1.2.3");
    refused(t, "(((a:9999999999999999999):9999999999999999999):99)", (rung_text_options){0}, RUNG_EARG, "range");
    int32_t *ids = NULL;
    size_t n = 0;
    if (CHECK(rung_textenc_tokens(t, "a a", &ids, &n, &err) == RUNG_OK))
        CHECK(n == 4 && ids[1] == ids[2] && ids[0] != ids[3]);
    free(ids);
done:
    rung_textenc_close(&t);
    rung_textenc_close(&b);
    rung_model_close(&m);
    rung_model_close(&mb);
}

#define BAD "test_textenc.work"

static void write_text(const char *path, const char *content) {
    FILE *f = fopen(path, "w");
    if (!CHECK(f)) return;
    fputs(content, f);
    CHECK(fclose(f) == 0);
}

/* A model without weights: what is wrong with it must be found, and named, before they are looked for. */
static void model_refused(const char *classes, const char *config, const char *word) {
    char index[300];
    rung_err err = {0};
    rung_model *m = NULL;
    rung_textenc *t = NULL;
    snprintf(index, sizeof index, "{\"_class_name\":\"StableDiffusionPipeline\",%s}", classes);
    write_text(BAD "/model_index.json", index);
    write_text(BAD "/text_encoder/config.json", config);
    const rung_status st = open_model(BAD, &m, &t, &err);
    if (!CHECK(st == RUNG_EFORMAT && !t && strstr(err.msg, word)))
        fprintf(stderr, "  %s: status %d '%s', wanted '%s'\n", config, (int)st, err.msg, word);
    rung_textenc_close(&t);
    rung_model_close(&m);
}

static void bad_models(void) {
    static const char clip[] = "\"text_encoder\":[\"transformers\",\"CLIPTextModel\"],"
                               "\"tokenizer\":[\"transformers\",\"CLIPTokenizer\"]";
    static const char bert[] = "\"text_encoder\":[\"transformers\",\"BertModel\"],"
                               "\"tokenizer\":[\"transformers\",\"BertTokenizer\"]";
    mkdir(BAD, 0777);
    mkdir(BAD "/text_encoder", 0777);
    mkdir(BAD "/tokenizer", 0777);
    write_text(BAD "/tokenizer/merges.txt", "a b\n");
    write_text(BAD "/tokenizer/vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n");
    model_refused("\"text_encoder\":[\"transformers\",\"T5EncoderModel\"]", "{}", "T5EncoderModel");
    model_refused("\"text_encoder\":[null,null]", "{}", "no text encoder");
    model_refused("\"text_encoder\":[\"transformers\",\"CLIPTextModel\"]", "{}", "no tokenizer");
    model_refused("\"text_encoder\":[\"transformers\",\"CLIPTextModel\"],"
                  "\"tokenizer\":[\"transformers\",\"T5Tokenizer\"]",
                  "{}", "T5Tokenizer");
    model_refused(clip, "{\"hidden_act\":\"mish\"}", "'mish'");
    model_refused(clip, "{\"num_attention_heads\":7}", "7 heads");
    model_refused(clip, "{\"num_attention_heads\":0}", "num_attention_heads");
    model_refused(clip, "{\"hidden_size\":-8}", "hidden_size");
    model_refused(clip, "{\"hidden_size\":2147483648}", "hidden_size");
    model_refused(clip, "{\"num_hidden_layers\":\"3\"}", "num_hidden_layers");
    model_refused(clip, "{\"max_position_embeddings\":1}", "max_position_embeddings");
    model_refused(clip, "{\"layer_norm_eps\":-1}", "layer_norm_eps");
    model_refused(clip, "{\"use_attention_mask\":true}", "use_attention_mask");
    model_refused(clip, "{}", "text_encoder"); /* all right but for the weights */
    model_refused(bert, "{\"position_embedding_type\":\"relative_key\"}", "relative_key");
    model_refused(bert, "{\"is_decoder\":true}", "is_decoder");
    model_refused(bert, "{\"type_vocab_size\":0}", "type_vocab_size");
}

int main(void) {
    rung_err err = {0};
    rung_pool *pool = NULL;
    if (CHECK(rung_pool_open(&pool, 2, &err) == RUNG_OK) &&
        CHECK(rung_cpu_backend_open(&backend, pool, rung_cpu_detect(), &err) == RUNG_OK)) {
        static const char *const models[] = {"clip_a", "clip_b", "clip_c", "bert_a", "bert_b"};
        for (size_t i = 0; i < sizeof models / sizeof *models; i++) golden(models[i]);
        refusals();
        bad_models();
    }
    rung_backend_close(&backend);
    rung_pool_close(&pool);
    return check_result();
}
