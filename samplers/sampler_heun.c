/* Heun, Karras et al. 2022, algorithm 1: HeunDiscreteScheduler.step, both of its halves in one step here. */
#include "samplers/sigma_steps.h"

typedef struct {
    float *slope; /* at the start of the step */
    float *ahead; /* where Euler goes */
} heun;

static rung_status heun_open(rung_sampler *s, rung_err *err) {
    heun *h = sampler_state(s, sizeof *h, err);
    if (!h) return RUNG_ENOMEM;
    h->slope = sampler_array(s, err);
    h->ahead = sampler_array(s, err);
    if (!h->slope || !h->ahead) return RUNG_ENOMEM;
    return sigma_open(s, SIGMA_PLAIN, err);
}

static rung_status heun_step(rung_sampler *s, int i, float *x, const sampler_io *io) {
    const heun *h = s->state;
    const float sigma = s->table.sigma[i], next = s->table.sigma[i + 1], dt = next - sigma;
    RUNG_TRY(sigma_x0(s, io, x, sigma, s->table.t[i]));
    settle_x0(s, s->pred);
    MIX(s, h->slope, sigma, {1, x}, {-1, s->pred});
    MIX(s, h->ahead, 1, {1, x}, {dt, h->slope});
    if (next == 0) { /* nothing to look at beyond the last sigma */
        MIX(s, x, 1, {1, h->ahead});
        return RUNG_OK;
    }
    const bool inside = (size_t)i + 1 < s->table.n;
    RUNG_TRY(sigma_x0(s, io, h->ahead, next, inside ? s->table.t[i + 1] : (float)train_sigma_to_t(&s->train, next)));
    settle_x0(s, s->pred);
    const float half = dt / 2, far = half / next;
    MIX(s, x, 1, {1, x}, {half, h->slope}, {far, h->ahead}, {-far, s->pred});
    return RUNG_OK;
}

const sampler_method method_heun = {heun_open, heun_step};
