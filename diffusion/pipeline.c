/* diffusion/pipeline.c - the road of one picture: tokenize -> encode -> (noise, schedule) -> sampler loop [guidance ->
 * denoiser] -> decode. make_pictures() is the whole of it on one screen. */
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "diffusion/engine.h"
#include "diffusion/infotext.h"
#include "diffusion/resident.h"
#include "kernels/base/hash.h"
#include "kernels/base/size.h"
#include "samplers/guidance.h"
#include "vae/png.h"
#include "vae/spots.h"

enum { MAX_SIDE = 16384, MAX_BATCH = 4096 };

/* Up to this many latent cells a step is too short to be worth two threads' meeting after each operation: a batch of
 * such pictures goes in lanes, each thread drawing its share alone. A batch gains nothing by size on one thread there.
 */
enum { LANE_CELLS = 256, LANE_SCRATCH = 256 << 20 };

/* What the lanes of one call share. */
struct lanes {
    pthread_mutex_t encoder; /* the text encoder and its cache */
    atomic_bool stop;        /* one has failed or was cancelled */
};

/* One call of rung_generate. Pictures in the sampler's order are [count, C, h, w], as torch draws noise and as .npy
 * files have them; the networks want [.., h, w, C]. */
struct job {
    rung_engine *e;
    const engine_lane *lane;              /* NULL: the engine's own threads, all of them */
    struct lanes *lanes;                  /* NULL: this is the only one */
    const rung_request *requests, *first; /* first: of the whole batch */
    size_t count;
    size_t h, w, channels, n; /* latents; n = channels * h * w */
    bool guided;
    bool release;                   /* each network, once it is through: the request's `last` */
    size_t nets;                    /* denoised each step: count, or 2 * count (unconditional first) */
    size_t own, own_first;          /* of these in this rank's denoiser call: all, or a half of the pair */
    rung_embeds *prompts;           /* [nets], in the order of the denoiser's batch */
    rung_rng *rng;                  /* [count] */
    float *latents;                 /* [count, n] */
    float *net_in, *net_out, *time; /* [nets, h, w, channels] twice, [nets] */
    rung_sampler *sampler;
    rung_denoiser_run *run;
    resident device; /* where the latents are during the steps, when not in `latents` */
    rung_times times;
};

static void to_nhwc(float *y, const float *x, size_t channels, size_t pixels) {
    for (size_t c = 0; c < channels; c++)
        for (size_t p = 0; p < pixels; p++) y[p * channels + c] = x[c * pixels + p];
}

static void to_nchw(float *y, const float *x, size_t channels, size_t pixels) {
    for (size_t c = 0; c < channels; c++)
        for (size_t p = 0; p < pixels; p++) y[c * pixels + p] = x[p * channels + c];
}

static rung_status check_request(struct job *j, rung_err *err) {
    const rung_engine_info *i = &j->e->info;
    const rung_request *r = j->first;
    const size_t width = r->width ? r->width : i->width, height = r->height ? r->height : i->height;
    const size_t m = i->size_multiple;
    if (!j->e->denoiser)
        return rung_fail(err, RUNG_EARG, "%s: a request was the engine's last, its denoiser is closed", j->e->name);
    if (j->count < 1 || j->count > MAX_BATCH)
        return rung_fail(err, RUNG_EARG, "batch is %zu pictures, wanted 1 to %d", j->count, MAX_BATCH);
    if (width > MAX_SIDE || height > MAX_SIDE || width % m || height % m)
        return rung_fail(err, RUNG_EARG, "size is %zux%zu, wanted multiples of %zu up to %d", width, height, m,
                         MAX_SIDE);
    if (!isfinite(r->cfg_scale) || r->cfg_scale < 0)
        return rung_fail(err, RUNG_EARG, "cfg scale is %g, wanted a number from 0", (double)r->cfg_scale);
    if (!(r->guidance_rescale >= 0 && r->guidance_rescale <= 1))
        return rung_fail(err, RUNG_EARG, "guidance rescale is %g, wanted 0 to 1", (double)r->guidance_rescale);
    j->w = width / i->factor;
    j->h = height / i->factor;
    j->channels = i->latent_channels;
    j->n = j->channels * j->h * j->w;
    return RUNG_OK;
}

