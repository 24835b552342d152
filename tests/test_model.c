/* tests/test_model.c - diffusers directories made here, and single files in ldm layout against what diffusers converts
 * them to (tests/golden/assets/sd1.json, sd2.json: every name, shape and the CRC-32 of the bytes). */
#define _POSIX_C_SOURCE 200809L /* mkdir */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "assets/model.h"
#include "tests/check.h"
#include "tests/st_file.h"

#define GOLDEN RUNG_TEST_DIR "/golden/assets/"

/* ---- ldm single files ---- */

static uint32_t crc32_of(const unsigned char *p, size_t n) {
    uint32_t c = 0xffffffff;
    for (size_t i = 0; i < n; i++) {
        c ^= p[i];
        for (int k = 0; k < 8; k++) c = c >> 1 ^ (c & 1 ? 0xedb88320 : 0);
    }
    return ~c;
}

/* shape with trailing ones dropped: a 1x1 convolution may stand for a matrix */
static bool same_shape(const rung_tensor *t, const cJSON *shape) {
    int i = 0;
    for (const cJSON *v = shape->child; v; v = v->next, i++)
        if (i >= t->ndim || (double)t->shape[i] != v->valuedouble) return false;
    for (; i < t->ndim; i++)
        if (t->shape[i] != 1) return false;
    return true;
}

static void part_matches(rung_model *m, const cJSON *want) {
    rung_err e = {0};
    rung_weights *w;
    if (!CHECK(rung_model_weights(m, want->string, &w, &e) == RUNG_OK)) {
        fprintf(stderr, "  %s\n", e.msg);
        return;
    }
    for (const cJSON *v = want->child; v; v = v->next) {
        const rung_tensor *t = rung_weights_find(w, v->string);
        const bool fine = t && same_shape(t, v->child) &&
                          crc32_of(t->data, 2 * rung_tensor_count(t)) == (uint32_t)v->child->next->valuedouble;
        if (!CHECK(fine)) fprintf(stderr, "  %s: %s\n", want->string, v->string);
    }
    const rung_status st = rung_weights_check_used(w, &e);
    if (!CHECK(st == RUNG_OK)) fprintf(stderr, "  %s\n", e.msg);
    rung_weights_close(&w);
}

static void config_matches(rung_model *m, const cJSON *want) {
    rung_err e = {0};
    rung_config c;
    if (!CHECK(rung_model_config(m, want->string, &c, &e) == RUNG_OK)) return;
    for (const cJSON *v = want->child; v; v = v->next) {
        const cJSON *got = cJSON_GetObjectItemCaseSensitive(c.root, v->string);
        if (!CHECK(cJSON_Compare(got, v, true))) {
            char *text = cJSON_Print(got);
            fprintf(stderr, "  %s \"%s\" is %s\n", want->string, v->string, text ? text : "missing");
            cJSON_free(text);
        }
    }
}

static rung_model *open_golden(const char *name) {
    char path[400];
    rung_err e = {0};
    rung_model *m;
    snprintf(path, sizeof path, GOLDEN "%s.safetensors", name);
    if (!CHECK(rung_model_open(&m, path, &e) == RUNG_OK)) fprintf(stderr, "  %s\n", e.msg);
    return m;
}

static void single_file(const char *name) {
    rung_err e = {0};
    cJSON *golden;
    char path[400];
    snprintf(path, sizeof path, GOLDEN "%s.json", name);
    rung_model *m = open_golden(name);
    if (!m || !CHECK(rung_json_load(&golden, path, &e) == RUNG_OK)) return;
    int parts = 0;
    for (const cJSON *p = cJSON_GetObjectItemCaseSensitive(golden, "parts")->child; p; p = p->next, parts++)
        part_matches(m, p);
    for (const cJSON *c = cJSON_GetObjectItemCaseSensitive(golden, "configs")->child; c; c = c->next)
        config_matches(m, c);
    CHECK(parts == 3 && rung_model_is_ldm(m) && strcmp(rung_model_pipeline(m), "StableDiffusionPipeline") == 0);
    cJSON_Delete(golden);
    rung_model_close(&m);
}

