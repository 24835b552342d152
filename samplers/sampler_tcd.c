/* Trajectory consistency distillation, Zheng et al. 2024, algorithm 4: TCDScheduler.step. eta is the paper's gamma. */
#include <math.h>

#include "samplers/alpha_steps.h"

static rung_status tcd_open(rung_sampler *s, rung_err *err) {
    if (sampler_eta(s, 0) > 1)
        return rung_fail(err, RUNG_EARG, "sampler tcd: eta is %g, wanted 0 to 1", (double)s->eta);
    s->c.clip_sample = s->c.thresholding = false; /* arguments of the class that its step does not look at */
    RUNG_TRY(alpha_open_distilled(s, err));
    return (s->state = sampler_array(s, err)) ? RUNG_OK : RUNG_ENOMEM; /* the epsilon */
}

static rung_status tcd_step(rung_sampler *s, int i, float *x, const sampler_io *io) {
    const bool last = (size_t)i + 1 == s->table.n;
    const float eta = sampler_eta(s, 0);
    const long t = (long)s->table.t[i], before = last ? 0 : (long)s->table.t[i + 1];
    const long target = (long)floorf((float)(1 - (double)eta) * (float)before);
    const float a = alpha_prod_here(s, t), at = alpha_prod(s, target), prev = alpha_prod(s, before);
    float *eps = s->state;
    RUNG_TRY(run_model(s, io, x, (double)t, s->pred, NULL));
    eps_from_vp(s, s->c.prediction, sqrtf(a), sqrtf(1 - a), x, s->pred, eps);
    x0_from_vp(s, s->c.prediction, sqrtf(a), sqrtf(1 - a), x, s->pred, s->pred);
    const float root_a = sqrtf(at), root_b = sqrtf(1 - at);
    MIX(s, x, 1, {root_a, s->pred}, {root_b, eps});
    if (eta > 0 && !last) {
        const float keep = sqrtf(prev / at), fresh = sqrtf(1 - prev / at);
        RUNG_TRY(draw_noise(s, io, s->noise));
        MIX(s, x, 1, {keep, x}, {fresh, s->noise});
    }
    return RUNG_OK;
}

const sampler_method method_tcd = {tcd_open, tcd_step};
