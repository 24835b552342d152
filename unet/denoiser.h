/* unet/denoiser.h - latents, timestep, embeddings -> prediction: one interface over the U-Net and the transformers. */
#ifndef RUNG_DENOISER_H
#define RUNG_DENOISER_H
#include "assets/model.h"
#include "kernels/backend.h"

typedef struct rung_denoiser rung_denoiser;         /* a network over its packed weights: read-only once open */
typedef struct rung_denoiser_run rung_denoiser_run; /* one picture size and one set of prompts: scratch and K/V */

typedef struct {
    size_t in_channels, out_channels; /* of a step's x and out; a learned variance is cut off and not counted */
    size_t sample_size;               /* the latent side it was trained at; 0 unknown */
    size_t context_dim;               /* width of the embeddings that it wants */
    size_t pooled_dim;                /* width of the pooled embeddings that it wants as well (SDXL); 0: none */
    size_t size_multiple;             /* h and w must be multiples of this: patch size; 1 for a U-Net */
} rung_denoiser_info;

/** The model's "unet" or "transformer". RUNG_EFORMAT also for a config that asks for what is not built yet: named. */
rung_status rung_denoiser_open(rung_denoiser **out, rung_model *m, rung_backend *be, rung_store store, rung_err *err);

/** The same over the ranks of `comm`, which is borrowed and on which every rank opens, begins and steps alike; NULL:
 * one rank. Heads, feed-forward columns and the channels between two convolutions are shared out, and a rank reads its
 *  share of these weights only; what has fewer heads (or groups) than there are ranks, every rank computes whole. */
rung_status rung_denoiser_open_part(rung_denoiser **out, rung_model *m, rung_backend *be, rung_store store,
                                    rung_comm *comm, rung_err *err);

/** What ranks compare before the first step: config and weights (rung_weights_hash). */
uint64_t rung_denoiser_hash(const rung_denoiser *d);
void rung_denoiser_close(rung_denoiser **d);
const rung_denoiser_info *rung_denoiser_describe(const rung_denoiser *d);

/* The condition of a run, kept only during rung_denoiser_begin. */
typedef struct {
    size_t batch;              /* pictures in one call: 2 for a guidance pair */
    size_t h, w;               /* latent cells */
    size_t n_ctx;              /* rows of embeddings for each picture */
    const float *ctx;          /* f32 [batch, n_ctx, context_dim] */
    const unsigned char *mask; /* [batch, n_ctx], 1 real, 0 padding: -10000 on its scores; NULL: all real */
    const float *pooled;       /* f32 [batch, pooled_dim]; NULL where pooled_dim is 0 */
    rung_backend *be;          /* what computes: another CPU backend of the same features; NULL: the denoiser's own */
    float image_h, image_w;    /* pixels: a condition of PixArt (sometimes) and of SDXL (no crop); else not read */
} rung_denoiser_cond;

/** Everything that is constant over the steps, once: cross-attention K/V, position embeddings, the arena.
 *  RUNG_ESHAPE (what was found and wanted), RUNG_EARG (pooled embeddings or a picture's size are missing),
 *  RUNG_ENOMEM. */
rung_status rung_denoiser_begin(rung_denoiser *d, rung_denoiser_run **out, const rung_denoiser_cond *c, rung_err *err);
void rung_denoiser_end(rung_denoiser_run **r);
size_t rung_denoiser_run_bytes(const rung_denoiser_run *r);

/**
 * One step. out, x: f32 [batch, h, w, channels], host memory, not overlapping. t: f32 [batch], training timesteps
 * (fractions allowed), not sigma. Runs of one denoiser may work in different threads.
 * Checked against diffusers UNet2DConditionModel.forward, PixArtTransformer2DModel.forward; the ladder against
 * tools/train/model.py.
 */
rung_status rung_denoiser_step(rung_denoiser_run *r, float *out, const float *x, const float *t, rung_err *err);

/** The same with out and x in the memory of the backend that computes; t is the host's all the same. */
rung_status rung_denoiser_step_resident(rung_denoiser_run *r, float *out, const float *x, const float *t,
                                        rung_err *err);
#endif
