/* tests/test_vae.c - the decoders against diffusers (golden: tools/goldens/vae.py), and configs that are refused. */
#define _POSIX_C_SOURCE 200809L /* symlink, mkdir */
#include <sys/stat.h>
#include <unistd.h>

#include "assets/npy.h"
#include "tests/vae_cases.h"

static const double tolerance = 1e-4; /* relative L2, f32 against f32 */

static void check_decode(vae_setup *s, const rung_npy *z, const rung_npy *want, rung_tiling tiling, const char *what) {
    rung_err e = {0};
    float *got = calloc(want->count, sizeof *got);
    if (CHECK(rung_vae_decode(s->vae, got, z->data, z->shape[0], z->shape[1], tiling, &e) == RUNG_OK)) {
        const double d = image_error(got, want->data, want->count);
        if (!CHECK(d < tolerance)) fprintf(stderr, "  %s tiling=%d: %g\n", what, tiling, d);
    } else {
        fprintf(stderr, "  %s: %s\n", what, e.msg);
    }
    free(got);
}

static void decodes_as_diffusers(const char *name, unsigned cpu) {
    char path[400];
    rung_err e = {0};
    vae_setup s;
    rung_npy z = {0}, want = {0};
    snprintf(path, sizeof path, "%s%s/latents.npy", VAE_GOLDEN, name);
    if (!CHECK(rung_npy_read(&z, path, &e) == RUNG_OK)) return;
    snprintf(path, sizeof path, "%s%s/image.npy", VAE_GOLDEN, name);
    CHECK(rung_npy_read(&want, path, &e) == RUNG_OK);
    if (CHECK(vae_setup_case(&s, name, cpu, &e) == RUNG_OK)) {
        const rung_vae_info *info = rung_vae_describe(s.vae);
        CHECK(info->latent_channels == z.shape[2] && info->image_channels == want.shape[2]);
        CHECK(info->factor * z.shape[0] == want.shape[0] && info->factor * z.shape[1] == want.shape[1]);
        check_decode(&s, &z, &want, RUNG_TILING_AUTO, name);
        check_decode(&s, &z, &want, RUNG_TILING_AUTO, name); /* over scratch that was used */
        check_decode(&s, &z, &want, RUNG_TILING_ON, name);
        check_decode(&s, &z, &want, RUNG_TILING_OFF, name);
    } else {
        fprintf(stderr, "  %s: %s\n", name, e.msg);
    }
    vae_teardown(&s);
    rung_npy_free(&z);
    rung_npy_free(&want);
}

static void sizes_may_change(void) {
    vae_setup s;
    rung_err e = {0};
    float z[6 * 4 * 4], image[6 * 8 * 4 * 8 * 3], again[2 * 8 * 3 * 8 * 3], first[2 * 8 * 3 * 8 * 3];
    uint64_t seed = 3;
    for (size_t i = 0; i < sizeof z / sizeof *z; i++) z[i] = rnd(&seed);
    if (CHECK(vae_setup_case(&s, "kl_sd", rung_cpu_detect(), &e) == RUNG_OK)) {
        CHECK(rung_vae_decode(s.vae, first, z, 2, 3, RUNG_TILING_AUTO, &e) == RUNG_OK);
        CHECK(rung_vae_decode(s.vae, image, z, 6, 4, RUNG_TILING_AUTO, &e) == RUNG_OK);
        CHECK(rung_vae_decode(s.vae, again, z, 2, 3, RUNG_TILING_AUTO, &e) == RUNG_OK);
        CHECK(memcmp(first, again, sizeof first) == 0);
        CHECK(rung_vae_decode(s.vae, image, z, 0, 4, RUNG_TILING_AUTO, &e) == RUNG_ESHAPE);
        rung_err wide = {0};
        CHECK(rung_vae_decode(s.vae, image, z, 4, (size_t)1 << 40, RUNG_TILING_AUTO, &wide) == RUNG_ESHAPE);
        CHECK(rung_vae_decode(s.vae, again, z, 2, 3, RUNG_TILING_AUTO, &e) == RUNG_OK);
    }
    vae_teardown(&s);
}

/* ---- refused configs ---- */

static const char *const folder = "test_vae.model";

static int write_text(const char *path, const char *text) {
    FILE *f = fopen(path, "wb");
    if (!f) return 0;
    const int fine = fputs(text, f) >= 0;
    return fclose(f) == 0 && fine;
}

