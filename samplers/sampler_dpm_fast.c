/* DPM-Solver-fast, Lu et al. 2022: k-diffusion's sample_dpm_fast. `steps` counts denoiser calls: groups of three are
 * spent on third-order steps that are even in log sigma. */
#include <math.h>

#include "samplers/dpm_singles.h"
#include "samplers/sigma_steps.h"

typedef struct {
    dpm_singles q;
    float t_end;
} dpm_fast;

static rung_status fast_open(rung_sampler *s, rung_err *err) {
    dpm_fast *f = sampler_state(s, sizeof *f, err);
    if (!f) return RUNG_ENOMEM;
    RUNG_TRY(dpm_singles_open(s, &f->q, err));
    RUNG_TRY(sampler_train(s, true, err));
    /* m intervals; the orders are 3, 3, .., and at the end what is left of the calls */
    const size_t m = s->steps / 3 + 1;
    RUNG_TRY(sampler_table(s, m, err));
    const float start = -s->train.log_sigmas[s->train.n - 1];
    f->t_end = -s->train.log_sigmas[0];
    for (size_t i = 0; i <= m; i++) s->table.sigma[i] = expf(-linspace_f32(start, f->t_end, m + 1, i));
    for (size_t i = 0; i < m; i++) s->table.t[i] = (float)train_sigma_to_t(&s->train, s->table.sigma[i]);
    s->init_sigma = s->table.sigma[0];
    return RUNG_OK;
}

static int order_at(const rung_sampler *s, int i) {
    const int left = (int)s->table.n - i, rest = (int)(s->steps % 3);
    if (rest == 0) return left > 2 ? 3 : left; /* .., 3, 2, 1 */
    return left > 1 ? 3 : rest;
}

static rung_status fast_step(rung_sampler *s, int i, float *x, const sampler_io *io) {
    dpm_fast *f = s->state;
    dpm_singles *q = &f->q;
    const float start = -s->train.log_sigmas[s->train.n - 1], eta = sampler_eta(s, 0);
    const float t = linspace_f32(start, f->t_end, s->table.n + 1, (size_t)i);
    const float t_next = linspace_f32(start, f->t_end, s->table.n + 1, (size_t)i + 1);
    const int order = order_at(s, i);
    float stop, up;
    dpm_ancestral(t, t_next, f->t_end, eta, &stop, &up);
    RUNG_TRY(dpm_eps(s, io, x, t, q->eps));
    if (order == 1) {
        dpm_finish_1(s, q, x, t, stop, x);
    } else if (order == 2) {
        RUNG_TRY(dpm_inner_1(s, q, io, x, t, stop, 0.5f));
        dpm_finish_2(s, q, x, t, stop, 0.5f, x);
    } else {
        RUNG_TRY(dpm_inner_1(s, q, io, x, t, stop, 1.0f / 3));
        RUNG_TRY(dpm_inner_2(s, q, io, x, t, stop));
        dpm_finish_3(s, q, x, t, stop, x);
    }
    return eta > 0 ? sigma_add_noise(s, io, x, up) : RUNG_OK;
}

const sampler_method method_dpm_fast = {fast_open, fast_step};
