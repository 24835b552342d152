/* Consistency models, Song et al. 2023, algorithm 1: CMStochasticIterativeScheduler. */
#include <math.h>

#include "samplers/method.h"

static rung_status cm_open(rung_sampler *s, rung_err *err) {
    const size_t trained = (size_t)s->c.num_train_timesteps;
    if (s->steps > trained)
        return rung_fail(err, RUNG_EARG, "sampler cm: %zu steps, the model has %zu", s->steps, trained);
    if (!(s->c.sigma_max > s->c.sigma_min))
        return rung_fail(err, RUNG_EFORMAT, "scheduler_config.json: sigma_max %g is not above sigma_min %g",
                         s->c.sigma_max, s->c.sigma_min);
    RUNG_TRY(sampler_table(s, s->steps, err));
    const double hi = pow(s->c.sigma_max, 1 / s->c.rho), lo = pow(s->c.sigma_min, 1 / s->c.rho);
    for (size_t i = 0; i < s->steps; i++) {
        const double ramp = (double)(i * (trained / s->steps)) / (double)(trained - 1);
        const double sigma = pow(hi + ramp * (lo - hi), s->c.rho);
        s->table.sigma[i] = (float)sigma;
        s->table.t[i] = 250 * log(sigma);
    }
    s->table.sigma[s->steps] = (float)s->c.sigma_min;
    s->init_sigma = (float)s->c.sigma_max;
    return RUNG_OK;
}

static rung_status cm_step(rung_sampler *s, int i, float *x, const sampler_io *io) {
    const float sigma = s->table.sigma[i], data2 = (float)(s->c.sigma_data * s->c.sigma_data);
    const float least = (float)s->c.sigma_min, above = sigma - least, root = sqrtf(sigma * sigma + data2);
    const float skip = data2 / (above * above + data2), out = above * (float)s->c.sigma_data / root;
    MIX(s, s->scaled, root, {1, x});
    RUNG_TRY(run_model(s, io, s->scaled, s->table.t[i], s->pred, NULL));
    MIX(s, x, 1, {out, s->pred}, {skip, x});
    if (s->c.clip_denoised) { /* then x is the host's */
        for (size_t k = 0; k < s->total; k++) x[k] = x[k] < -1 ? -1 : x[k] > 1 ? 1 : x[k];
    }
    if (s->table.n == 1) return RUNG_OK;
    const float next = fminf(fmaxf(s->table.sigma[i + 1], least), (float)s->c.sigma_max);
    const float left = next * next - (float)(s->c.sigma_min * s->c.sigma_min), scale = sqrtf(fmaxf(left, 0));
    RUNG_TRY(draw_noise(s, io, s->noise));
    MIX(s, x, 1, {1, x}, {(float)s->c.s_noise * scale, s->noise});
    return RUNG_OK;
}

const sampler_method method_cm = {cm_open, cm_step};