/* What no shape tells: from DESIGN (heads, scheduler) and diffusers' repositories of SD1.5 and SD2.1. */
static void built_in_configs(void) {
    for (int sd2 = 0; sd2 < 2; sd2++) {
        rung_model *m = open_golden(sd2 ? "sd2" : "sd1");
        rung_err e = {0};
        rung_config c;
        long heads[4];
        size_t n;
        if (!m) return;
        const char *name = NULL;
        CHECK(rung_model_has(m, "scheduler", &name) && strcmp(name, sd2 ? "DDIMScheduler" : "PNDMScheduler") == 0);
        CHECK(rung_model_config(m, "scheduler", &c, &e) == RUNG_OK);
        CHECK(strcmp(cfg_string(&c, "_class_name", ""), name) == 0 && cfg_int(&c, "steps_offset", 0, 0, 9) == 1);
        CHECK(cfg_real(&c, "beta_start", 0, 0, 1) == 0.00085 && cfg_real(&c, "beta_end", 0, 0, 1) == 0.012);
        CHECK(strcmp(cfg_string(&c, "prediction_type", "epsilon"), sd2 ? "v_prediction" : "epsilon") == 0);
        CHECK(!cfg_bool(&c, "set_alpha_to_one", true) && cfg_bool(&c, "skip_prk_steps", false));
        CHECK(rung_model_config(m, "unet", &c, &e) == RUNG_OK);
        cfg_ints(&c, "attention_head_dim", heads, 4, &n, 1, 64);
        CHECK(sd2 ? n == 2 && heads[0] == 1 : n == 1 && heads[0] == 8);
        CHECK(rung_model_config(m, "vae", &c, &e) == RUNG_OK && cfg_real(&c, "scaling_factor", 0, 0, 1) == 0.18215);
        CHECK(cfg_int(&c, "norm_num_groups", 0, 0, 99) == 32 && cfg_bool(&c, "use_post_quant_conv", false));
        CHECK(rung_model_config(m, "tokenizer", &c, &e) == RUNG_OK);
        CHECK(strcmp(cfg_string(&c, "pad_token", ""), sd2 ? "!" : "<|endoftext|>") == 0);
        CHECK(!rung_model_has(m, "transformer", NULL) && !rung_model_has(m, "safety_checker", NULL));
        CHECK(rung_model_config(m, "transformer", &c, &e) == RUNG_EFORMAT && strstr(e.msg, "has no transformer"));
        rung_model_close(&m);
    }
}

static void built_in_vocabulary(void) {
    rung_model *m = open_golden("sd1");
    rung_err e = {0};
    char *text;
    size_t bytes, lines = 0;
    if (!m) return;
    CHECK(rung_model_text(m, "tokenizer", "merges.txt", &text, &bytes, &e) == RUNG_OK && text);
    for (size_t i = 0; text && i < bytes; i++) lines += text[i] == '\n';
    CHECK(lines == 1 + 48894 && strncmp(text, "#version: 0.2\ni n\nt h\n", 22) == 0 && text[bytes] == 0);
    CHECK(text && strcmp(text + bytes - 13, "\njeky ll</w>\n") == 0);
    free(text);
    CHECK(rung_model_text(m, "tokenizer", "vocab.json", &text, &bytes, &e) == RUNG_OK && !text);
    CHECK(rung_model_text(m, "tokenizer", "tokenizer_config.json", &text, &bytes, &e) == RUNG_OK && text);
    CHECK(text && strlen(text) == bytes && strstr(text, "\"model_max_length\":\t77"));
    free(text);
    rung_model_close(&m);
}

/* ---- diffusers directories ---- */

#define DIR_NAME "test_model.dir"
static const char INDEX[] =
    "{\"_class_name\": \"StableDiffusionPipeline\", \"unet\": [\"diffusers\", \"UNet2DConditionModel\"],"
    " \"vae\": [\"diffusers\", \"AutoencoderKL\"], \"text_encoder\": [\"transformers\", \"CLIPTextModel\"],"
    " \"safety_checker\": [null, null], \"transformer\": [null, null], \"tokenizer\": \"odd\","
    " \"scheduler\": [\"diffusers\", \"PNDMScheduler\"], \"requires_safety_checker\": true}";

#define T(name, at) "\"" name "\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[" at "]}"

