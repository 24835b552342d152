/* CFG++, Chung et al. 2024: the step renoises with the unconditional prediction. ComfyUI's sample_euler_cfg_pp and
 * sample_euler_ancestral_cfg_pp on a variance-exploding sample. */
#include "samplers/sigma_steps.h"

typedef struct {
    float *x0, *plain; /* guided, unconditional */
} cfg_pp;

static rung_status cfg_pp_open(rung_sampler *s, rung_err *err) {
    cfg_pp *q = sampler_state(s, sizeof *q, err);
    if (!q) return RUNG_ENOMEM;
    q->x0 = sampler_array(s, err);
    q->plain = sampler_array(s, err);
    return q->x0 && q->plain ? sigma_open_list(s, err) : RUNG_ENOMEM;
}

static rung_status step(rung_sampler *s, int i, float *x, const sampler_io *io, float eta) {
    const cfg_pp *q = s->state;
    float down, up;
    const float sigma = s->table.sigma[i], next = s->table.sigma[i + 1];
    RUNG_TRY(denoise_ve(s, io, x, sigma, q->x0, q->plain));
    ancestral_step(sigma, next, eta, &down, &up);
    MIX(s, x, 1, {1, q->x0}, {down / sigma, x}, {-down / sigma, q->plain});
    return next > 0 && eta > 0 ? sigma_add_noise(s, io, x, up) : RUNG_OK;
}

static rung_status euler_step(rung_sampler *s, int i, float *x, const sampler_io *io) { return step(s, i, x, io, 0); }

static rung_status euler_a_step(rung_sampler *s, int i, float *x, const sampler_io *io) {
    return step(s, i, x, io, sampler_eta(s, 1));
}

const sampler_method method_euler_cfg_pp = {cfg_pp_open, euler_step};
const sampler_method method_euler_a_cfg_pp = {cfg_pp_open, euler_a_step};
