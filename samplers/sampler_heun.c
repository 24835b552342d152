/* Heun, Karras et al. 2022, algorithm 1: HeunDiscreteScheduler.step, both of its halves in one step here. */
#include "samplers/sigma_steps.h"

typedef struct {
    float *slope; /* at the start of the step */
    float *ahead; /* where Euler goes */
} heun;

static rung_status heun_open(rung_sampler *s, rung_err *err) {
    heun *h = sampler_state(s, sizeof *h, err);
    if (!h) return RUNG_ENOMEM;
    h->slope = sampler_floats(s, s->total, err);
    h->ahead = sampler_floats(s, s->total, err);
    if (!h->slope || !h->ahead) return RUNG_ENOMEM;
    return sigma_open(s, SIGMA_PLAIN, err);
}

static rung_status heun_step(rung_sampler *s, int i, float *x, const sampler_io *io) {
    const heun *h = s->state;
    const float sigma = s->table.sigma[i], next = s->table.sigma[i + 1], dt = next - sigma;
    RUNG_TRY(sigma_x0(s, io, x, sigma, s->table.t[i]));
    settle_x0(s, s->pred);
    for (size_t k = 0; k < s->total; k++) {
        h->slope[k] = (x[k] - s->pred[k]) / sigma;
        h->ahead[k] = x[k] + h->slope[k] * dt;
    }
    if (next == 0) { /* nothing to look at beyond the last sigma */
        for (size_t k = 0; k < s->total; k++) x[k] = h->ahead[k];
        return RUNG_OK;
    }
    const bool inside = (size_t)i + 1 < s->table.n;
    RUNG_TRY(sigma_x0(s, io, h->ahead, next, inside ? s->table.t[i + 1] : (float)train_sigma_to_t(&s->train, next)));
    settle_x0(s, s->pred);
    for (size_t k = 0; k < s->total; k++) {
        const float slope = (h->slope[k] + (h->ahead[k] - s->pred[k]) / next) / 2;
        x[k] += slope * dt;
    }
    return RUNG_OK;
}

const sampler_method method_heun = {heun_open, heun_step};