static float guidance_scale(const struct job *j) {
    return j->first->cfg_scale > 0 ? j->first->cfg_scale : j->e->info.cfg_scale;
}

static int step_count(const struct job *j) { return j->first->steps ? j->first->steps : j->e->info.steps; }

static rung_status reserve(struct job *j, rung_err *err) {
    j->guided = guidance_scale(j) > 1;
    j->nets = j->guided ? 2 * j->count : j->count;
    const bool halved = j->guided && j->e->ranks.cfg;
    j->own = halved ? j->count : j->nets;
    j->own_first = halved ? j->count * (size_t)j->e->ranks.cfg->rank : 0;
    j->prompts = calloc(j->nets, sizeof *j->prompts);
    j->rng = calloc(j->count, sizeof *j->rng);
    j->time = calloc(j->nets, sizeof *j->time);
    size_t total; /* n is bounded by MAX_SIDE, nets by MAX_BATCH: only their product can be too much */
    if (size_mul(j->n, j->nets, &total) && total <= SIZE_MAX / sizeof(float)) {
        j->latents = malloc(j->count * j->n * sizeof(float));
        j->net_in = malloc(total * sizeof(float));
        j->net_out = malloc(total * sizeof(float));
    }
    if (j->prompts && j->rng && j->time && j->latents && j->net_in && j->net_out) return RUNG_OK;
    return rung_fail(err, RUNG_ENOMEM, "no memory for %zu latents of %zu x %zu cells", j->nets, j->h, j->w);
}

/* Embeddings for one prompt: the caller's, or the text encoder's. */
static rung_status encode_one(const struct job *j, const rung_request *r, bool negative, size_t min_n, rung_embeds *out,
                              rung_err *err) {
    const rung_rows *given = negative ? &r->neg_embeds : &r->embeds;
    const char *prompt = negative ? r->negative_prompt : r->prompt;
    const size_t d = j->e->info.context_dim;
    rung_embeds_free(out);
    if (given->data) {
        if (given->cols != d || given->rows < 1)
            return rung_fail(err, RUNG_ESHAPE, "%s embeddings are [%zu, %zu], wanted [n, %zu]",
                             negative ? "negative" : "prompt", given->rows, given->cols, d);
        out->data = malloc(given->rows * d * sizeof(float));
        if (!out->data) return rung_fail(err, RUNG_ENOMEM, "no memory for %zu embeddings", given->rows);
        memcpy(out->data, given->data, given->rows * d * sizeof(float));
        out->n = given->rows;
        out->d = d;
        return RUNG_OK;
    }
    if (!j->e->text)
        return rung_fail(err, RUNG_EARG, "%s: no text encoder is loaded: give %s embeddings%s", j->e->name,
                         negative ? "negative" : "prompt", negative ? ", or a cfg scale of 1" : "");
    const rung_text_options o = {.clip_skip = r->clip_skip, .literal = r->literal, .min_n = min_n};
    RUNG_TRY(embed_cache_encode(&j->e->embeds, j->e->text, prompt ? prompt : "", &o, out, err));
    if (out->d == d) return RUNG_OK;
    return rung_fail(err, RUNG_ESHAPE, "%s: the text encoder gives %zu columns, the denoiser wants %zu", j->e->name,
                     out->d, d);
}

/* SDXL was trained with zeros where there is no negative prompt. */
static rung_status zero_embeds(size_t n, size_t d, rung_embeds *out, rung_err *err) {
    *out = (rung_embeds){.n = n, .d = d, .data = calloc(n * d, sizeof *out->data)};
    return out->data ? RUNG_OK : rung_fail(err, RUNG_ENOMEM, "no memory for %zu embeddings", n);
}