/* A copy of a golden model whose vae config has `key` set to the JSON `value` (NULL: taken out). */
static void make_model(const char *name, const char *key, const char *value) {
    char path[400], weights[400];
    cJSON *config;
    rung_err e = {0};
    mkdir(folder, 0777);
    snprintf(path, sizeof path, "%s/vae", folder);
    mkdir(path, 0777);
    snprintf(path, sizeof path, "%s%s/vae/config.json", VAE_GOLDEN, name);
    if (!CHECK(rung_json_load(&config, path, &e) == RUNG_OK)) return;
    cJSON_DeleteItemFromObjectCaseSensitive(config, key);
    if (value) cJSON_AddItemToObject(config, key, cJSON_Parse(value));
    char *text = cJSON_Print(config), *class_name = cJSON_GetObjectItem(config, "_class_name")->valuestring, index[200];
    snprintf(path, sizeof path, "%s/vae/config.json", folder);
    CHECK(write_text(path, text));
    snprintf(index, sizeof index, "{\"_class_name\": \"P\", \"vae\": [\"diffusers\", \"%s\"]}", class_name);
    snprintf(path, sizeof path, "%s/model_index.json", folder);
    CHECK(write_text(path, index));
    snprintf(path, sizeof path, "%s/vae/diffusion_pytorch_model.safetensors", folder);
    snprintf(weights, sizeof weights, "%s%s/vae/diffusion_pytorch_model.safetensors", VAE_GOLDEN, name);
    unlink(path);
    CHECK(symlink(weights, path) == 0);
    cJSON_free(text);
    cJSON_Delete(config);
}

static void refuses(const char *name, const char *key, const char *value, rung_status want, const char *in_message) {
    vae_setup s;
    rung_err e = {0};
    make_model(name, key, value);
    const rung_status st = vae_setup_at(&s, folder, rung_cpu_detect(), RUNG_STORE_STORED, &e);
    if (!CHECK(st == want && !s.vae && strstr(e.msg, in_message)))
        fprintf(stderr, "  %s %s: status %d, \"%s\"\n", key, value ? value : "absent", st, e.msg);
    vae_teardown(&s);
}

static void bad_configs_are_named(void) {
    const rung_status bad = RUNG_EFORMAT;
    refuses("kl_sd", "act_fn", "\"gelu\"", bad, "act_fn gelu");
    refuses("kl_sd", "up_block_types",
            "[\"UpDecoderBlock2D\", \"AttnUpDecoderBlock2D\", \"UpDecoderBlock2D\", \"UpDecoderBlock2D\"]", bad,
            "AttnUpDecoderBlock2D");
    refuses("kl_sd", "up_block_types", "[\"UpDecoderBlock2D\"]", bad, "1 up_block_types for 4");
    refuses("kl_sd", "up_block_types", "[1, 2, 3, 4]", bad, "up_block_types");
    refuses("kl_sd", "norm_num_groups", "3", bad, "norm_num_groups 3 does not divide");
    refuses("kl_sd", "norm_num_groups", "0", bad, "norm_num_groups");
    refuses("kl_sd", "block_out_channels", "[]", bad, "block_out_channels");
    refuses("kl_sd", "block_out_channels", "[8, 16, 16, 32]", RUNG_ESHAPE, "decoder.conv_in");
    refuses("kl_sd", "layers_per_block", "3", bad, "decoder.up_blocks.0.resnets.3");
    refuses("kl_sd", "layers_per_block", "1", bad, "decoder.up_blocks.0.resnets.2");
    refuses("kl_sd", "mid_block_add_attention", "false", bad, "attentions");
    refuses("kl_sd", "use_post_quant_conv", "false", bad, "post_quant_conv");
    refuses("kl_sd", "out_channels", "5", bad, "out_channels");
    refuses("kl_sd", "out_channels", "4", RUNG_ESHAPE, "decoder.conv_out");
    refuses("kl_sd", "latent_channels", "100000", bad, "latent_channels");
    refuses("kl_sd", "scaling_factor", "0", bad, "scaling_factor");
    refuses("kl_sd", "scaling_factor", "\"x\"", bad, "scaling_factor");
    refuses("kl_sd", "_class_name", "\"AutoencoderDC\"", bad, "AutoencoderDC");
    refuses("kl_lists", "latents_mean", "[1, 2]", bad, "latents_mean");
    refuses("kl_lists", "latents_std", "[1, 2, 3, \"x\"]", bad, "latents_std");
    refuses("kl_lists", "latents_std", "5", bad, "latents_std");
    refuses("tiny_sd", "act_fn", "\"mish\"", bad, "act_fn mish");
    refuses("tiny_sd", "upsample_fn", "\"bilinear\"", bad, "upsample_fn bilinear");
    refuses("tiny_sd", "num_decoder_blocks", "[3, 3, 3]", bad, "3 num_decoder_blocks");
    refuses("tiny_sd", "num_decoder_blocks", "[3, 3, 3, 2]", bad, "decoder.layers");
    refuses("tiny_sd", "decoder_block_out_channels", "[8, 8, 8, 4]", bad, "8 and 4");
    refuses("tiny_sd", "upsampling_scaling_factor", "0", bad, "upsampling_scaling_factor");
}

