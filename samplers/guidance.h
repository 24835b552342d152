/* samplers/guidance.h - classifier-free guidance. Part of the public API. */
#ifndef RUNG_GUIDANCE_H
#define RUNG_GUIDANCE_H
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * out = uncond + scale * (cond - uncond), and then, with phi > 0, guidance rescale: out moves by phi towards itself
 * scaled to the standard deviation of cond, picture by picture.
 *
 * out, cond, uncond  f32 [batch, n]; out may be either of the others.
 * scale  1 is cond, 0 is uncond. phi  0..1.
 * Source: Ho and Salimans 2022 eq. 6 (with 1 + w = scale); Lin et al. 2024 sec. 3.4, diffusers rescale_noise_cfg.
 */
void rung_guidance(float *out, const float *cond, const float *uncond, float scale, float phi, size_t batch, size_t n);

#ifdef __cplusplus
}
#endif
#endif
