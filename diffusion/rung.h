/* diffusion/rung.h - the public API: a prompt goes in, pixels come out.
 *
 *     rung_err err = {0};
 *     rung_engine *engine;
 *     if (rung_open(&engine, &(rung_options){.model = "assets/icons"}, &err)) puts(err.msg);
 *     rung_image image;
 *     if (rung_generate(engine, &(rung_request){.prompt = "a red apple", .seed = 42}, 1, &image, &err)) puts(err.msg);
 *     rung_image_save(&image, "apple.png", &err);
 *     rung_image_free(&image);
 *     rung_close(&engine);
 *
 * No globals: any number of engines may live in one process, each used by one thread at a time. Every function that
 * can fail returns a rung_status and leaves one message in the caller's rung_err (zero it before the first call).
 * In the structs zero means "the default" unless a field says otherwise.
 */
#ifndef RUNG_H
#define RUNG_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/err.h"
#include "kernels/base/rng.h"
#include "samplers/sampler.h" /* samplers with a denoiser of your own: rung_sampler_open / step / close */

#ifdef __cplusplus
extern "C" {
#endif

const char *rung_version(void); /* "0.1.0" */

typedef struct rung_engine rung_engine; /* one model, loaded; opaque */

/* A LoRA file (.safetensors) to merge at load, and how strongly. */
typedef struct {
    const char *path;
    float weight;
} rung_lora_option;

typedef struct {
    const char *model;   /* directory in diffusers layout, or one .safetensors in the original ldm layout */
    int threads;         /* 0: one for each processor that the process may use */
    const char *type;    /* what weights are kept as: "f32", "bf16", "f16", "fp6"; NULL: as they are stored */
    const char *backend; /* "cpu" (NULL), "cuda" */
    int device;          /* which GPU, from 0: with "cuda" */
    const rung_lora_option *loras;
    size_t n_loras;
    bool exact;           /* CPU: no Winograd; convolutions sum as they are defined, some three times as long */
    bool no_text_encoder; /* every request brings its embeddings: the text encoder is not loaded */
    /* Several ranks (kernels/base/comm.h), borrowed; NULL: this process alone. Every rank opens and generates alike.
     * tp of them cut the network, cfg = 2 shares out the guidance pair; 0: 1. What is left draws different pictures:
     * groups of tp * cfg ranks, whose first one gets the picture (the others: no pixels). */
    struct rung_comm *comm;
    int tp, cfg;
    double rank_timeout; /* seconds after which GPUs give the others up; 0: 120. Without a GPU it is `comm`'s own */
} rung_options;

/** RUNG_EIO, RUNG_EFORMAT, RUNG_ESHAPE: the model files; RUNG_EARG: the options; RUNG_ENOMEM, RUNG_EDEVICE;
 *  RUNG_EPEER: another rank failed, is silent, or has another version or model. */
rung_status rung_open(rung_engine **out, const rung_options *o, rung_err *err);
void rung_close(rung_engine **e); /* NULL and *e == NULL are fine */

/* What the loaded model is, and what it does when a request leaves a field at zero. */
typedef struct {
    const char *pipeline;                /* "_class_name" of model_index.json */
    size_t width, height, size_multiple; /* pixels: default size; both sides must be multiples of the last */
    size_t latent_channels, factor;      /* latents are f32 [1, latent_channels, height / factor, width / factor] */
    size_t image_channels;               /* 3: RGB, 4: RGBA */
    size_t clear_spots;                  /* RGBA: isolated spots of at most this many pixels are made transparent */
    size_t context_dim;                  /* width of the embeddings */
    size_t pooled_dim;                   /* width of the pooled embeddings that a request has to bring; 0: none */
    int steps;
    float cfg_scale;
    double load_seconds;
} rung_engine_info;
const rung_engine_info *rung_describe(const rung_engine *e);

/* Embeddings that the caller owns: f32 [rows, cols], row-major. data == NULL: not given. */
typedef struct {
    const float *data;
    size_t rows, cols;
} rung_rows;

/** Called after each step. Anything but 0 ends the generation with RUNG_ECANCELLED. */
typedef int rung_progress_fn(void *user, int step, int steps);

typedef struct {
    const char *prompt, *negative_prompt; /* UTF-8; NULL: empty */
    size_t width, height;                 /* pixels; 0: the model's */
    int steps;
    float cfg_scale;        /* 1 or less: no guidance, the conditional alone; 0: the model's default */
    float guidance_rescale; /* phi of Lin et al. 2024, 0 to 1 */
    uint64_t seed;
    rung_rng_kind rng;
    const char *sampler;   /* NULL: the class in the model's scheduler config */
    const char *scheduler; /* "karras", ...; NULL: what the scheduler config says */
    float eta;             /* counts with eta_set; else the sampler's own */
    bool eta_set;
    const float *sigmas; /* a schedule of one's own, falling */
    size_t n_sigmas;
    int clip_skip;      /* 0: the model's; 1: last layer; 2: the one before, ... */
    bool literal;       /* the prompt as it stands: no weights, no chunks */
    bool vae_tiling;    /* always in strips; otherwise only when the picture is large */
    bool last;          /* once this call has taken a step, the engine draws no more (RUNG_EARG): weights of one
                           network at a time are in memory, the VAE's are read again once the denoiser's are
                           gone */
    const float *noise; /* f32 [latent_channels, height / factor, width / factor], standard normal;
                           NULL: drawn from the seed */
    rung_rows embeds, neg_embeds; /* in place of the text encoder's output: f32 [n, context_dim] */
    rung_rows pooled,
        neg_pooled; /* SDXL: f32 [1, pooled_dim]; without neg_pooled, zeros stand for the negative prompt */
    rung_progress_fn *progress;
    void *progress_user;
} rung_request;

typedef struct {
    double encode, denoise, decode; /* seconds of the whole call, which may have made several pictures */
} rung_times;

typedef struct {
    uint8_t *pixels; /* [height, width, channels], 8 bits, straight alpha */
    size_t width, height, channels;
    float *latents; /* f32 [latent_channels, latent_h, latent_w]: final, before the VAE, still scaled */
    size_t latent_channels, latent_h, latent_w;
    float *embeds; /* f32 [embed_rows, context_dim]: what the denoiser saw for the prompt */
    size_t embed_rows, context_dim;
    uint64_t seed;
    char *parameters;    /* the A1111 text that goes into the PNG, UTF-8 */
    const char *sampler; /* the option name of the sampler that ran */
    int steps;           /* sampler steps that ran */
    size_t calls;        /* of the denoiser, one for a guided pair */
    rung_times times;
} rung_image;

/**
 * Makes `count` pictures in one batch into images[0..count-1]. The requests may differ in prompts, embeddings, seed and
 * noise; everything else is taken from the first. A picture does not depend on its neighbours. Small pictures are
 * drawn side by side, each thread its share; `progress` is called by the caller's thread alone.
 * On error every images[i] is empty.
 */
rung_status rung_generate(rung_engine *e, const rung_request *requests, size_t count, rung_image *images,
                          rung_err *err);

/** Checks a request without drawing it, and writes the A1111 text that its picture would carry: malloc'd. */
rung_status rung_parameters(rung_engine *e, const rung_request *r, char **text, rung_err *err);

/** Scratch bytes that one more picture like this adds to a batch, the decoder's apart; 0 for an impossible request. */
size_t rung_request_bytes(rung_engine *e, const rung_request *r);

/** Writes the PNG, with `parameters`, whole or not at all. */
rung_status rung_image_save(const rung_image *image, const char *path, rung_err *err);
void rung_image_free(rung_image *image); /* zeroed and freed images are fine */

#ifdef __cplusplus
}
#endif
#endif
