/* vae/vae.h - latents -> image. */
#ifndef RUNG_VAE_H
#define RUNG_VAE_H
#include "assets/model.h"
#include "kernels/backend.h"

typedef struct rung_vae rung_vae; /* AutoencoderKL's or AutoencoderTiny's decoder */

typedef struct {
    size_t latent_channels, image_channels; /* 3: RGB; 4: premultiplied RGB and alpha */
    size_t factor;                          /* pixels per latent cell and side */
    float scaling_factor, shift_factor;     /* decode reads latents / scaling_factor + shift_factor */
} rung_vae_info;

/** The model's "vae". Encoder weights may be there and are left alone. RUNG_EFORMAT, RUNG_ESHAPE, RUNG_ENOMEM. */
rung_status rung_vae_open(rung_vae **out, rung_model *m, rung_backend *be, rung_store store, rung_err *err);
void rung_vae_close(rung_vae **v);
const rung_vae_info *rung_vae_describe(const rung_vae *v);

typedef enum { RUNG_TILING_AUTO, RUNG_TILING_OFF, RUNG_TILING_ON } rung_tiling;

/**
 * image f32 [h * factor, w * factor, image_channels], about [-1, 1], not clamped; written.
 * latents f32 [h, w, latent_channels], as the sampler leaves them: scaled.
 * Tiles overlap and are blended; AUTO tiles when the untiled scratch would pass 1 GiB.
 * RUNG_ESHAPE, RUNG_ENOMEM, RUNG_EDEVICE. Checked against diffusers AutoencoderKL.decode, AutoencoderTiny.decode.
 */
rung_status rung_vae_decode(rung_vae *v, float *image, const float *latents, size_t h, size_t w, rung_tiling tiling,
                            rung_err *err);
#endif
