/* DPM-Solver++(2S) with ancestral noise: k-diffusion's sample_dpmpp_2s_ancestral. */
#include <math.h>

#include "samplers/sigma_steps.h"

static rung_status open_2s_a(rung_sampler *s, rung_err *err) {
    return (s->state = sampler_array(s, err)) ? sigma_open_list(s, err) : RUNG_ENOMEM; /* the middle point */
}

static rung_status step_2s_a(rung_sampler *s, int i, float *x, const sampler_io *io) {
    const float sigma = s->table.sigma[i], next = s->table.sigma[i + 1];
    float down, up, *half = s->state;
    ancestral_step(sigma, next, sampler_eta(s, 1), &down, &up);
    RUNG_TRY(denoise_ve(s, io, x, sigma, s->pred, NULL));
    if (down == 0) {
        sigma_euler(s, x, s->pred, sigma, -sigma);
    } else {
        const float t = -logf(sigma), h = -logf(down) - t, middle = expf(-(t + 0.5f * h));
        const float shrink_half = middle / sigma, gain_half = -expm1f(-h * 0.5f);
        const float shrink = down / sigma, gain = -expm1f(-h);
        MIX(s, half, 1, {shrink_half, x}, {gain_half, s->pred});
        RUNG_TRY(denoise_ve(s, io, half, middle, s->pred, NULL));
        MIX(s, x, 1, {shrink, x}, {gain, s->pred});
    }
    return next > 0 ? sigma_add_noise(s, io, x, up) : RUNG_OK;
}

const sampler_method method_dpmpp_2s_a = {open_2s_a, step_2s_a};
