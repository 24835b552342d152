/* UNet2DConditionModel against diffusers (golden networks), and configs and files that must be refused. */
#include <pthread.h>
#include <sys/stat.h>

#include "tests/denoiser_golden.h"
#include "unet/unet_config.h"

static const char *const networks[] = {"sd1", "sd2", "one_level", "lists", "scale_shift", "no_depth", "sdxl"};

static const char base[] = "{\"block_out_channels\": [32, 64], \"norm_num_groups\": 8, \"attention_head_dim\": 4,"
                           "\"down_block_types\": [\"CrossAttnDownBlock2D\", \"DownBlock2D\"],"
                           "\"up_block_types\": [\"UpBlock2D\", \"CrossAttnUpBlock2D\"]}";

static const bad_config bad[] = {
    {"block_out_channels", "[]", NULL},
    {"block_out_channels", "[32]", "block_types"},
    {"block_out_channels", "[32, 64, 64]", "block_types"},
    {"block_out_channels", "[32, 0]", NULL},
    {"block_out_channels", "[32, -64]", NULL},
    {"block_out_channels", "[32, 2147483648]", NULL},
    {"block_out_channels", "[32, 9223372036854775808]", NULL},
    {"block_out_channels", "[32, 60]", NULL}, /* not a multiple of the groups */
    {"block_out_channels", "[32, 64.5]", NULL},
    {"block_out_channels", "\"wide\"", NULL},
    {"block_out_channels", "[[32], [64]]", NULL},
    {"block_out_channels", "[8,8,8,8,8,8,8,8,8,8,8,8,8,8,8,8,8]", NULL},
    {"norm_num_groups", "0", NULL},
    {"norm_num_groups", "-8", NULL},
    {"norm_num_groups", "2147483648", NULL},
    {"norm_num_groups", "null", NULL},
    {"norm_num_groups", "7", NULL},
    {"norm_eps", "-1", NULL},
    {"norm_eps", "\"small\"", NULL},
    {"attention_head_dim", "0", NULL},
    {"attention_head_dim", "-1", NULL},
    {"attention_head_dim", "2147483648", NULL},
    {"attention_head_dim", "5", NULL}, /* 32 channels do not split in five */
    {"attention_head_dim", "64", NULL},
    {"attention_head_dim", "[4, 4, 4]", NULL},
    {"attention_head_dim", "[4]", NULL},
    {"num_attention_heads", "5", NULL},
    {"num_attention_heads", "[]", NULL},
    {"in_channels", "0", NULL},
    {"in_channels", "2147483648", NULL},
    {"out_channels", "-4", NULL},
    {"out_channels", "true", NULL},
    {"layers_per_block", "0", NULL},
    {"layers_per_block", "[1, 0]", NULL},
    {"layers_per_block", "[1, 1, 1]", NULL},
    {"layers_per_block", "1000000", NULL},
    {"transformer_layers_per_block", "-1", NULL},
    {"transformer_layers_per_block", "2147483648", NULL},
    {"transformer_layers_per_block", "[[1], [1]]", NULL},
    {"reverse_transformer_layers_per_block", "[1, 1]", NULL},
    {"cross_attention_dim", "0", NULL},
    {"cross_attention_dim", "[768, 1024]", NULL},
    {"cross_attention_dim", "2147483648", NULL},
    {"encoder_hid_dim", "0", NULL},
    {"encoder_hid_dim_type", "\"image_proj\"", NULL},
    {"encoder_hid_dim_type", "\"text_proj\"", "encoder_hid_dim"},
    {"down_block_types", "[\"CrossAttnDownBlock2D\"]", NULL},
    {"down_block_types", "[\"CrossAttnDownBlock2D\", \"AttnDownBlock2D\"]", "AttnDownBlock2D"},
    {"down_block_types", "[\"CrossAttnDownBlock2D\", 7]", NULL},
    {"down_block_types", "\"DownBlock2D\"", NULL},
    {"down_block_types", NULL, NULL}, /* the default is for four levels */
    {"up_block_types", "[\"UpBlock2D\", \"SimpleCrossAttnUpBlock2D\"]", "SimpleCrossAttnUpBlock2D"},
    {"up_block_types", "[]", NULL},
    {"mid_block_type", "\"UNetMidBlock2DSimpleCrossAttn\"", NULL},
    {"mid_block_scale_factor", "0", NULL},
    {"only_cross_attention", "[true]", NULL},
    {"only_cross_attention", "[true, 1]", NULL},
    {"only_cross_attention", "\"yes\"", NULL},
    {"downsample_padding", "-1", NULL},
    {"downsample_padding", "2147483648", NULL},
    {"conv_in_kernel", "0", NULL},
    {"conv_in_kernel", "2", NULL},
    {"conv_out_kernel", "4", NULL},
    {"conv_out_kernel", "2147483649", NULL},
    {"act_fn", "\"mish\"", NULL},
    {"act_fn", "\"gelu\"", NULL},
    {"freq_shift", "16", NULL}, /* half of 32 channels: a division by zero */
    {"freq_shift", "\"none\"", NULL},
    {"time_embedding_type", "\"fourier\"", NULL},
    {"time_embedding_dim", "0", NULL},
    {"time_embedding_act_fn", "\"mish\"", NULL},
    {"timestep_post_act", "7", NULL},
    {"time_cond_proj_dim", "256", NULL},
    {"resnet_time_scale_shift", "\"ada_group\"", NULL},
    {"class_embed_type", "\"timestep\"", NULL},
    {"num_class_embeds", "1000", NULL},
    {"class_embeddings_concat", "true", NULL},
    {"addition_embed_type", "\"text\"", NULL},
    {"addition_embed_type", "\"text_time\"", "addition_time_embed_dim"},
    {"dual_cross_attention", "true", NULL},
    {"attention_type", "\"gated\"", NULL},
    {"sample_size", "0", NULL},
    {"sample_size", "[64, 64, 64]", NULL},
    {"flip_sin_to_cos", "1", NULL},
    {"center_input_sample", "\"no\"", NULL},
    {"a_key_of_the_future", "3", NULL},
};