static bool wants_zero_negative(const struct job *j, const rung_request *r) {
    return j->e->info.pooled_dim && !r->neg_embeds.data && (!r->negative_prompt || !*r->negative_prompt);
}

/* A prompt and its negative get equally many rows, as the shorter one is filled up. */
static rung_status encode_prompts(struct job *j, rung_err *err) {
    for (size_t i = 0; ranks_lead(&j->e->ranks) && i < j->count; i++) {
        const rung_request *r = &j->requests[i];
        rung_embeds *uncond = &j->prompts[i], *cond = &j->prompts[j->nets - j->count + i];
        RUNG_TRY(encode_one(j, r, false, 0, cond, err));
        if (!j->guided) continue;
        if (wants_zero_negative(j, r))
            RUNG_TRY(zero_embeds(cond->n, cond->d, uncond, err));
        else
            RUNG_TRY(encode_one(j, r, true, cond->n, uncond, err));
        if (cond->n < uncond->n) RUNG_TRY(encode_one(j, r, false, uncond->n, cond, err));
    }
    return ranks_share_embeds(j->e->ranks.group, j->prompts, j->nets, err);
}

/* pooled f32 [nets, pooled_dim], malloc'd into *out; NULL where the model takes none. */
static rung_status gather_pooled(const struct job *j, float **out, rung_err *err) {
    const size_t d = j->e->info.pooled_dim;
    *out = d ? calloc(j->nets * d, sizeof **out) : NULL;
    if (d && !*out) return rung_fail(err, RUNG_ENOMEM, "no memory for pooled embeddings");
    for (size_t i = 0; i < j->nets; i++) {
        const bool negative = j->guided && i < j->count;
        const rung_request *r = &j->requests[i % j->count];
        const rung_rows *rows = negative ? &r->neg_pooled : &r->pooled;
        if (!rows->data && (!d || (negative && wants_zero_negative(j, r)))) continue;
        if (!rows->data || rows->rows != 1 || rows->cols != d)
            return rung_fail(err, RUNG_ESHAPE, "%s pooled embeddings are [%zu, %zu], wanted %s%zu]",
                             negative ? "negative" : "prompt", rows->rows, rows->cols, d ? "[1, " : "none: [0, ", d);
        memcpy(*out + i * d, rows->data, d * sizeof **out);
    }
    return RUNG_OK;
}

/* Prompts of different lengths share a batch through the mask, so that none depends on its neighbours. */
static rung_status begin_denoiser(struct job *j, rung_err *err) {
    const size_t d = j->e->info.context_dim;
    size_t n = 0, floats;
    bool masked = false;
    for (size_t i = 0; i < j->nets; i++) n = size_max(n, j->prompts[i].n);
    for (size_t i = 0; i < j->nets; i++) masked |= j->prompts[i].mask || j->prompts[i].n < n;
    if (!size_mul(j->nets * n, d, &floats)) return rung_fail(err, RUNG_ENOMEM, "embeddings: %zu rows", j->nets * n);
    float *ctx = calloc(floats, sizeof *ctx), *pooled = NULL;
    unsigned char *mask = calloc(j->nets, n);
    rung_status st = ctx && mask ? gather_pooled(j, &pooled, err)
                                 : rung_fail(err, RUNG_ENOMEM, "no memory for %zu embeddings", j->nets * n);
    for (size_t i = 0; !st && i < j->nets; i++) {
        const rung_embeds *p = &j->prompts[i];
        memcpy(ctx + i * n * d, p->data, p->n * d * sizeof(float));
        if (p->mask)
            memcpy(mask + i * n, p->mask, p->n);
        else
            memset(mask + i * n, 1, p->n);
    }
    const size_t skip = j->own_first;
    const rung_denoiser_cond c = {.batch = j->own,
                                  .h = j->h,
                                  .w = j->w,
                                  .n_ctx = n,
                                  .ctx = ctx + (st ? 0 : skip * n * d),
                                  .mask = masked && !st ? mask + skip * n : NULL,
                                  .pooled = pooled ? pooled + skip * j->e->info.pooled_dim : NULL,
                                  .be = j->lane ? j->lane->be : NULL,
                                  .image_h = (float)(j->h * j->e->info.factor),
                                  .image_w = (float)(j->w * j->e->info.factor)};
    if (!st) st = rung_denoiser_begin(j->e->denoiser, &j->run, &c, err);
    free(ctx);
    free(pooled);
    free(mask);
    return st;
}

