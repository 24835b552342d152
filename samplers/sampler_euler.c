/* Euler, Karras et al. 2022, algorithm 2 without churn: EulerDiscreteScheduler.step. */
#include "samplers/sigma_steps.h"

static rung_status euler_open(rung_sampler *s, rung_err *err) { return sigma_open(s, SIGMA_PLAIN, err); }

static rung_status euler_step(rung_sampler *s, int i, float *x, const sampler_io *io) {
    const float sigma = s->table.sigma[i];
    RUNG_TRY(sigma_x0(s, io, x, sigma, s->table.t[i]));
    sigma_euler(s, x, s->pred, sigma, s->table.sigma[i + 1] - sigma);
    return RUNG_OK;
}

const sampler_method method_euler = {euler_open, euler_step};
