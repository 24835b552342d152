/* vae/vae.c - which decoder a model has, its scratch, and one decode. */
#include "vae/vae.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "vae/decoder.h"

enum { MAX_SIDE = 1 << 16 }; /* latent cells: keeps every product of sizes inside a size_t */
static const size_t default_limit = (size_t)1 << 30;

struct rung_vae {
    rung_backend *be; /* borrowed */
    rung_weights *weights;
    vae_decoder *decoder;
    bool shared;                                        /* weights and decoder are another's */
    float scale[VAE_MAX_LATENT], shift[VAE_MAX_LATENT]; /* what the sampler's latents are multiplied by, then plus */
    size_t scratch_limit;                               /* of RUNG_TILING_AUTO */
    /* Kept from one decode to the next of the same size: */
    vae_run run;
    float *latents; /* [h, w, latent_channels], unscaled; NULL: nothing is kept */
    size_t h, w;
    rung_tiling tiling;
};

/* ---- opening ---- */

/* f32 [n] of a list in the config; false when there is none. */
static bool read_list(rung_config *c, const char *key, float *out, size_t n) {
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(c->root, key), *e;
    size_t i = 0;
    if (!v || cJSON_IsNull(v) || c->status) return false;
    cJSON_ArrayForEach(e, v) {
        if (!cJSON_IsNumber(e) || !isfinite(e->valuedouble)) break;
        if (i < n) out[i] = (float)e->valuedouble;
        i++;
    }
    if (e || i != n) cfg_refuse(c, "\"%s\" is no list of %zu numbers, one for each latent channel", key, n);
    return true;
}

/* diffusers' pipelines: latents / scaling_factor + shift_factor, or with both lists latents * std / scaling_factor +
 * mean; one list alone means nothing there. */
static void read_scaling(rung_vae *v, rung_config *c) {
    const rung_vae_info *info = &v->decoder->info;
    float std[VAE_MAX_LATENT], mean[VAE_MAX_LATENT];
    const bool has_mean = read_list(c, "latents_mean", mean, info->latent_channels);
    const bool lists = read_list(c, "latents_std", std, info->latent_channels) && has_mean;
    if (info->scaling_factor == 0) cfg_refuse(c, "\"scaling_factor\" is 0");
    for (size_t i = 0; i < info->latent_channels && !c->status; i++) {
        v->scale[i] = (lists ? std[i] : 1) / info->scaling_factor;
        v->shift[i] = info->shift_factor + (lists ? mean[i] : 0);
    }
}

static rung_status open_decoder(rung_vae *v, rung_config *c, const char *class_name, rung_store store, rung_err *err) {
    if (strcmp(class_name, "AutoencoderKL") == 0)
        return autoencoder_kl_open(&v->decoder, c, v->weights, v->be, store, err);
    if (strcmp(class_name, "AutoencoderTiny") == 0)
        return autoencoder_tiny_open(&v->decoder, c, v->weights, v->be, store, err);
    return rung_fail(err, RUNG_EFORMAT, "%s: the autoencoder is %s; AutoencoderKL and AutoencoderTiny are supported",
                     c->where, class_name);
}

rung_status rung_vae_open(rung_vae **out, rung_model *m, rung_backend *be, rung_store store, rung_err *err) {
    *out = NULL;
    const char *class_name = NULL;
    rung_config c;
    rung_status st;
    if (!rung_model_has(m, "vae", &class_name))
        return rung_fail(err, RUNG_EFORMAT, "%s: the model has no vae", rung_model_path(m));
    rung_vae *v = calloc(1, sizeof *v);
    if (!v) return rung_fail(err, RUNG_ENOMEM, "vae: no memory");
    v->be = be;
    v->scratch_limit = default_limit;
    RUNG_TRY_GOTO(st, done, rung_model_config(m, "vae", &c, err));
    class_name = cfg_string(&c, "_class_name", class_name ? class_name : "AutoencoderKL");
    RUNG_TRY_GOTO(st, done, c.status);
    RUNG_TRY_GOTO(st, done, rung_model_weights(m, "vae", &v->weights, err));
    RUNG_TRY_GOTO(st, done, open_decoder(v, &c, class_name, store, err));
    read_scaling(v, &c);
    RUNG_TRY_GOTO(st, done, c.status);
    *out = v;
    v = NULL;
done:
    rung_vae_close(&v);
    return st;
}

/* ---- scratch ---- */

static void forget_size(rung_vae *v) {
    for (int i = 0; i < VAE_ROOMS; i++) rung_arena_close(&v->run.room[i], v->be);
    free(v->latents);
    v->latents = NULL;
}

void rung_vae_close(rung_vae **v) {
    if (!*v) return;
    forget_size(*v);
    if ((*v)->decoder && !(*v)->shared) (*v)->decoder->close((*v)->decoder);
    if (!(*v)->shared) rung_weights_close(&(*v)->weights);
    free(*v);
    *v = NULL;
}