/* The engine's GPU, when a step needs the host for nothing: NULL else. */
static rung_backend *device_for(const struct job *j) {
    rung_backend *be = j->e->be;
    const bool alone = !j->lane && !j->e->ranks.cfg && !j->e->ranks.group;
    return alone && be->ops->on_device && j->first->guidance_rescale == 0 ? be : NULL;
}

static rung_status open_sampler(struct job *j, rung_err *err) {
    const rung_denoiser_info *d = rung_denoiser_describe(j->e->denoiser);
    const rung_request *r = j->first;
    const rung_sampler_params p = {.sampler = r->sampler,
                                   .schedule = r->scheduler,
                                   .config_json = j->e->scheduler_json,
                                   .steps = step_count(j),
                                   .eta = r->eta_set ? r->eta : NAN,
                                   .sigmas = r->sigmas,
                                   .n_sigmas = r->n_sigmas,
                                   .batch = j->count,
                                   .n = j->n,
                                   .image_tokens = j->h * j->w / (d->size_multiple * d->size_multiple),
                                   .be = device_for(j)};
    return rung_sampler_open(&j->sampler, &p, err);
}

static rung_status open_resident(struct job *j, rung_err *err) {
    j->device = (resident){.be = rung_sampler_memory(j->sampler),
                           .run = j->run,
                           .count = j->count,
                           .nets = j->nets,
                           .channels = j->channels,
                           .pixels = j->h * j->w,
                           .scale = guidance_scale(j),
                           .time = j->time,
                           .rng = j->rng};
    return j->device.be ? resident_open(&j->device, err) : RUNG_OK;
}

static void start_noise(struct job *j) {
    const float sigma = rung_sampler_init_sigma(j->sampler);
    for (size_t i = 0; i < j->count; i++) {
        const rung_request *r = &j->requests[i];
        float *x = j->latents + i * j->n;
        rung_rng_seed(&j->rng[i], j->first->rng, r->seed);
        if (j->device.be) {
            resident_start(&j->device, i, r->noise, sigma);
            continue;
        }
        if (r->noise)
            memcpy(x, r->noise, j->n * sizeof *x);
        else
            rung_rng_normal(&j->rng[i], x, j->n);
        for (size_t k = 0; k < j->n; k++) x[k] *= sigma;
    }
}

static void draw_noise(void *user, size_t picture, float *out, size_t n) {
    struct job *j = user;
    rung_rng_normal(&j->rng[picture], out, n);
}

/* The sampler's denoiser: both halves of the guidance pair in one call of the network, or in one of each of two ranks.
 */
static rung_status denoise(void *user, float *out, float *uncond, const float *x, float t, rung_err *err) {
    struct job *j = user;
    const size_t pixels = j->h * j->w, half = j->count * j->n;
    for (size_t i = 0; i < j->count; i++) to_nhwc(j->net_in + i * j->n, x + i * j->n, j->channels, pixels);
    if (j->own > j->count) memcpy(j->net_in + half, j->net_in, half * sizeof(float));
    for (size_t i = 0; i < j->own; i++) j->time[i] = t;
    RUNG_TRY(rung_denoiser_step(j->run, j->net_out + j->own_first * j->n, j->net_in, j->time, err));
    if (j->own < j->nets) RUNG_TRY(rung_comm_gather_now(j->e->ranks.cfg, j->net_out, half * sizeof(float), err));
    float *cond = j->net_out + (j->guided ? half : 0);
    if (j->guided) rung_guidance(cond, cond, j->net_out, guidance_scale(j), j->first->guidance_rescale, j->count, j->n);
    for (size_t i = 0; i < j->count; i++) {
        to_nchw(out + i * j->n, cond + i * j->n, j->channels, pixels);
        if (uncond) to_nchw(uncond + i * j->n, j->net_out + i * j->n, j->channels, pixels);
    }
    return RUNG_OK;
}

