/* PixArtTransformer2DModel against diffusers, the ladder against tools/train/model.py (golden networks), and configs
 * that must be refused. */
#include "tests/denoiser_golden.h"
#include "unet/dit_config.h"

static const char *const networks[] = {"pixart",        "pixart_plain", "pixart_patch", "ladder",  "ladder_off",
                                       "ladder_hybrid", "ladder_last",  "ladder_none",  "parallel"};

static const char base[] = "{\"num_attention_heads\": 2, \"attention_head_dim\": 12, \"cross_attention_dim\": 24,"
                           "\"caption_channels\": 20, \"sample_size\": 128}";

static const bad_config bad[] = {
    {"num_attention_heads", "0", NULL},
    {"num_attention_heads", "-2", NULL},
    {"num_attention_heads", "2147483648", NULL},
    {"num_attention_heads", "4096", "cross_attention_dim"}, /* no longer the text's width */
    {"attention_head_dim", "0", NULL},
    {"attention_head_dim", "13", NULL},                        /* 26 is not a multiple of 4 */
    {"attention_head_dim", "16", "use_additional_conditions"}, /* 32 is not a multiple of 3 */
    {"attention_head_dim", "2147483648", NULL},
    {"in_channels", "0", NULL},
    {"out_channels", "-1", NULL},
    {"out_channels", "2147483648", NULL},
    {"num_layers", "0", NULL},
    {"num_layers", "2147483648", NULL},
    {"patch_size", "0", NULL},
    {"patch_size", "2147483648", NULL},
    {"sample_size", "0", NULL},
    {"sample_size", "1", NULL}, /* less than a patch */
    {"sample_size", "[128, 128]", NULL},
    {"cross_attention_dim", "null", NULL},
    {"cross_attention_dim", "25", NULL},
    {"caption_channels", "0", NULL},
    {"interpolation_scale", "0", NULL},
    {"interpolation_scale", "-2", NULL},
    {"norm_type", "\"ada_norm_zero\"", NULL},
    {"norm_eps", "-1e-6", NULL},
    {"num_embeds_ada_norm", "null", NULL},
    {"activation_fn", "\"swiglu\"", NULL},
    {"activation_fn", "3", NULL},
    {"attention_type", "\"gated\"", NULL},
    {"attention_bias", "1", NULL},
    {"use_additional_conditions", "\"maybe\"", NULL},
    {"double_self_attention", "true", NULL},
    {"only_cross_attention", "true", NULL},
    {"num_vector_embeds", "16", NULL},
    {"ladder", "true", NULL}, /* in PixArt's class */
    {"ladder_layers", "2", NULL},
};

static rung_status read_pixart(void *out, rung_config *c) {
    return dit_config_read(out, c, "PixArtTransformer2DModel");
}

static void test_configs(void) {
    rung_err err = {0};
    rung_config c;
    dit_config d;
    cJSON *root = parse_config(base, &c, &err);
    CHECK(dit_config_read(&d, &c, "PixArtTransformer2DModel") == RUNG_OK);
    CHECK(d.size_conditions && d.interpolation_scale == 2 && d.out_channels == 8 && d.width == 24 && !d.stale_layers);
    cJSON_Delete(root);
    root = parse_config("{\"out_channels\": null, \"sample_size\": 64}", &c, &err);
    CHECK(dit_config_read(&d, &c, NULL) == RUNG_OK);
    CHECK(d.out_channels == 4 && !d.size_conditions && d.interpolation_scale == 1 && d.caption_dim == 0);
    cJSON_Delete(root);
    root = parse_config("{}", &c, &err);
    CHECK(dit_config_read(&d, &c, "LadderTransformer2DModel") == RUNG_OK && d.stale_layers == d.layers &&
          d.caption_dim == 384);
    cJSON_Delete(root);
    _Static_assert(sizeof(dit_config) <= 4096, "check_bad_configs holds one");
    check_bad_configs(base, bad, sizeof bad / sizeof *bad, read_pixart);
}

static void test_sizes(rung_backend *be) {
    rung_err err = {0};
    rung_model *m = NULL;
    rung_denoiser *d = NULL;
    rung_denoiser_run *run = NULL;
    static const float ctx[20];
    CHECK(rung_model_open(&m, GOLDEN "pixart", &err) == RUNG_OK);
    if (CHECK(rung_denoiser_open(&d, m, be, RUNG_STORE_F32, &err) == RUNG_OK)) {
        CHECK(rung_denoiser_describe(d)->size_multiple == 2 && rung_denoiser_describe(d)->sample_size == 128);
        rung_denoiser_cond c = {.batch = 1, .h = 8, .w = 7, .n_ctx = 1, .ctx = ctx, .image_h = 64, .image_w = 64};
        CHECK(rung_denoiser_begin(d, &run, &c, &err) == RUNG_ESHAPE && strstr(err.msg, "patch"));
        c.w = 8;
        c.image_w = NAN;
        err = (rung_err){0};
        CHECK(rung_denoiser_begin(d, &run, &c, &err) == RUNG_EARG && !run);
    }
    rung_denoiser_close(&d);
    rung_model_close(&m);
}

int main(void) {
    rung_pool *pool = NULL;
    rung_backend *be = NULL;
    test_configs();
    run_networks(networks, sizeof networks / sizeof *networks);
    if (CHECK(rung_pool_open(&pool, 1, NULL) == RUNG_OK &&
              rung_cpu_backend_open(&be, pool, rung_cpu_detect(), NULL) == RUNG_OK))
        test_sizes(be);
    rung_backend_close(&be);
    rung_pool_close(&pool);
    return check_result();
}
