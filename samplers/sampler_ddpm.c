/* DDPM, Ho et al. 2020, eq. 7: DDPMScheduler.step. */
#include <math.h>

#include "samplers/alpha_steps.h"

static float variance(const rung_sampler *s, float a, float prev) {
    const float beta = 1 - a / prev;
    const float small = fmaxf((1 - prev) / (1 - a) * beta, 1e-20f);
    return s->c.variance_type == VARIANCE_LARGE ? beta : small;
}

static rung_status ddpm_open(rung_sampler *s, rung_err *err) {
    s->c.set_alpha_to_one = true; /* before the first timestep there is no noise, whatever the config says */
    return alpha_open(s, err);
}

static rung_status ddpm_step(rung_sampler *s, int i, float *x, const sampler_io *io) {
    const long t = (long)s->table.t[i];
    const long before = (size_t)i + 1 < s->table.n ? (long)s->table.t[i + 1] : -1;
    const float a = alpha_prod_here(s, t), prev = alpha_prod(s, before);
    const float b = 1 - a, ratio = a / prev, beta = 1 - ratio;
    RUNG_TRY(run_model(s, io, x, (double)t, s->pred, NULL));
    x0_from_vp(s, s->c.prediction, sqrtf(a), sqrtf(b), x, s->pred, s->pred);
    settle_x0(s, s->pred);
    const float from_x0 = sqrtf(prev) * beta / b, from_x = sqrtf(ratio) * (1 - prev) / b;
    if (t > 0) {
        RUNG_TRY(draw_noise(s, io, s->noise));
        MIX(s, x, 1, {from_x0, s->pred}, {from_x, x}, {sqrtf(variance(s, a, prev)), s->noise});
    } else {
        MIX(s, x, 1, {from_x0, s->pred}, {from_x, x});
    }
    return RUNG_OK;
}

const sampler_method method_ddpm = {ddpm_open, ddpm_step};