static rung_status sample(struct job *j, rung_err *err) {
    const int steps = rung_sampler_steps(j->sampler);
    const rung_request *r = j->first;
    for (int i = 0; i < steps; i++) {
        RUNG_TRY(j->device.be ? rung_sampler_step(j->sampler, i, j->device.latents, resident_denoise, &j->device,
                                                  resident_noise, &j->device, err)
                              : rung_sampler_step(j->sampler, i, j->latents, denoise, j, draw_noise, j, err));
        if (j->lanes && atomic_load(&j->lanes->stop)) return rung_fail(err, RUNG_ECANCELLED, "another picture failed");
        if (j->requests != r) continue; /* the first lane tells */
        if (r->progress && r->progress(r->progress_user, i + 1, steps))
            return rung_fail(err, RUNG_ECANCELLED, "cancelled after step %d of %d", i + 1, steps);
    }
    return j->device.be ? resident_finish(&j->device, j->latents, err) : RUNG_OK;
}

/* Takes the picture's latents and embeddings along, for those who compare engines. */
static rung_status decode(struct job *j, size_t picture, rung_image *out, rung_err *err) {
    const rung_engine_info *info = &j->e->info;
    const size_t height = j->h * info->factor, width = j->w * info->factor,
                 samples = height * width * info->image_channels;
    rung_embeds *cond = &j->prompts[j->nets - j->count + picture];
    float *image = malloc(samples * sizeof *image);
    out->latents = malloc(j->n * sizeof *out->latents);
    out->pixels = malloc(samples);
    rung_status st = RUNG_OK;
    if (!image || !out->latents || !out->pixels)
        RUNG_TRY_GOTO(st, done, rung_fail(err, RUNG_ENOMEM, "no memory for a picture of %zux%zu", width, height));
    memcpy(out->latents, j->latents + picture * j->n, j->n * sizeof *out->latents);
    to_nhwc(j->net_in, out->latents, j->channels, j->h * j->w);
    RUNG_TRY_GOTO(st, done,
                  rung_vae_decode(j->lane ? j->lane->vae : j->e->vae, image, j->net_in, j->h, j->w,
                                  j->first->vae_tiling ? RUNG_TILING_ON : RUNG_TILING_AUTO, err));
    rung_image_bytes(out->pixels, image, height, width, info->image_channels);
    if (info->image_channels == 4) rung_clear_spots(out->pixels, height, width, info->clear_spots);
    out->width = width;
    out->height = height;
    out->channels = info->image_channels;
    out->latent_channels = j->channels;
    out->latent_h = j->h;
    out->latent_w = j->w;
    out->embeds = cond->data;
    out->embed_rows = cond->n;
    out->context_dim = cond->d;
    cond->data = NULL; /* the image owns them now */
done:
    free(image);
    return st;
}

