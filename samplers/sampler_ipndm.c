/* Improved PNDM, Zhang and Chen 2022: IPNDMScheduler, on its own cosine path and with timesteps in 0..1. */
#include <math.h>

#include "samplers/method.h"

typedef struct {
    ring eps;
    float *mixed;
    float *alpha, *beta; /* [table.n + 1] */
} ipndm;

static rung_status ipndm_open(rung_sampler *s, rung_err *err) {
    const float pi = 3.14159265358979323846f;
    const size_t n = s->steps;
    if (s->c.trained_betas && s->c.n_trained != n + 1)
        return rung_fail(err, RUNG_EFORMAT,
                         "scheduler_config.json: ipndm takes one more of trained_betas than steps: "
                         "%zu for %zu steps",
                         s->c.n_trained, n);
    ipndm *p = sampler_state(s, sizeof *p, err);
    if (!p) return RUNG_ENOMEM;
    RUNG_TRY(ring_open(s, &p->eps, 4, err));
    p->mixed = sampler_array(s, err);
    p->alpha = sampler_floats(s, n + 1, err);
    p->beta = sampler_floats(s, n + 1, err);
    if (!p->mixed || !p->alpha || !p->beta) return RUNG_ENOMEM;
    RUNG_TRY(sampler_table(s, n, err));
    for (size_t i = 0; i <= n; i++) {
        const float wave = sinf(linspace_f32(1, 0, n + 1, i) * pi / 2);
        p->beta[i] = s->c.trained_betas ? s->c.trained_betas[i] : wave * wave;
        p->alpha[i] = sqrtf(1 - p->beta[i] * p->beta[i]);
        s->table.t[i] = atan2f(p->beta[i], p->alpha[i]) / pi * 2;
    }
    s->init_sigma = 1;
    return RUNG_OK;
}

static rung_status ipndm_step(rung_sampler *s, int i, float *x, const sampler_io *io) {
    ipndm *p = s->state;
    const float alpha = p->alpha[i], beta = p->beta[i];
    RUNG_TRY(run_model(s, io, x, s->table.t[i], s->pred, NULL));
    float *newest = ring_push(&p->eps);
    MIX(s, newest, 1, {beta, x}, {alpha, s->pred});
    adams_bashforth(s, &p->eps, p->mixed);
    MIX(s, x, fmaxf(alpha, 1e-8f), {1, x}, {-beta, p->mixed}); /* x0 */
    MIX(s, x, 1, {p->alpha[i + 1], x}, {p->beta[i + 1], p->mixed});
    return RUNG_OK;
}

const sampler_method method_ipndm = {ipndm_open, ipndm_step};
