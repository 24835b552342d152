/* tests/test_pipeline.c - whole pictures through rung.h against diffusers (tests/golden/pipelines, made by
 * tools/goldens/pipelines.py): final latents within 1e-4 relative, pixels within 1 of 255. */
#define _POSIX_C_SOURCE 200809L
#include <stdlib.h>
#include <string.h>

#include "assets/json.h"
#include "assets/npy.h"
#include "diffusion/rung.h"
#include "tests/check.h"

#define GOLDEN RUNG_TEST_DIR "/golden/pipelines"

static const char *text_of(const cJSON *o, const char *key) {
    return cJSON_GetStringValue(cJSON_GetObjectItem(o, key));
}
static double number_of(const cJSON *o, const char *key) {
    const cJSON *v = cJSON_GetObjectItem(o, key);
    return cJSON_IsNumber(v) ? v->valuedouble : 0;
}

static rung_request request_of(const cJSON *c) {
    return (rung_request){.prompt = text_of(c, "prompt"),
                          .negative_prompt = text_of(c, "negative"),
                          .width = (size_t)number_of(c, "width"),
                          .height = (size_t)number_of(c, "height"),
                          .steps = (int)number_of(c, "steps"),
                          .cfg_scale = (float)number_of(c, "cfg"),
                          .seed = (uint64_t)number_of(c, "seed"),
                          .sampler = text_of(c, "sampler"),
                          .scheduler = text_of(c, "scheduler"),
                          .clip_skip = (int)number_of(c, "clip_skip"),
                          .literal = cJSON_IsTrue(cJSON_GetObjectItem(c, "literal"))};
}

static rung_npy golden(const char *what, int i) {
    char path[512];
    rung_npy a = {0};
    rung_err e = {0};
    snprintf(path, sizeof path, "%s/%s_%d.npy", GOLDEN, what, i);
    if (!CHECK(rung_npy_read(&a, path, &e) == RUNG_OK)) fprintf(stderr, "  %s\n", e.msg);
    return a;
}

/* Largest difference of two 8-bit pictures; where alpha is 0 the colour is nobody's business. */
static int pixel_distance(const rung_image *got, const float *want) {
    int worst = 0;
    for (size_t i = 0; i < got->width * got->height * got->channels; i++) {
        const size_t alpha = i - i % 4 + 3;
        if (got->channels == 4 && want[alpha] < 8 && i != alpha) continue; /* colour / almost nothing: no digits left */
        const int d = abs((int)got->pixels[i] - (int)want[i]);
        worst = d > worst ? d : worst;
    }
    return worst;
}

/* Embeddings of a case, from the golden folder; the numbers go with *file. */
static rung_rows rows_of(const cJSON *c, const char *key, rung_npy *file) {
    char path[512];
    rung_err e = {0};
    *file = (rung_npy){0};
    if (!text_of(c, key)) return (rung_rows){0};
    snprintf(path, sizeof path, "%s/%s", GOLDEN, text_of(c, key));
    CHECK(rung_npy_read(file, path, &e) == RUNG_OK);
    return (rung_rows){file->data, file->ndim == 3 ? file->shape[1] : 1, file->ndim ? file->shape[file->ndim - 1] : 0};
}

static void picture_matches(const rung_image *got, int i) {
    rung_npy latents = golden("latents", i), pixels = golden("pixels", i);
    const size_t n = got->latent_channels * got->latent_h * got->latent_w;
    if (CHECK(latents.count == n)) {
        const double d = rel_l2(got->latents, latents.data, n);
        if (!CHECK(d < 1e-4)) fprintf(stderr, "  case %d: latents differ by %.3g\n", i, d);
    }
    if (CHECK(pixels.count == got->width * got->height * got->channels)) {
        const int d = pixel_distance(got, pixels.data);
        if (!CHECK(d <= 1)) fprintf(stderr, "  case %d: pixels differ by %d\n", i, d);
    }
    rung_npy_free(&latents);
    rung_npy_free(&pixels);
}