static rung_status write_parameters(const struct job *j, const rung_request *r, char **text, rung_err *err) {
    const rung_infotext t = {.prompt = r->prompt,
                             .negative_prompt = r->negative_prompt,
                             .steps = step_count(j),
                             .sampler_label = rung_sampler_describe(j->sampler)->label,
                             .schedule_label = rung_infotext_schedule(j->first->scheduler),
                             .cfg_scale = guidance_scale(j),
                             .seed = r->seed,
                             .width = j->w * j->e->info.factor,
                             .height = j->h * j->e->info.factor,
                             .model = j->e->name,
                             .clip_skip = j->first->clip_skip,
                             .rng = j->first->rng,
                             .eta = j->first->eta,
                             .eta_set = j->first->eta_set,
                             .guidance_rescale = j->first->guidance_rescale,
                             .sigmas = j->first->sigmas,
                             .n_sigmas = j->first->n_sigmas,
                             .literal = r->literal,
                             .weights = j->e->weights};
    *text = rung_infotext_write(&t);
    return *text ? RUNG_OK : rung_fail(err, RUNG_ENOMEM, "no memory for the picture's parameters");
}

static rung_status describe(const struct job *j, size_t picture, rung_image *out, rung_err *err) {
    out->seed = j->requests[picture].seed;
    out->sampler = rung_sampler_describe(j->sampler)->name;
    out->steps = rung_sampler_steps(j->sampler);
    out->calls = rung_sampler_calls(j->sampler);
    out->times = j->times;
    return write_parameters(j, &j->requests[picture], &out->parameters, err);
}

/* Ranks that draw a picture together go through the same steps with the same numbers. Prompts are the leader's. */
static rung_status compare_requests(const struct job *j, rung_err *err) {
    const rung_request *r = j->first;
    const uint64_t sizes[] = {j->count, j->h, j->w, (uint64_t)step_count(j), r->rng, r->eta_set, r->n_sigmas};
    const float reals[] = {guidance_scale(j), r->guidance_rescale, r->eta_set ? r->eta : 0};
    if (!j->e->ranks.group) return RUNG_OK;
    uint64_t h = rung_hash(rung_hash(0, sizes, sizeof sizes), reals, sizeof reals);
    const char *names[] = {r->sampler ? r->sampler : "", r->scheduler ? r->scheduler : ""};
    for (int i = 0; i < 2; i++) h = rung_hash(h, names[i], strlen(names[i]));
    h = rung_hash(h, r->sigmas ? r->sigmas : reals, r->n_sigmas * sizeof *r->sigmas);
    for (size_t i = 0; i < j->count; i++) {
        h = rung_hash_word(h, j->requests[i].seed);
        if (j->requests[i].noise) h = rung_hash(h, j->requests[i].noise, j->n * sizeof(float));
    }
    return ranks_agree(j->e->ranks.group, h, "request", err);
}

static rung_status encode(struct job *j, rung_err *err) {
    if (!j->lanes) return encode_prompts(j, err);
    pthread_mutex_lock(&j->lanes->encoder);
    const rung_status st = encode_prompts(j, err);
    pthread_mutex_unlock(&j->lanes->encoder);
    return st;
}

/* The last request's networks one after the other: while the denoiser works, neither the text encoder nor the VAE lies
 * beside it. */
static rung_status sample_last(struct job *j, rung_err *err) {
    rung_textenc_close(&j->e->text);
    rung_vae_close(&j->e->vae);
    const rung_status st = sample(j, err);
    rung_denoiser_end(&j->run);
    rung_denoiser_close(&j->e->denoiser);
    return st;
}

static rung_status make_pictures(struct job *j, rung_image *images, rung_err *err) {
    const double start = rung_now();
    RUNG_TRY(check_request(j, err));
    RUNG_TRY(compare_requests(j, err));
    RUNG_TRY(reserve(j, err));
    RUNG_TRY(open_sampler(j, err));
    RUNG_TRY(encode(j, err));
    RUNG_TRY(begin_denoiser(j, err));
    RUNG_TRY(open_resident(j, err));
    const double encoded = rung_now();
    start_noise(j);
    RUNG_TRY(j->release && !j->lanes ? sample_last(j, err) : sample(j, err));
    rung_denoiser_end(&j->run); /* its scratch is the VAE's */
    resident_close(&j->device);
    const double denoised = rung_now();
    if (ranks_lead(&j->e->ranks) && !j->e->vae)
        RUNG_TRY(rung_vae_open(&j->e->vae, j->e->model, j->e->be, j->e->store, err));
    for (size_t i = 0; ranks_lead(&j->e->ranks) && i < j->count; i++) RUNG_TRY(decode(j, i, &images[i], err));
    j->times = (rung_times){encoded - start, denoised - encoded, rung_now() - denoised};
    for (size_t i = 0; i < j->count; i++) RUNG_TRY(describe(j, i, &images[i], err));
    return RUNG_OK;
}

