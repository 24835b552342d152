/* Latent consistency models, Luo et al. 2023, algorithm 3: LCMScheduler.step. */
#include <math.h>

#include "samplers/alpha_steps.h"

static rung_status lcm_step(rung_sampler *s, int i, float *x, const sampler_io *io) {
    const long t = (long)s->table.t[i];
    const float a = alpha_prod_here(s, t);
    const float scaled = (float)t * (float)s->c.timestep_scaling, data = 0.25f; /* sigma_data^2 */
    const float skip = data / (scaled * scaled + data), out = scaled / sqrtf(scaled * scaled + data);
    RUNG_TRY(run_model(s, io, x, (double)t, s->pred, NULL));
    x0_from_vp(s, s->c.prediction, sqrtf(a), sqrtf(1 - a), x, s->pred, s->pred);
    settle_x0(s, s->pred);
    MIX(s, x, 1, {out, s->pred}, {skip, x});
    if ((size_t)i + 1 < s->table.n) {
        const float prev = alpha_prod(s, (long)s->table.t[i + 1]);
        const float root_a = sqrtf(prev), root_b = sqrtf(1 - prev);
        RUNG_TRY(draw_noise(s, io, s->noise));
        MIX(s, x, 1, {root_a, x}, {root_b, s->noise});
    }
    return RUNG_OK;
}

const sampler_method method_lcm = {alpha_open_distilled, lcm_step};
