/* DPM-Solver++(2S) with ancestral noise: k-diffusion's sample_dpmpp_2s_ancestral. */
#include <math.h>

#include "samplers/sigma_steps.h"

static rung_status open_2s_a(rung_sampler *s, rung_err *err) {
    if (!sampler_state(s, sizeof(float) * s->total, err)) return RUNG_ENOMEM; /* the middle point */
    return sigma_open_list(s, err);
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
        for (size_t k = 0; k < s->total; k++) half[k] = shrink_half * x[k] + gain_half * s->pred[k];
        RUNG_TRY(denoise_ve(s, io, half, middle, s->pred, NULL));
        for (size_t k = 0; k < s->total; k++) x[k] = shrink * x[k] + gain * s->pred[k];
    }
    return next > 0 ? sigma_add_noise(s, io, x, up) : RUNG_OK;
}

const sampler_method method_dpmpp_2s_a = {open_2s_a, step_2s_a};