static rung_engine *open_model(const char *name, const char *lora, float weight) {
    char path[512], lora_path[512];
    rung_engine *engine = NULL;
    rung_err e = {0};
    snprintf(path, sizeof path, "%s/%s", GOLDEN, name);
    snprintf(lora_path, sizeof lora_path, "%s/%s", GOLDEN, lora ? lora : "");
    const rung_options o = {
        .model = path, .threads = 2, .loras = &(rung_lora_option){lora_path, weight}, .n_loras = lora != NULL};
    if (!CHECK(rung_open(&engine, &o, &e) == RUNG_OK)) fprintf(stderr, "  %s\n", e.msg);
    return engine;
}

static void every_case_matches(const cJSON *cases) {
    rung_engine *engine = NULL;
    const char *open = "";
    int i = 0;
    const cJSON *c;
    cJSON_ArrayForEach(c, cases) {
        const char *lora = text_of(c, "lora");
        if (lora || strcmp(open, text_of(c, "model")) != 0) {
            rung_close(&engine);
            engine = open_model(text_of(c, "model"), lora, (float)number_of(c, "lora_weight"));
            open = lora ? "" : text_of(c, "model");
        }
        rung_err e = {0};
        rung_image image = {0};
        rung_npy embeds, pooled;
        rung_request r = request_of(c);
        r.embeds = rows_of(c, "embeds", &embeds);
        r.pooled = rows_of(c, "pooled", &pooled);
        if (engine && !CHECK(rung_generate(engine, &r, 1, &image, &e) == RUNG_OK))
            fprintf(stderr, "  case %d: %s\n", i, e.msg);
        if (image.pixels) picture_matches(&image, i);
        rung_image_free(&image);
        rung_npy_free(&embeds);
        rung_npy_free(&pooled);
        i++;
    }
    rung_close(&engine);
}

/* Pictures made together are those made alone, bit for bit, also with prompts of different lengths. */
static void batch_is_independent(const char *model) {
    rung_engine *engine = open_model(model, NULL, 0);
    if (!engine) return;
    const rung_request r[3] = {
        {.prompt = "red apple", .seed = 1, .width = 32, .height = 32, .steps = 3, .sampler = "euler_a"},
        {.prompt = "a cat, the blue house, a cat", .seed = 2, .negative_prompt = "low"},
        {.prompt = "", .seed = 9}};
    rung_image together[3], alone;
    rung_err e = {0};
    if (!CHECK(rung_generate(engine, r, 3, together, &e) == RUNG_OK)) {
        fprintf(stderr, "  %s\n", e.msg);
        rung_close(&engine);
        return;
    }
    for (int i = 0; i < 3; i++) {
        rung_request one = r[0];
        one.prompt = r[i].prompt;
        one.negative_prompt = r[i].negative_prompt;
        one.seed = r[i].seed;
        if (CHECK(rung_generate(engine, &one, 1, &alone, &e) == RUNG_OK)) {
            CHECK(memcmp(alone.latents, together[i].latents,
                         4 * alone.latent_channels * alone.latent_h * alone.latent_w) == 0);
            CHECK(memcmp(alone.pixels, together[i].pixels, alone.width * alone.height * alone.channels) == 0);
        }
        rung_image_free(&alone);
        rung_image_free(&together[i]);
    }
    rung_close(&engine);
}

static int stop_at_two(void *user, int step, int steps) {
    *(int *)user = step;
    return step == 2 && steps == 5;
}

