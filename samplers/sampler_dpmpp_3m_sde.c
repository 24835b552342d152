/* DPM-Solver++(3M) SDE: k-diffusion's sample_dpmpp_3m_sde, its noise drawn afresh in every step in place of the
 * Brownian tree. */
#include <math.h>

#include "samplers/sigma_steps.h"

static rung_status open_3m(rung_sampler *s, rung_err *err) {
    ring *r = sampler_state(s, sizeof *r, err);
    if (!r) return RUNG_ENOMEM;
    RUNG_TRY(ring_open(s, r, 3, err));
    return sigma_open_list(s, err);
}

static float log_step(const rung_sampler *s, int i) { return logf(s->table.sigma[i]) - logf(s->table.sigma[i + 1]); }

static rung_status step_3m(rung_sampler *s, int i, float *x, const sampler_io *io) {
    ring *r = s->state;
    const float sigma = s->table.sigma[i], next = s->table.sigma[i + 1], eta = sampler_eta(s, 1);
    float *d0 = ring_push(r);
    const float *d1 = ring_at(r, 1), *d2 = ring_at(r, 2);
    RUNG_TRY(denoise_ve(s, io, x, sigma, d0, NULL));
    if (next == 0) {
        MIX(s, x, 1, {1, d0});
        return RUNG_OK;
    }
    const float h = log_step(s, i), h_eta = h * (eta + 1), shrink = expf(-h_eta), gain = -expm1f(-h_eta);
    const float phi_2 = expm1f(-h_eta) / h_eta + 1, phi_3 = phi_2 / h_eta - 0.5f;
    const float r0 = i > 0 ? log_step(s, i - 1) / h : 1, r1 = i > 1 ? log_step(s, i - 2) / h : 1;
    /* slopes: near = (d0 - d1) / r0, far = (d1 - d2) / r1; bend (near - far) is added from the third step on */
    const float bend = i > 1 ? (phi_2 * r0 - phi_3) / (r0 + r1) : 0;
    const float near = i > 0 ? (phi_2 + bend) / r0 : 0, far = bend / r1;
    if (i > 1)
        MIX(s, x, 1, {shrink, x}, {gain + near, d0}, {-near - far, d1}, {far, d2});
    else if (i == 1)
        MIX(s, x, 1, {shrink, x}, {gain + near, d0}, {-near, d1});
    else
        MIX(s, x, 1, {shrink, x}, {gain, d0});
    return eta > 0 ? sigma_add_noise(s, io, x, next * sqrtf(-expm1f(-2 * h * eta))) : RUNG_OK;
}

const sampler_method method_dpmpp_3m_sde = {open_3m, step_3m};
