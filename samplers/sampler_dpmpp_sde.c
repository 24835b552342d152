/* DPM-Solver++ SDE, second order, r = 1/2: k-diffusion's sample_dpmpp_sde with a noise_sampler that draws afresh on
 * every call (two in a step) in place of its Brownian tree. */
#include <math.h>

#include "samplers/sigma_steps.h"

typedef struct {
    float *half, *x0;
} dpmpp_sde;

static rung_status sde_open(rung_sampler *s, rung_err *err) {
    dpmpp_sde *q = sampler_state(s, sizeof *q, err);
    if (!q) return RUNG_ENOMEM;
    q->half = sampler_array(s, err);
    q->x0 = sampler_array(s, err);
    return q->half && q->x0 ? sigma_open_list(s, err) : RUNG_ENOMEM;
}

/* out = the exponential step from sigma to `to` towards x0, with ancestral noise */
static rung_status advance(rung_sampler *s, const sampler_io *io, float sigma, float to, const float *x,
                           const float *x0, float *out) {
    float down, up;
    ancestral_step(sigma, to, sampler_eta(s, 1), &down, &up);
    const float shrink = down / sigma, gain = -expm1f(logf(down) - logf(sigma));
    RUNG_TRY(draw_noise(s, io, s->noise));
    MIX(s, out, 1, {shrink, x}, {gain, x0}, {up, s->noise});
    return RUNG_OK;
}

static rung_status sde_step(rung_sampler *s, int i, float *x, const sampler_io *io) {
    dpmpp_sde *q = s->state;
    const float sigma = s->table.sigma[i], next = s->table.sigma[i + 1];
    RUNG_TRY(denoise_ve(s, io, x, sigma, q->x0, NULL));
    if (next == 0) {
        sigma_euler(s, x, q->x0, sigma, -sigma);
        return RUNG_OK;
    }
    const float middle = expf((logf(sigma) + logf(next)) * 0.5f);
    RUNG_TRY(advance(s, io, sigma, middle, x, q->x0, q->half));
    /* fac = 1 / (2 r) = 1: only the prediction at the middle counts */
    RUNG_TRY(denoise_ve(s, io, q->half, middle, s->pred, NULL));
    return advance(s, io, sigma, next, x, s->pred, x);
}

const sampler_method method_dpmpp_sde = {sde_open, sde_step};
