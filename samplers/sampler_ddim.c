/* DDIM, Song et al. 2021, eq. 12 and 16: DDIMScheduler.step. */
#include <math.h>

#include "samplers/alpha_steps.h"

static rung_status ddim_open(rung_sampler *s, rung_err *err) {
    if (sampler_eta(s, 0) > 1)
        return rung_fail(err, RUNG_EARG, "sampler ddim: eta is %g, wanted 0 to 1", (double)s->eta);
    RUNG_TRY(alpha_open(s, err));
    return (s->state = sampler_array(s, err)) ? RUNG_OK : RUNG_ENOMEM; /* the epsilon */
}

static rung_status ddim_step(rung_sampler *s, int i, float *x, const sampler_io *io) {
    const long t = (long)s->table.t[i];
    const float a = alpha_prod_here(s, t), prev = alpha_prod(s, t - alpha_stride(s));
    const float root_a = sqrtf(a), root_b = sqrtf(1 - a);
    float *eps = s->state;
    RUNG_TRY(run_model(s, io, x, (double)t, s->pred, NULL));
    eps_from_vp(s, s->c.prediction, root_a, root_b, x, s->pred, eps); /* before clipping, as diffusers */
    x0_from_vp(s, s->c.prediction, root_a, root_b, x, s->pred, s->pred);
    settle_x0(s, s->pred);

    const float eta = sampler_eta(s, 0);
    const float std = eta * sqrtf((1 - prev) / (1 - a) * (1 - a / prev));
    const float along = sqrtf(1 - prev - std * std), root_prev = sqrtf(prev);
    if (eta > 0) {
        RUNG_TRY(draw_noise(s, io, s->noise));
        MIX(s, x, 1, {root_prev, s->pred}, {along, eps}, {std, s->noise});
    } else {
        MIX(s, x, 1, {root_prev, s->pred}, {along, eps});
    }
    return RUNG_OK;
}

const sampler_method method_ddim = {ddim_open, ddim_step};