static rung_status run_job(struct job *j, rung_image *images, rung_err *err) {
    const rung_status st = make_pictures(j, images, err);
    for (size_t i = 0; j->prompts && i < j->nets; i++) rung_embeds_free(&j->prompts[i]);
    for (size_t i = 0; st && i < j->count; i++) rung_image_free(&images[i]);
    rung_denoiser_end(&j->run);
    resident_close(&j->device);
    rung_sampler_close(&j->sampler);
    free(j->prompts);
    free(j->rng);
    free(j->time);
    free(j->latents);
    free(j->net_in);
    free(j->net_out);
    if (st && j->lanes) atomic_store(&j->lanes->stop, true);
    return st;
}

/* ---- lanes ---- */

/* How many lanes a batch takes; 1: none. */
static size_t lanes_for(const struct job *j) {
    struct job probe = *j;
    const size_t n = j->e->lanes_fit ? (size_t)rung_pool_threads(j->e->pool) : 1;
    size_t scratch;
    if (n < 2 || j->count < n || j->first->vae_tiling || check_request(&probe, NULL)) return 1;
    if (probe.h * probe.w > LANE_CELLS) return 1;
    scratch = rung_vae_scratch(j->e->vae, probe.h, probe.w, RUNG_TILING_AUTO);
    return scratch <= LANE_SCRATCH / n ? n : 1;
}

struct lane_run {
    struct job job;
    rung_image *images;
    rung_status status;
    rung_err err;
    pthread_t thread;
    bool started;
};

static void *run_lane(void *arg) {
    struct lane_run *l = arg;
    l->status = run_job(&l->job, l->images, &l->err);
    return NULL;
}

/* The first lane is the caller's thread, which alone calls back. Lanes that get no thread follow there. */
static rung_status run_lanes(const struct job *whole, size_t n, rung_image *images, rung_err *err) {
    struct lanes shared = {.stop = false};
    struct lane_run *l = calloc(n, sizeof *l);
    rung_status st = RUNG_OK;
    if (!l) return rung_fail(err, RUNG_ENOMEM, "no memory for %zu lanes", n);
    pthread_mutex_init(&shared.encoder, NULL);
    for (size_t i = 0; i < n; i++) {
        const size_t lo = i * whole->count / n, hi = (i + 1) * whole->count / n;
        l[i].job = *whole;
        l[i].job.lane = &whole->e->lanes[i];
        l[i].job.lanes = &shared;
        l[i].job.requests = whole->requests + lo;
        l[i].job.count = hi - lo;
        l[i].images = images + lo;
        l[i].started = i > 0 && pthread_create(&l[i].thread, NULL, run_lane, &l[i]) == 0;
    }
    for (size_t i = 0; i < n; i++)
        if (!l[i].started) run_lane(&l[i]);
    for (size_t i = 0; i < n; i++) {
        if (l[i].started) pthread_join(l[i].thread, NULL);
        /* what failed, not those that stopped for it */
        if (l[i].status && (!st || (st == RUNG_ECANCELLED && l[i].status != RUNG_ECANCELLED))) {
            st = l[i].status;
            if (err) *err = l[i].err;
        }
    }
    for (size_t i = 0; st && i < whole->count; i++) rung_image_free(&images[i]);
    pthread_mutex_destroy(&shared.encoder);
    free(l);
    return st;
}

/* ---- one by one ---- */