static rung_status read_unet(void *out, rung_config *c) { return unet_config_read(out, c); }

static void test_configs(void) {
    rung_err err = {0};
    rung_config c;
    unet_config u;
    cJSON *root = parse_config(base, &c, &err);
    CHECK(unet_config_read(&u, &c) == RUNG_OK); /* else every refusal below would be for nothing */
    cJSON_Delete(root);
    root = parse_config("{}", &c, &err); /* the class's own defaults: SD1 with 1280-wide text */
    CHECK(unet_config_read(&u, &c) == RUNG_OK);
    CHECK(u.levels == 4 && u.level[3].channels == 1280 && u.level[0].layers == 2 && u.level[0].heads == 8);
    CHECK(u.level[2].down_attn && !u.level[3].down_attn && !u.level[3].up_attn && u.level[0].up_attn);
    CHECK(u.mid == UNET_MID_CROSS && u.context_dim == 1280 && u.time_dim == 1280 && u.groups == 32);
    cJSON_Delete(root);
    root = parse_config("{\"_note\": 1, \"newer\": null, \"newest\": false, \"mid_block_type\": null}", &c, &err);
    CHECK(unet_config_read(&u, &c) == RUNG_OK && u.mid == UNET_MID_NONE);
    cJSON_Delete(root);
    root = parse_config("{\"addition_embed_type\": \"text_time\", \"addition_time_embed_dim\": 256,"
                        "\"projection_class_embeddings_input_dim\": 1536}",
                        &c, &err);
    CHECK(unet_config_read(&u, &c) == RUNG_EFORMAT && strstr(err.msg, "projection_class_embeddings_input_dim"));
    cJSON_Delete(root);
    _Static_assert(sizeof(unet_config) <= 4096, "check_bad_configs holds one");
    check_bad_configs(base, bad, sizeof bad / sizeof *bad, read_unet);
}

/* ---- files that do not fit their config ---- */

static void write_file(const char *path, const void *data, size_t n) {
    FILE *f = fopen(path, "wb");
    if (!CHECK(f)) return;
    CHECK(fwrite(data, 1, n, f) == n);
    fclose(f);
}

/* A copy of a golden network under ./bad_unet whose config has `key` set to `value`. */
static void write_changed(const char *name, const char *key, const char *value) {
    char path[400], *text;
    size_t n;
    mkdir("bad_unet", 0777);
    mkdir("bad_unet/unet", 0777);
    snprintf(path, sizeof path, GOLDEN "%s/model_index.json", name);
    CHECK(rung_file_read(path, 1 << 20, &text, &n, NULL) == RUNG_OK);
    write_file("bad_unet/model_index.json", text, n);
    free(text);
    snprintf(path, sizeof path, GOLDEN "%s/unet/diffusion_pytorch_model.safetensors", name);
    CHECK(rung_file_read(path, 1 << 24, &text, &n, NULL) == RUNG_OK);
    write_file("bad_unet/unet/diffusion_pytorch_model.safetensors", text, n);
    free(text);
    cJSON *root = NULL;
    snprintf(path, sizeof path, GOLDEN "%s/unet/config.json", name);
    CHECK(rung_json_load(&root, path, NULL) == RUNG_OK);
    cJSON_DeleteItemFromObjectCaseSensitive(root, key);
    cJSON_AddItemToObject(root, key, cJSON_Parse(value));
    text = cJSON_PrintUnformatted(root);
    write_file("bad_unet/unet/config.json", text, strlen(text));
    cJSON_free(text);
    cJSON_Delete(root);
}

