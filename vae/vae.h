/* vae/vae.h - latents -> image. */
#ifndef RUNG_VAE_H
#define RUNG_VAE_H
#include "assets/model.h"
#include "kernels/backend.h"

typedef struct rung_vae rung_vae; /* AutoencoderKL's or AutoencoderTiny's decoder */

typedef struct {
    size_t latent_channels, image_channels; /* 3: RGB; 4: premultiplied RGB and alpha */
    size_t factor;                          /* pixels per latent cell and side */
    float scaling_factor, shift_factor;     /* decode reads latents / scaling_factor + shift_factor, or
                                            latents * latents_std / scaling_factor + latents_mean */
} rung_vae_info;

/** The model's "vae": AutoencoderKL or AutoencoderTiny. Encoder weights may be there and are left alone. A config that
 *  asks for what is not built is refused by its key. RUNG_EFORMAT, RUNG_ESHAPE, RUNG_ENOMEM. `be` is borrowed. */
rung_status rung_vae_open(rung_vae **out, rung_model *m, rung_backend *be, rung_store store, rung_err *err);
void rung_vae_close(rung_vae **v);
/** A second rung_vae over the layers of `of`, with scratch of its own, so that two threads can decode at once (whole
 *  pictures: strips share the layers' statistics). `be`: another CPU backend of the same features. `of` outlives it. */
rung_status rung_vae_share(rung_vae **out, const rung_vae *of, rung_backend *be, rung_err *err);
const rung_vae_info *rung_vae_describe(const rung_vae *v);

/* ON saves memory: all levels but the smallest are computed in strips of rows, with the norms' statistics taken over
 * the whole picture first. The image is OFF's to rounding (measured 2e-6 relative), so there are no seams. AUTO takes
 * as many levels in strips as it needs to stay below 1 GiB of scratch (rung_vae_limit_scratch), the largest first; none
 * when all fits. Scratch in SD's geometry, off / on: 512x512 512 / 165 MiB, 768x768 1152 / 350, 1024x1024 2048 / 601;
 * about twice the time. What stays is the residual stream of the largest level: no strip can do without it. */
typedef enum { RUNG_TILING_AUTO, RUNG_TILING_OFF, RUNG_TILING_ON } rung_tiling;

/**
 * image f32 [h * factor, w * factor, image_channels], about [-1, 1], not clamped; written.
 * latents f32 [h, w, latent_channels], as the sampler leaves them: scaled. Host memory both, not overlapping.
 * Scratch is kept for the next call of the same size: one rung_vae is for one thread at a time.
 * RUNG_ESHAPE, RUNG_ENOMEM, RUNG_EDEVICE. Checked against diffusers AutoencoderKL.decode, AutoencoderTiny.decode.
 */
rung_status rung_vae_decode(rung_vae *v, float *image, const float *latents, size_t h, size_t w, rung_tiling tiling,
                            rung_err *err);

/** Scratch bytes that a decode of this size takes: a dry run. 0 for sizes that are refused. */
size_t rung_vae_scratch(rung_vae *v, size_t h, size_t w, rung_tiling tiling);

/** What AUTO stays below where strips can; 1 GiB unless set. */
void rung_vae_limit_scratch(rung_vae *v, size_t bytes);
#endif
