#include "samplers/alpha_steps.h"

#include <math.h>

float alpha_prod(const rung_sampler *s, long t) {
    if (t >= 0) return s->train.alphas_cumprod[t];
    return s->c.set_alpha_to_one ? 1 : s->train.alphas_cumprod[0];
}

float alpha_prod_here(const rung_sampler *s, long t) { return alpha_prod(s, t < 0 ? t + (long)s->train.n : t); }

long alpha_stride(const rung_sampler *s) { return s->c.num_train_timesteps / (long)s->steps; }

rung_status alpha_check(const rung_sampler *s, rung_err *err) {
    for (size_t i = 0; i < s->table.n; i++) {
        const double t = s->table.t[i];
        if (t >= (double)s->train.n)
            return rung_fail(err, RUNG_EARG, "sampler %s: timestep %g of step %zu is past the %zu trained ones",
                             s->entry->row.name, t, i, s->train.n);
        const bool bounded = s->c.clip_sample && !s->c.thresholding; /* then x / 0 becomes a number again */
        if (alpha_prod_here(s, (long)t) == 0 && s->c.prediction == PREDICTS_EPSILON && !bounded)
            return rung_fail(err, RUNG_EARG,
                             "sampler %s: at timestep %g nothing is left of the picture (zero terminal SNR), and a "
                             "model that predicts epsilon cannot start there",
                             s->entry->row.name, t);
    }
    return RUNG_OK;
}

static rung_status check_steps(const rung_sampler *s, long most, const char *what, rung_err *err) {
    if (s->steps <= (size_t)most) return RUNG_OK;
    return rung_fail(err, RUNG_EARG, "sampler %s: %zu steps, the model has %ld %s", s->entry->row.name, s->steps, most,
                     what);
}

rung_status alpha_open(rung_sampler *s, rung_err *err) {
    RUNG_TRY(check_steps(s, s->c.num_train_timesteps, "training timesteps", err));
    RUNG_TRY(sampler_train(s, false, err));
    RUNG_TRY(sampler_table(s, s->steps, err));
    s->table.n = spaced_timesteps(&s->c, s->steps, true, s->table.t);
    s->init_sigma = 1;
    return alpha_check(s, err);
}

rung_status alpha_open_distilled(rung_sampler *s, rung_err *err) {
    const long original = s->c.original_inference_steps;
    RUNG_TRY(check_steps(s, original, "original_inference_steps", err));
    if (original > s->c.num_train_timesteps)
        return rung_fail(err, RUNG_EFORMAT, "scheduler_config.json: original_inference_steps %ld of %ld timesteps",
                         original, s->c.num_train_timesteps);
    RUNG_TRY(sampler_train(s, false, err));
    RUNG_TRY(sampler_table(s, s->steps, err));
    const long stride = s->c.num_train_timesteps / original;
    const double skip = (double)original / (double)s->steps;
    for (size_t i = 0; i < s->steps; i++)
        s->table.t[i] = (double)((original - (long)floor((double)i * skip)) * stride - 1);
    s->init_sigma = 1;
    return alpha_check(s, err);
}