/* Steps that depend on the picture cannot be a batch's. */
static bool adapts_to_picture(const rung_request *r) {
    const rung_sampler_row *row = r->sampler ? rung_sampler_find(r->sampler) : NULL;
    return row && row->calls == 0;
}

static rung_status one_by_one(rung_engine *e, const rung_request *requests, size_t count, rung_image *images,
                              rung_err *err) {
    rung_status st = RUNG_OK;
    for (size_t i = 0; !st && i < count; i++) {
        rung_request r = requests[0]; /* with what is each one's own */
        r.prompt = requests[i].prompt;
        r.negative_prompt = requests[i].negative_prompt;
        r.seed = requests[i].seed;
        r.noise = requests[i].noise;
        r.embeds = requests[i].embeds;
        r.neg_embeds = requests[i].neg_embeds;
        r.pooled = requests[i].pooled;
        r.neg_pooled = requests[i].neg_pooled;
        struct job j = {.e = e, .requests = &r, .first = &r, .count = 1, .release = r.last && i + 1 == count};
        st = run_job(&j, &images[i], err);
    }
    for (size_t i = 0; st && i < count; i++) rung_image_free(&images[i]);
    return st;
}

rung_status rung_generate(rung_engine *e, const rung_request *requests, size_t count, rung_image *images,
                          rung_err *err) {
    struct job j = {.e = e, .requests = requests, .first = requests, .count = count, .release = requests->last};
    memset(images, 0, count * sizeof *images);
    if (count > 1 && adapts_to_picture(requests)) return one_by_one(e, requests, count, images, err);
    const size_t n = lanes_for(&j);
    if (n < 2) return run_job(&j, images, err);
    RUNG_TRY(engine_open_lanes(e, err));
    const rung_status st = run_lanes(&j, n, images, err);
    if (!st && j.release) rung_denoiser_close(&e->denoiser); /* which lanes share; their pictures are small */
    return st;
}

rung_status rung_parameters(rung_engine *e, const rung_request *r, char **text, rung_err *err) {
    struct job j = {.e = e, .requests = r, .first = r, .count = 1};
    *text = NULL;
    rung_status st = check_request(&j, err);
    if (!st) st = open_sampler(&j, err);
    if (!st) st = write_parameters(&j, r, text, err);
    rung_sampler_close(&j.sampler);
    return st;
}

size_t rung_request_bytes(rung_engine *e, const rung_request *r) {
    enum { CONTEXT_ROWS = 77 };
    struct job j = {.e = e, .requests = r, .first = r, .count = 1};
    if (check_request(&j, NULL) != RUNG_OK) return 0;
    float *ctx = calloc(2 * CONTEXT_ROWS * e->info.context_dim, sizeof *ctx);
    float *pooled = calloc(2 * e->info.pooled_dim + 1, sizeof *pooled);
    const rung_denoiser_cond c = {.batch = guidance_scale(&j) > 1 ? 2 : 1,
                                  .h = j.h,
                                  .w = j.w,
                                  .n_ctx = CONTEXT_ROWS,
                                  .ctx = ctx,
                                  .pooled = e->info.pooled_dim ? pooled : NULL,
                                  .image_h = (float)(j.h * e->info.factor),
                                  .image_w = (float)(j.w * e->info.factor)};
    size_t bytes = 0;
    if (ctx && pooled && rung_denoiser_begin(e->denoiser, &j.run, &c, NULL) == RUNG_OK)
        bytes = rung_denoiser_run_bytes(j.run);
    rung_denoiser_end(&j.run);
    free(ctx);
    free(pooled);
    return bytes;
}

rung_status rung_image_save(const rung_image *image, const char *path, rung_err *err) {
    return rung_png_write(path, image->pixels, image->width, image->height, image->channels, image->parameters, err);
}

void rung_image_free(rung_image *image) {
    free(image->pixels);
    free(image->latents);
    free(image->embeds);
    free(image->parameters);
    memset(image, 0, sizeof *image);
}