static bool put(const char *path, const char *text) {
    FILE *f = fopen(path, "wb");
    if (!f) return false;
    fputs(text, f);
    return fclose(f) == 0;
}

static void make_directory(void) {
    static const char *const folders[] = {"", "/unet", "/vae", "/text_encoder", "/scheduler", "/tokenizer"};
    for (int i = 0; i < 6; i++) {
        char path[100];
        snprintf(path, sizeof path, DIR_NAME "%s", folders[i]);
        mkdir(path, 0777);
    }
    CHECK(put(DIR_NAME "/model_index.json", INDEX));
    CHECK(put(DIR_NAME "/scheduler/scheduler_config.json", "{\"lambda_min_clipped\": -Infinity}"));
    CHECK(put(DIR_NAME "/unet/config.json", "[]"));
    CHECK(put(DIR_NAME "/tokenizer/vocab.json", "{}"));
    CHECK(st_write(DIR_NAME "/text_encoder/model.fp16.safetensors",
                   "{" T("text_model.encoder.a", "0,1") "," T("bert.b.LayerNorm.gamma", "1,2") "," T(
                       "text_projection.weight", "2,3") "," T("pooler.dense.weight", "3,4") "," T("c", "4,5") "}",
                   NULL, 5));
    CHECK(st_write(DIR_NAME "/vae/diffusion_pytorch_model.safetensors",
                   "{" T("decoder.mid_block.attentions.0.query.weight",
                         "0,1") "," T("decoder.mid_block.attentions.0.proj_attn.bias",
                                      "1,2") "," T("encoder.x", "2,3") "," T("quant_conv.weight", "3,4") "}",
                   NULL, 4));
}

static void remove_directory(void) {
    static const char *const made[] = {"/model_index.json",
                                       "/scheduler/scheduler_config.json",
                                       "/unet/config.json",
                                       "/tokenizer/vocab.json",
                                       "/text_encoder/model.fp16.safetensors",
                                       "/vae/diffusion_pytorch_model.safetensors",
                                       "/unet/model.bin",
                                       "/unet/diffusion_pytorch_model.bin",
                                       "/unet",
                                       "/vae",
                                       "/text_encoder",
                                       "/scheduler",
                                       "/tokenizer",
                                       ""};
    for (size_t i = 0; i < sizeof made / sizeof *made; i++) {
        char path[100];
        snprintf(path, sizeof path, DIR_NAME "%s", made[i]);
        remove(path);
    }
}

static bool weights_fail(rung_model *m, const char *part, const char *reason) {
    rung_err e = {0};
    rung_weights *w;
    const bool fine = rung_model_weights(m, part, &w, &e) != RUNG_OK && !w && strstr(e.msg, reason);
    if (!fine) fprintf(stderr, "  wanted \"%s\", got \"%s\"\n", reason, e.msg);
    rung_weights_close(&w);
    return fine;
}

static void directory_weights(rung_model *m) {
    rung_err e = {0};
    rung_weights *w;
    if (CHECK(rung_model_weights(m, "text_encoder", &w, &e) == RUNG_OK)) {
        CHECK(strstr(rung_weights_path(w), "text_encoder/model.fp16.safetensors"));
        CHECK(rung_weights_find(w, "encoder.a") && rung_weights_find(w, "b.LayerNorm.weight"));
        CHECK(rung_weights_check_used(w, &e) == RUNG_EFORMAT && strstr(e.msg, "1 tensors") && strstr(e.msg, ": c"));
    }
    rung_weights_close(&w);
    e = (rung_err){0};
    if (CHECK(rung_model_weights(m, "vae", &w, &e) == RUNG_OK)) {
        CHECK(rung_weights_find(w, "decoder.mid_block.attentions.0.to_q.weight"));
        CHECK(rung_weights_find(w, "decoder.mid_block.attentions.0.to_out.0.bias"));
        CHECK(rung_weights_check_used(w, &e) == RUNG_OK && rung_weights_has(w, "encoder.x"));
    }
    rung_weights_close(&w);
    CHECK(weights_fail(m, "unet", "has no weights: wanted diffusion_pytorch_model.safetensors"));
    CHECK(put(DIR_NAME "/unet/diffusion_pytorch_model.bin", "") && weights_fail(m, "unet", "pickle"));
    CHECK(weights_fail(m, "transformer", "has no transformer") && weights_fail(m, "nose", "\"nose\""));
}

