/* tests/fuzz/fuzz_denoiser_config.c - config.json of the denoisers over arbitrary bytes: what is taken must be sound.
 */
#include <stdlib.h>

#include "unet/dit_config.h"
#include "unet/unet_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds) {
    if (!holds) abort();
}

static void try_unet(rung_config *c) {
    unet_config u;
    size_t hs[UNET_LEVELS], ws[UNET_LEVELS];
    if (unet_config_read(&u, c)) return;
    must(u.levels >= 1 && u.levels <= UNET_LEVELS && u.groups && u.time_dim && u.context_dim && u.text_dim);
    for (size_t i = 0; i < u.levels; i++) {
        const unet_level *v = &u.level[i];
        must(v->channels && v->channels % u.groups == 0 && v->layers && v->layers <= UNET_LAYERS);
        must(v->heads ? v->channels % v->heads == 0 : !v->down_attn && !v->up_attn);
    }
    if (unet_config_sizes(&u, 9, 14, hs, ws, NULL) == RUNG_OK)
        for (size_t i = 0; i < u.levels; i++) must(hs[i] && ws[i]);
}

static void try_dit(rung_config *c, const char *class_name) {
    dit_config d;
    if (dit_config_read(&d, c, class_name)) return;
    must(d.heads && d.width && d.width % d.heads == 0 && d.width % 4 == 0 && d.patch && d.sample_size >= d.patch);
    must(d.context_dim && d.layers && d.in_channels && d.out_channels && d.interpolation_scale > 0);
    must(!d.size_conditions || d.width % 3 == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const dits[] = {"PixArtTransformer2DModel", "LadderTransformer2DModel"};
    cJSON *root = NULL;
    if (rung_json_parse(&root, (const char *)data, size, "fuzz", NULL) == RUNG_OK) {
        rung_err err = {0};
        rung_config c = {.root = root, .where = "fuzz", .err = &err};
        try_unet(&c);
        for (int i = 0; i < 2; i++) {
            err = (rung_err){0};
            c.status = RUNG_OK;
            try_dit(&c, dits[i]);
        }
    }
    cJSON_Delete(root);
    return 0;
}
