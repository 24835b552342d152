#include "samplers/sigma_steps.h"

#include <math.h>

static void set_initial(rung_sampler *s) {
    float top = 0;
    for (size_t i = 0; i <= s->table.n; i++) top = fmaxf(top, s->table.sigma[i]);
    s->init_sigma = s->c.timestep_spacing == SPACED_LEADING ? sqrtf(top * top + 1) : top;
}

rung_status sigma_open(rung_sampler *s, sigma_table_form form, rung_err *err) {
    RUNG_TRY(sampler_train(s, true, err));
    if (s->c.timestep_spacing == SPACED_LEADING && s->steps > s->train.n)
        return rung_fail(err, RUNG_EARG, "sampler %s: %zu steps, the model has %zu training timesteps",
                         s->entry->row.name, s->steps, s->train.n);
    if (s->schedule != SCHEDULE_DEFAULT) { /* a list; what the config has flags for is in the config by now */
        RUNG_TRY(sampler_list(s, err));
        for (size_t i = 0; i < s->table.n; i++) {
            if (s->c.continuous && s->c.prediction == PREDICTS_V) s->table.t[i] = 0.25f * logf(s->table.sigma[i]);
        }
    } else {
        RUNG_TRY(sampler_table(s, s->steps, err));
        const timetable_ask ask = {.c = &s->c, .train = &s->train, .steps = s->steps};
        timetable_sigma(&s->table, &ask, form == SIGMA_LMS, form == SIGMA_KDPM2);
    }
    set_initial(s);
    return RUNG_OK;
}

rung_status sigma_open_list(rung_sampler *s, rung_err *err) {
    RUNG_TRY(sampler_train(s, true, err));
    if (s->schedule == SCHEDULE_DEFAULT) {
        if (s->c.use_karras_sigmas) s->schedule = SCHEDULE_KARRAS;
        if (s->c.use_exponential_sigmas) s->schedule = SCHEDULE_EXPONENTIAL;
        if (s->c.use_beta_sigmas) s->schedule = SCHEDULE_BETA;
    }
    RUNG_TRY(sampler_list(s, err));
    s->init_sigma = s->table.sigma[0];
    return RUNG_OK;
}

rung_status sigma_x0(rung_sampler *s, const sampler_io *io, const float *x, float sigma, double t) {
    RUNG_TRY(run_model_ve(s, io, x, sigma, t, s->pred, NULL));
    x0_from_ve(s, s->c.prediction, sigma, x, s->pred, s->pred);
    return RUNG_OK;
}

void sigma_euler(const rung_sampler *s, float *x, const float *x0, float sigma, float dt) {
    const float part = dt / sigma;
    MIX(s, x, 1, {1 + part, x}, {-part, x0});
}

rung_status sigma_add_noise(rung_sampler *s, const sampler_io *io, float *x, float scale) {
    RUNG_TRY(draw_noise(s, io, s->noise));
    MIX(s, x, 1, {1, x}, {scale, s->noise});
    return RUNG_OK;
}