static void directory(void) {
    make_directory();
    rung_err e = {0};
    rung_model *m;
    if (!CHECK(rung_model_open(&m, DIR_NAME, &e) == RUNG_OK)) return;
    const char *name = NULL;
    CHECK(!rung_model_is_ldm(m) && strcmp(rung_model_path(m), DIR_NAME) == 0);
    CHECK(strcmp(rung_model_pipeline(m), "StableDiffusionPipeline") == 0);
    CHECK(rung_model_has(m, "unet", &name) && strcmp(name, "UNet2DConditionModel") == 0 &&
          rung_model_has(m, "vae", NULL));
    CHECK(!rung_model_has(m, "transformer", &name) && !rung_model_has(m, "tokenizer", NULL) &&
          !rung_model_has(m, "requires_safety_checker", NULL) && !rung_model_has(m, "none", NULL));
    rung_config c, again;
    CHECK(rung_model_config(m, "scheduler", &c, &e) == RUNG_OK && strstr(c.where, "scheduler/scheduler_config.json"));
    CHECK(cfg_real(&c, "lambda_min_clipped", 0, -INFINITY, 0) == -INFINITY);
    CHECK(rung_model_config(m, "scheduler", &again, &e) == RUNG_OK && again.root == c.root);
    CHECK(rung_model_config(m, "unet", &c, &e) == RUNG_EFORMAT && strstr(e.msg, "no JSON object"));
    e = (rung_err){0};
    CHECK(rung_model_config(m, "vae", &c, &e) == RUNG_EIO && strstr(e.msg, "vae/config.json"));
    directory_weights(m);
    char *text;
    size_t bytes;
    e = (rung_err){0};
    CHECK(rung_model_text(m, "tokenizer", "vocab.json", &text, &bytes, &e) == RUNG_OK && text && bytes == 2);
    free(text);
    CHECK(rung_model_text(m, "tokenizer", "merges.txt", &text, &bytes, &e) == RUNG_OK && !text);
    rung_model_close(&m);
    rung_model_close(&m);
    remove_directory();
}

static bool open_fails(const char *path, const char *reason) {
    rung_err e = {0};
    rung_model *m;
    const bool fine = rung_model_open(&m, path, &e) != RUNG_OK && !m && strstr(e.msg, reason);
    if (!fine) fprintf(stderr, "  wanted \"%s\", got \"%s\"\n", reason, e.msg);
    rung_model_close(&m);
    return fine;
}

static void refusals(void) {
    CHECK(open_fails("no/such/model", "No such file"));
    CHECK(open_fails(RUNG_TEST_DIR, "model_index.json"));
    CHECK(open_fails(RUNG_TEST_DIR "/test_model.c", "wanted a .safetensors file"));
    CHECK(put("test_model.ckpt", "") && open_fails("test_model.ckpt", "pickle"));
    remove("test_model.ckpt");
    mkdir(DIR_NAME, 0777);
    CHECK(put(DIR_NAME "/model_index.json", "{}") && open_fails(DIR_NAME, "_class_name"));
    CHECK(put(DIR_NAME "/model_index.json", "{\"_class_name\": 1}") && open_fails(DIR_NAME, "_class_name"));
    CHECK(put(DIR_NAME "/model_index.json", "[") && open_fails(DIR_NAME, "not valid JSON"));
    remove_directory();
    const char *file = "test_model.safetensors";
    CHECK(st_write(file, "{" T("x", "0,1") "}", NULL, 1) && open_fails(file, "not a single file of SD1.x or SD2.x"));
    CHECK(st_write(file, "{" T("conditioner.embedders.0.x", "0,1") "}", NULL, 1) && open_fails(file, "SDXL"));
    CHECK(st_write(file, "{" T("model.diffusion_model.input_blocks.0.0.weight", "0,1") "}", NULL, 1) &&
          open_fails(file, "U-Net"));
    remove(file);
}

int main(void) {
    single_file("sd1");
    single_file("sd2");
    built_in_configs();
    built_in_vocabulary();
    directory();
    refusals();
    return check_result();
}