static const struct {
    const char *key, *value, *message;
    rung_status st;
} misfits[] = {
    {"layers_per_block", "2", "missing", RUNG_EFORMAT},    /* more layers than the file has */
    {"mid_block_type", "null", "mid_block", RUNG_EFORMAT}, /* surplus tensors */
    {"cross_attention_dim", "13", "attn", RUNG_ESHAPE},
    {"in_channels", "9", "conv_in", RUNG_ESHAPE},
    {"conv_in_kernel", "5", "conv_in", RUNG_ESHAPE},
    {"time_embedding_dim", "33", "time_embedding", RUNG_ESHAPE},
    {"resnet_time_scale_shift", "\"scale_shift\"", "time_emb_proj", RUNG_ESHAPE},
    {"only_cross_attention", "true", "attn1", RUNG_ESHAPE},
    {"transformer_layers_per_block", "64", "transformer_blocks.1", RUNG_EFORMAT},
    {"class_embed_type", "\"projection\"", "class_embed_type", RUNG_EFORMAT},
};

static void test_misfits(rung_backend *be) {
    for (size_t i = 0; i < sizeof misfits / sizeof *misfits; i++) {
        rung_err err = {0};
        rung_model *m = NULL;
        rung_denoiser *d = NULL;
        write_changed("sd2", misfits[i].key, misfits[i].value);
        CHECK(rung_model_open(&m, "bad_unet", &err) == RUNG_OK);
        if (!CHECK(rung_denoiser_open(&d, m, be, RUNG_STORE_F32, &err) == misfits[i].st) ||
            !CHECK(d == NULL && strstr(err.msg, misfits[i].message)))
            fprintf(stderr, "  %s = %s: \"%s\"\n", misfits[i].key, misfits[i].value, err.msg);
        rung_denoiser_close(&d);
        rung_model_close(&m);
    }
    static const char *const made[] = {"bad_unet/unet/config.json", "bad_unet/unet/diffusion_pytorch_model.safetensors",
                                       "bad_unet/unet", "bad_unet/model_index.json", "bad_unet"};
    for (size_t i = 0; i < sizeof made / sizeof *made; i++) CHECK(remove(made[i]) == 0);
}

/* ---- sizes ---- */

static void test_sizes(rung_backend *be) {
    rung_err err = {0};
    rung_model *m = NULL;
    rung_denoiser *d = NULL;
    rung_denoiser_run *run = NULL;
    static const float ctx[12];
    CHECK(rung_model_open(&m, GOLDEN "sd2", &err) == RUNG_OK);
    if (CHECK(rung_denoiser_open(&d, m, be, RUNG_STORE_F32, &err) == RUNG_OK)) {
        const rung_denoiser_cond good = {.batch = 1, .h = 8, .w = 8, .n_ctx = 1, .ctx = ctx};
        rung_denoiser_cond c[] = {good, good, good, good, good, good, good};
        c[0].h = 0;
        c[1].w = (size_t)1 << 63;
        c[2].h = c[2].w = (size_t)1 << 32;
        c[3].batch = 0;
        c[4].batch = SIZE_MAX / 2;
        c[5].n_ctx = 0;
        c[6].ctx = NULL;
        for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
            rung_err e = {0};
            if (!CHECK(rung_denoiser_begin(d, &run, &c[i], &e) == RUNG_ESHAPE && !run && e.msg[0]))
                fprintf(stderr, "  condition %zu: %s\n", i, e.msg);
        }
        rung_denoiser_cond huge = good; /* passes the limits, asks for petabytes */
        huge.h = huge.w = 1 << 14;
        huge.batch = 1 << 15;
        rung_err e = {0};
        CHECK(rung_denoiser_begin(d, &run, &huge, &e) == RUNG_ENOMEM && !run);
    }
    rung_denoiser_close(&d);
    rung_model_close(&m);

    CHECK(rung_model_open(&m, GOLDEN "sdxl", &err) == RUNG_OK);
    if (CHECK(rung_denoiser_open(&d, m, be, RUNG_STORE_F32, &err) == RUNG_OK)) {
        rung_denoiser_cond c = {.batch = 1, .h = 8, .w = 8, .n_ctx = 1, .ctx = ctx, .image_h = 64, .image_w = 64};
        CHECK(rung_denoiser_describe(d)->pooled_dim == 10);
        CHECK(rung_denoiser_begin(d, &run, &c, &err) == RUNG_EARG && !run && strstr(err.msg, "pooled"));
        c.pooled = ctx;
        c.image_w = 0;
        err = (rung_err){0};
        CHECK(rung_denoiser_begin(d, &run, &c, &err) == RUNG_EARG && !run && strstr(err.msg, "size"));
    }
    rung_denoiser_close(&d);
    rung_model_close(&m);

    size_t hs[UNET_LEVELS], ws[UNET_LEVELS];
    unet_config u = {.levels = 2, .down_padding = 0};
    CHECK(unet_config_sizes(&u, 1, 8, hs, ws, NULL) == RUNG_ESHAPE); /* diffusers: kernel larger than the input */
    CHECK(unet_config_sizes(&u, 2, 9, hs, ws, NULL) == RUNG_OK && hs[1] == 1 && ws[1] == 4);
    u.down_padding = 2;
    CHECK(unet_config_sizes(&u, 8, 8, hs, ws, NULL) == RUNG_ESHAPE); /* 5 doubled is not 8: torch.cat fails */
    CHECK(unet_config_sizes(&u, 7, 8, hs, ws, NULL) == RUNG_OK && hs[1] == 5 && ws[1] == 5);
}