static void bad_requests_are_refused(void) {
    rung_engine *engine = open_model("sd1", NULL, 0);
    if (!engine) return;
    const float row[3] = {0};
    int last = 0;
    const struct {
        rung_request r;
        rung_status want;
        const char *says;
    } bad[] = {
        {{.prompt = "x", .width = 33}, RUNG_EARG, "33x"},
        {{.prompt = "x", .width = 1000000000, .height = 16}, RUNG_EARG, "1000000000"},
        {{.prompt = "x", .width = 32, .height = 32, .sampler = "nonesuch"}, RUNG_EARG, "euler_a"},
        {{.prompt = "x", .width = 32, .height = 32, .scheduler = "nonesuch"}, RUNG_EARG, "karras"},
        {{.prompt = "x", .width = 32, .height = 32, .clip_skip = 99}, RUNG_EARG, "99"},
        {{.prompt = "x", .width = 32, .height = 32, .cfg_scale = NAN}, RUNG_EARG, "cfg"},
        {{.prompt = "x", .width = 32, .height = 32, .embeds = {row, 1, 3}}, RUNG_ESHAPE, "[1, 3]"},
        {{.prompt = "x",
          .width = 32,
          .height = 32,
          .steps = 5,
          .sampler = "ddim",
          .progress = stop_at_two,
          .progress_user = &last},
         RUNG_ECANCELLED,
         "step 2 of 5"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        rung_err e = {0};
        rung_image image;
        if (!CHECK(rung_generate(engine, &bad[i].r, 1, &image, &e) == bad[i].want && strstr(e.msg, bad[i].says)))
            fprintf(stderr, "  request %zu: %d '%s'\n", i, e.code, e.msg);
        CHECK(image.pixels == NULL);
    }
    CHECK(last == 2);
    rung_close(&engine);
}

/* `last` gives the denoiser's memory back, and the same pictures: one, a batch in lanes, and steps of one's own. */
static void nothing_follows_the_last(size_t count, const char *sampler) {
    rung_engine *engine = open_model("sd1", NULL, 0);
    rung_err e = {0};
    rung_image first[2], last[2], none;
    rung_request r[2] = {{.prompt = "x", .width = 32, .height = 32, .steps = 2, .sampler = sampler}, {.seed = 7}};
    if (!engine) return;
    CHECK(rung_generate(engine, r, count, first, &e) == RUNG_OK);
    r->last = true;
    r->cfg_scale = -1;
    CHECK(rung_generate(engine, r, count, last, NULL) == RUNG_EARG); /* it draws nothing: not the last yet */
    r->cfg_scale = 0;
    CHECK(rung_generate(engine, r, count, last, &e) == RUNG_OK);
    for (size_t i = 0; i < count; i++) {
        if (CHECK(first[i].pixels && last[i].pixels))
            CHECK(memcmp(first[i].pixels, last[i].pixels, first[i].width * first[i].height * first[i].channels) == 0);
        rung_image_free(&first[i]);
        rung_image_free(&last[i]);
    }
    CHECK(rung_generate(engine, r, 1, &none, &e) == RUNG_EARG && strstr(e.msg, "last") && !none.pixels);
    CHECK(rung_request_bytes(engine, r) == 0);
    rung_close(&engine);
}

static void a_wrong_lora_is_refused(void) {
    rung_engine *engine = NULL;
    rung_err e = {0};
    const rung_options o = {
        .model = GOLDEN "/icons", .loras = &(rung_lora_option){GOLDEN "/lora.safetensors", 1}, .n_loras = 1};
    CHECK(rung_open(&engine, &o, &e) == RUNG_OK); /* nothing in it concerns a transformer */
    rung_close(&engine);
    const rung_options no_lora = {
        .model = GOLDEN "/sd1", .loras = &(rung_lora_option){GOLDEN "/cases.json", 1}, .n_loras = 1};
    CHECK(rung_open(&engine, &no_lora, &e) == RUNG_EFORMAT && engine == NULL && strstr(e.msg, "cases.json"));
}

int main(void) {
    rung_err e = {0};
    cJSON *list = NULL;
    if (!CHECK(rung_json_load(&list, GOLDEN "/cases.json", &e) == RUNG_OK)) fprintf(stderr, "  %s\n", e.msg);
    every_case_matches(cJSON_GetObjectItem(list, "cases"));
    cJSON_Delete(list);
    batch_is_independent("sd1");
    batch_is_independent("icons");
    bad_requests_are_refused();
    nothing_follows_the_last(1, NULL);
    nothing_follows_the_last(2, NULL);
    nothing_follows_the_last(2, "dpm_adaptive");
    a_wrong_lora_is_refused();
    return check_result();
}