/* Keys that may be absent or null mean diffusers' defaults. */
static void defaults_hold(void) {
    static const char *const keys[] = {"act_fn", "shift_factor", "latents_mean", "scaling_factor",
                                       "use_post_quant_conv"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        for (int null = 0; null < 2; null++) {
            vae_setup s;
            rung_err e = {0};
            make_model("kl_sd", keys[i], null ? "null" : NULL);
            if (!CHECK(vae_setup_at(&s, folder, rung_cpu_detect(), RUNG_STORE_F32, &e) == RUNG_OK))
                fprintf(stderr, "  %s: %s\n", keys[i], e.msg);
            else
                CHECK(rung_vae_describe(s.vae)->scaling_factor == 0.18215f);
            vae_teardown(&s);
        }
    }
}

/* ---- memory that runs out ---- */

static const rung_backend_ops *real_ops;
static int allocations_left;

static rung_status scarce_alloc(rung_backend *be, void **out, size_t bytes, rung_err *err) {
    *out = NULL;
    if (allocations_left-- <= 0) return rung_fail(err, RUNG_ENOMEM, "scarce");
    return real_ops->mem_alloc(be, out, bytes, err);
}

static rung_status scarce_conv(rung_backend *be, rung_conv **out, const rung_tensor *w, const rung_tensor *bias,
                               rung_store type, rung_err *err) {
    *out = NULL;
    if (allocations_left-- <= 0) return rung_fail(err, RUNG_ENOMEM, "scarce");
    return real_ops->conv_open(be, out, w, bias, type, err);
}

/* The n-th allocation fails, n = 0, 1, 2 ... until opening and decoding pass; the sanitizer sees what leaks. */
static void failed_allocations_leave_nothing(const char *name, rung_tiling tiling) {
    char path[400];
    float z[2 * 2 * 16] = {0}, image[18 * 18 * 4];
    rung_status st = RUNG_ENOMEM;
    int n = 0;
    snprintf(path, sizeof path, "%s%s", VAE_GOLDEN, name);
    for (; st == RUNG_ENOMEM && n < 1000; n++) {
        vae_setup s = {0};
        rung_err e = {0};
        CHECK(!rung_pool_open(&s.pool, 1, &e) && !rung_cpu_backend_open(&s.be, s.pool, 0, &e));
        CHECK(!rung_model_open(&s.model, path, &e));
        real_ops = s.be->ops;
        rung_backend_ops scarce = *real_ops;
        scarce.mem_alloc = scarce_alloc;
        scarce.conv_open = scarce_conv;
        s.be->ops = &scarce;
        allocations_left = n;
        st = rung_vae_open(&s.vae, s.model, s.be, RUNG_STORE_STORED, &e);
        CHECK((st == RUNG_OK) == (s.vae != NULL));
        if (!st) st = rung_vae_decode(s.vae, image, z, 2, 2, tiling, &e);
        CHECK(st == RUNG_OK || (st == RUNG_ENOMEM && e.msg[0]));
        allocations_left = 1000;
        if (s.vae) CHECK(rung_vae_decode(s.vae, image, z, 2, 2, tiling, &(rung_err){0}) == RUNG_OK); /* works again */
        rung_vae_close(&s.vae);
        s.be->ops = real_ops;
        vae_teardown(&s);
    }
    CHECK(st == RUNG_OK && n > 10);
}

int main(void) {
    for (size_t i = 0; i < VAE_CASES; i++) {
        decodes_as_diffusers(vae_cases[i], 0);
        decodes_as_diffusers(vae_cases[i], rung_cpu_detect());
    }
    sizes_may_change();
    bad_configs_are_named();
    defaults_hold();
    failed_allocations_leave_nothing("kl_lists", RUNG_TILING_ON);
    failed_allocations_leave_nothing("tiny_odd", RUNG_TILING_OFF);
    return check_result();
}