/* ---- two runs of one network at the same time ---- */

enum { STEPS = 5, CELLS = 8 * 8 * 4 };

struct worker {
    rung_denoiser_run *run;
    float x[CELLS], out[CELLS], t;
    rung_status st;
};

static void *steps(void *arg) {
    struct worker *w = arg;
    for (int i = 0; i < STEPS && !w->st; i++) w->st = rung_denoiser_step(w->run, w->out, w->x, &w->t, NULL);
    return NULL;
}

static void test_threads(rung_pool *pool) {
    struct worker w[2] = {{.t = 10}, {.t = 900}};
    float alone[2][CELLS], ctx[12];
    rung_err err = {0};
    rung_backend *be = NULL;
    rung_model *m = NULL;
    rung_denoiser *d = NULL;
    uint64_t seed = 1;
    for (size_t i = 0; i < 12; i++) ctx[i] = rnd(&seed);
    CHECK(rung_cpu_backend_open(&be, pool, rung_cpu_detect(), &err) == RUNG_OK);
    CHECK(rung_model_open(&m, GOLDEN "sd2", &err) == RUNG_OK);
    CHECK(!err.code && rung_denoiser_open(&d, m, be, RUNG_STORE_F16, &err) == RUNG_OK);
    rung_model_close(&m); /* the weights stay mapped */
    for (int i = 0; d && i < 2; i++) {
        const rung_denoiser_cond c = {.batch = 1, .h = 8, .w = 8, .n_ctx = 1, .ctx = ctx};
        for (size_t k = 0; k < CELLS; k++) w[i].x[k] = rnd(&seed);
        if (!CHECK(rung_denoiser_begin(d, &w[i].run, &c, &err) == RUNG_OK)) continue;
        steps(&w[i]);
        memcpy(alone[i], w[i].out, sizeof alone[i]);
    }
    if (w[0].run && w[1].run) {
        pthread_t other;
        CHECK(pthread_create(&other, NULL, steps, &w[1]) == 0);
        steps(&w[0]);
        CHECK(pthread_join(other, NULL) == 0);
        for (int i = 0; i < 2; i++) CHECK(!w[i].st && memcmp(alone[i], w[i].out, sizeof alone[i]) == 0);
        CHECK(memcmp(alone[0], alone[1], sizeof alone[0]) != 0);
    }
    for (int i = 0; i < 2; i++) rung_denoiser_end(&w[i].run);
    rung_denoiser_close(&d);
    rung_backend_close(&be);
}

/* The sanitizers would end the program where malloc is meant to say no. */
const char *__asan_default_options(void), *__tsan_default_options(void);
const char *__asan_default_options(void) { return "allocator_may_return_null=1"; }
const char *__tsan_default_options(void) { return "allocator_may_return_null=1"; }

int main(void) {
    rung_pool *pool = NULL;
    rung_backend *be = NULL;
    test_configs();
    run_networks(networks, sizeof networks / sizeof *networks);
    if (CHECK(rung_pool_open(&pool, 2, NULL) == RUNG_OK &&
              rung_cpu_backend_open(&be, pool, rung_cpu_detect(), NULL) == RUNG_OK)) {
        test_misfits(be);
        test_sizes(be);
        test_threads(pool);
    }
    rung_backend_close(&be);
    rung_pool_close(&pool);
    return check_result();
}
