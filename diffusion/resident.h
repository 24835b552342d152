/* diffusion/resident.h - a picture's latents in a device's memory from the first noise to the last step: noise, the
 * network, guidance and the sampler's updates happen there. Internal to diffusion/. */
#ifndef RUNG_RESIDENT_H
#define RUNG_RESIDENT_H
#include "kernels/backend.h"
#include "kernels/base/rng.h"
#include "unet/denoiser.h"

typedef struct {
    rung_backend *be; /* NULL: not in use */
    rung_denoiser_run *run;
    size_t count, nets, channels, pixels; /* pictures; network inputs: count, or 2 * count, unconditional first */
    float scale;                          /* of guidance, where nets is 2 * count */
    float *time;                          /* host [nets] */
    rung_rng *rng;                        /* host [count] */
    float *staging;                       /* host [channels * pixels] */
    float *latents;                       /* [count, channels, pixels], as the sampler has them */
    float *in, *out;                      /* [nets, pixels, channels] */
} resident;

/** Memory on r->be, from its sizes. RUNG_ENOMEM. */
rung_status resident_open(resident *r, rung_err *err);
void resident_close(resident *r); /* also one that was never opened */

/** r->latents of one picture: `given` f32 [channels, pixels], or the generator's first numbers, times sigma. */
void resident_start(resident *r, size_t picture, const float *given, float sigma);

/** rung_denoise_fn and rung_noise_fn with a resident as their user. */
rung_status resident_denoise(void *user, float *out, float *uncond, const float *x, float t, rung_err *err);
void resident_noise(void *user, size_t picture, float *out, size_t n);

/** The latents, f32 [count, channels, pixels], back to the host. */
rung_status resident_finish(resident *r, float *latents, rung_err *err);
#endif
