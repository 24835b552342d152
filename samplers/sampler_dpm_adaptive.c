/* DPM-Solver-23 with an adaptive step size: k-diffusion's sample_dpm_adaptive with its default order 3, tolerances and
 * controller. The whole run is one step; it asks the denoiser as often as it needs, whatever `steps` says. */
#include <math.h>
#include <string.h>

#include "samplers/dpm_singles.h"
#include "samplers/sigma_steps.h"

static const double rtol = 0.05, atol_ = 0.0078, h_first = 0.05, accept_above = 0.81;

typedef struct {
    dpm_singles q;
    float *low, *high, *before; /* both orders' results; the low one of the last accepted step */
} dpm_adaptive;

static rung_status adaptive_open(rung_sampler *s, rung_err *err) {
    dpm_adaptive *a = sampler_state(s, sizeof *a, err);
    if (!a) return RUNG_ENOMEM;
    RUNG_TRY(dpm_singles_open(s, &a->q, err));
    a->low = sampler_floats(s, s->total, err);
    a->high = sampler_floats(s, s->total, err);
    a->before = sampler_floats(s, s->total, err);
    if (!a->low || !a->high || !a->before) return RUNG_ENOMEM;
    RUNG_TRY(sampler_train(s, true, err));
    RUNG_TRY(sampler_table(s, 1, err));
    s->table.sigma[0] = s->init_sigma = s->train.sigmas[s->train.n - 1];
    s->table.sigma[1] = s->train.sigmas[0];
    s->table.t[0] = (double)(s->train.n - 1);
    return RUNG_OK;
}

/* root mean square of (low - high) / max(atol, rtol * max(|low|, |before|)) */
static double error_of(const dpm_adaptive *a, size_t n) {
    double sum = 0;
    for (size_t k = 0; k < n; k++) {
        const float size = fmaxf(fabsf(a->low[k]), fabsf(a->before[k]));
        const float miss = (a->low[k] - a->high[k]) / fmaxf((float)atol_, (float)rtol * size);
        sum += (double)miss * miss;
    }
    return sqrt(sum / (double)n);
}

/* Both results of one trial step; q->eps is that of x at t. */
static rung_status try_step(rung_sampler *s, const sampler_io *io, const float *x, float t, float stop) {
    dpm_adaptive *a = s->state;
    RUNG_TRY(dpm_inner_1(s, &a->q, io, x, t, stop, 1.0f / 3));
    dpm_finish_2(s, &a->q, x, t, stop, 1.0f / 3, a->low);
    RUNG_TRY(dpm_inner_2(s, &a->q, io, x, t, stop));
    dpm_finish_3(s, &a->q, x, t, stop, a->high);
    return RUNG_OK;
}

static rung_status adaptive_step(rung_sampler *s, int i, float *x, const sampler_io *io) {
    dpm_adaptive *a = s->state;
    const float end = -s->train.log_sigmas[0], eta = sampler_eta(s, 0);
    const double power = 1 / (eta > 0 ? 1.5 : 3.0);
    float t = -s->train.log_sigmas[s->train.n - 1];
    double h = h_first;
    (void)i;
    memcpy(a->before, x, s->total * sizeof(float));
    while (t < end - 1e-5f) {
        const float t_next = fminf(end, t + (float)h);
        float stop, up;
        dpm_ancestral(t, t_next, end, eta, &stop, &up);
        RUNG_TRY(dpm_eps(s, io, x, t, a->q.eps));
        RUNG_TRY(try_step(s, io, x, t, stop));
        const double error = error_of(a, s->total);
        if (!isfinite(error) || t_next == t)
            return rung_fail(io->err, RUNG_EARG, "sampler dpm_adaptive: no step size fits at sigma %g",
                             exp(-(double)t));
        const double factor = 1 + atan(pow(1 / (error + 1e-8), power) - 1);
        h *= factor;
        if (factor < accept_above) continue;
        memcpy(a->before, a->low, s->total * sizeof(float));
        memcpy(x, a->high, s->total * sizeof(float));
        if (eta > 0) RUNG_TRY(sigma_add_noise(s, io, x, up));
        t = t_next;
    }
    return RUNG_OK;
}

const sampler_method method_dpm_adaptive = {adaptive_open, adaptive_step};
