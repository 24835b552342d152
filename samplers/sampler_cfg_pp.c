/* CFG++, Chung et al. 2024: the step renoises with the unconditional prediction. ComfyUI's sample_euler_cfg_pp and
 * sample_euler_ancestral_cfg_pp on a variance-exploding sample. */
#include "samplers/sigma_steps.h"

static rung_status cfg_pp_open(rung_sampler *s, rung_err *err) {
    if (!sampler_state(s, 2 * sizeof(float) * s->total, err)) return RUNG_ENOMEM; /* x0 guided, x0 unconditional */
    return sigma_open_list(s, err);
}

static rung_status step(rung_sampler *s, int i, float *x, const sampler_io *io, float eta) {
    float *x0 = s->state, *plain = x0 + s->total, down, up;
    const float sigma = s->table.sigma[i], next = s->table.sigma[i + 1];
    RUNG_TRY(denoise_ve(s, io, x, sigma, x0, plain));
    ancestral_step(sigma, next, eta, &down, &up);
    for (size_t k = 0; k < s->total; k++) x[k] = x0[k] + down * ((x[k] - plain[k]) / sigma);
    return next > 0 && eta > 0 ? sigma_add_noise(s, io, x, up) : RUNG_OK;
}

static rung_status euler_step(rung_sampler *s, int i, float *x, const sampler_io *io) { return step(s, i, x, io, 0); }

static rung_status euler_a_step(rung_sampler *s, int i, float *x, const sampler_io *io) {
    return step(s, i, x, io, sampler_eta(s, 1));
}

const sampler_method method_euler_cfg_pp = {cfg_pp_open, euler_step};
const sampler_method method_euler_a_cfg_pp = {cfg_pp_open, euler_a_step};
