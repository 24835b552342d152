/* Euler with ancestral noise: EulerAncestralDiscreteScheduler.step (k-diffusion's sample_euler_ancestral). */
#include "samplers/sigma_steps.h"

static rung_status euler_a_open(rung_sampler *s, rung_err *err) { return sigma_open(s, SIGMA_PLAIN, err); }

static rung_status euler_a_step(rung_sampler *s, int i, float *x, const sampler_io *io) {
    const float sigma = s->table.sigma[i];
    float down, up;
    ancestral_step(sigma, s->table.sigma[i + 1], sampler_eta(s, 1), &down, &up);
    RUNG_TRY(sigma_x0(s, io, x, sigma, s->table.t[i]));
    sigma_euler(s, x, s->pred, sigma, down - sigma);
    return sigma_add_noise(s, io, x, up); /* drawn in the last step too, where it counts 0, as diffusers does */
}

const sampler_method method_euler_a = {euler_a_open, euler_a_step};
