/* DPM-Solver-2 after Karras et al. 2022: KDPM2DiscreteScheduler and KDPM2AncestralDiscreteScheduler, both halves of
 * each in one step here. */
#include <math.h>

#include "samplers/sigma_steps.h"

static rung_status dpm2_open(rung_sampler *s, rung_err *err) {
    return (s->state = sampler_array(s, err)) ? sigma_open(s, SIGMA_KDPM2, err) : RUNG_ENOMEM; /* the middle point */
}

/* From step i's sigma to `to` through the geometric mean of both; to 0 in one Euler step. */
static rung_status through_middle(rung_sampler *s, int i, float to, float *x, const sampler_io *io) {
    const float sigma = s->table.sigma[i];
    RUNG_TRY(sigma_x0(s, io, x, sigma, s->table.t[i]));
    if (to == 0) {
        sigma_euler(s, x, s->pred, sigma, -sigma);
        return RUNG_OK;
    }
    const float log_sigma = logf(sigma), log_to = logf(to);
    const float middle = expf(log_sigma - (log_sigma - log_to) * 0.5f);
    float *half = s->state;
    const float part = (middle - sigma) / sigma, rest = (to - sigma) / middle;
    MIX(s, half, 1, {1 + part, x}, {-part, s->pred});
    RUNG_TRY(sigma_x0(s, io, half, middle, (float)train_sigma_to_t(&s->train, middle)));
    MIX(s, x, 1, {1, x}, {rest, half}, {-rest, s->pred});
    return RUNG_OK;
}

static rung_status dpm2_step(rung_sampler *s, int i, float *x, const sampler_io *io) {
    return through_middle(s, i, s->table.sigma[i + 1], x, io);
}

static rung_status dpm2_a_step(rung_sampler *s, int i, float *x, const sampler_io *io) {
    const float next = s->table.sigma[i + 1];
    float down, up;
    ancestral_step(s->table.sigma[i], next, sampler_eta(s, 1), &down, &up);
    RUNG_TRY(through_middle(s, i, down, x, io));
    return next > 0 ? sigma_add_noise(s, io, x, up) : RUNG_OK;
}

const sampler_method method_dpm2 = {dpm2_open, dpm2_step}, method_dpm2_a = {dpm2_open, dpm2_a_step};