rung_status rung_vae_share(rung_vae **out, const rung_vae *of, rung_backend *be, rung_err *err) {
    rung_vae *v = *out = malloc(sizeof *v);
    if (!v) return rung_fail(err, RUNG_ENOMEM, "vae: no memory");
    *v = *of;
    v->be = be;
    v->shared = true;
    v->run = (vae_run){0};
    v->latents = NULL;
    return RUNG_OK;
}

const rung_vae_info *rung_vae_describe(const rung_vae *v) { return &v->decoder->info; }

/* image f32 [h * factor, w * factor, image_channels] and latents on the host; in a dry run both are NULL. */
static rung_status run_decoder(rung_vae *v, vae_run *r, float *image, const float *latents, size_t h, size_t w,
                               rung_err *err) {
    const rung_vae_info *info = &v->decoder->info;
    r->status = RUNG_OK;
    r->err = err;
    arena_rewind(&r->room[ROOM_SMALL], 0);
    float *z = exec_floats(&r->exec, h * w, info->latent_channels);
    op_upload(&r->exec, z, latents, h * w * info->latent_channels * sizeof *z);
    const float *y = v->decoder->decode(v->decoder, r, z, h, w);
    op_download(&r->exec, image, y, h * w * info->factor * info->factor * info->image_channels * sizeof *y);
    RUNG_TRY(exec_check(&r->exec, "vae", err));
    return r->status;
}

static size_t room_bytes(const vae_run *r) {
    size_t sum = 0;
    for (int i = 0; i < VAE_ROOMS; i++) sum += size_max(r->room[i].peak, 64);
    return sum;
}

/* A dry run at this size, with strips as far up as the tiling wants. */
static rung_status plan(rung_vae *v, vae_run *dry, size_t h, size_t w, rung_tiling tiling, rung_err *err) {
    size_t from = tiling == RUNG_TILING_ON ? 1 : v->decoder->levels;
    if (h == 0 || w == 0 || h > MAX_SIDE || w > MAX_SIDE)
        return rung_fail(err, RUNG_ESHAPE, "vae: latents are %zu x %zu, wanted 1 to %d each", w, h, MAX_SIDE);
    do {
        *dry = (vae_run){.exec = {v->be, &dry->room[ROOM_SMALL]}, .strips_from = from};
        RUNG_TRY(run_decoder(v, dry, NULL, NULL, h, w, err));
        from--;
    } while (tiling == RUNG_TILING_AUTO && from > 0 && room_bytes(dry) > v->scratch_limit);
    return RUNG_OK;
}

size_t rung_vae_scratch(rung_vae *v, size_t h, size_t w, rung_tiling tiling) {
    vae_run dry;
    return plan(v, &dry, h, w, tiling, NULL) ? 0 : room_bytes(&dry);
}

void rung_vae_limit_scratch(rung_vae *v, size_t bytes) {
    v->scratch_limit = bytes;
    forget_size(v);
}

static rung_status prepare(rung_vae *v, size_t h, size_t w, rung_tiling tiling, rung_err *err) {
    vae_run dry;
    rung_status st;
    if (v->latents && v->h == h && v->w == w && v->tiling == tiling) return RUNG_OK;
    forget_size(v);
    RUNG_TRY(plan(v, &dry, h, w, tiling, err));
    v->run = (vae_run){.exec = {v->be, &v->run.room[ROOM_SMALL]}, .strips_from = dry.strips_from};
    for (int i = 0; i < VAE_ROOMS; i++)
        RUNG_TRY_GOTO(st, fail, rung_arena_open(&v->run.room[i], v->be, size_max(dry.room[i].peak, 64), err));
    v->latents = malloc(h * w * v->decoder->info.latent_channels * sizeof *v->latents);
    if (!v->latents) {
        st = rung_fail(err, RUNG_ENOMEM, "vae: no memory for %zu x %zu latents", w, h);
        goto fail;
    }
    v->h = h;
    v->w = w;
    v->tiling = tiling;
    return RUNG_OK;
fail:
    forget_size(v);
    return st;
}

rung_status rung_vae_decode(rung_vae *v, float *image, const float *latents, size_t h, size_t w, rung_tiling tiling,
                            rung_err *err) {
    const size_t ch = v->decoder->info.latent_channels;
    RUNG_TRY(prepare(v, h, w, tiling, err));
    for (size_t i = 0; i < h * w * ch; i++) {
        const float z = latents[i] * v->scale[i % ch] + v->shift[i % ch];
        v->latents[i] = v->decoder->squash ? tanhf(z / 3) * 3 : z;
    }
    RUNG_TRY(run_decoder(v, &v->run, image, v->latents, h, w, err));
    return v->be->ops->sync(v->be, err);
}
