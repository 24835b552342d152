/* DEIS in log rho, Zhang and Chen 2023: DEISMultistepScheduler. Polynomials in log rho, rho = sigma / alpha, are
 * integrated over the step. */
#include "samplers/lambda_steps.h"

static rung_status deis_open(rung_sampler *s, rung_err *err) {
    ring *r = sampler_state(s, sizeof *r, err);
    if (!r) return RUNG_ENOMEM;
    RUNG_TRY(ring_open(s, r, (int)s->c.solver_order, err));
    return lambda_open(s, END_REPEATS_LAST, false, err);
}

/* The antiderivative at t of the Lagrange polynomial that is 1 at b and 0 at c */
static float line(float t, float b, float c) {
    return t * (-numpy_log_f32(c) + numpy_log_f32(t) - 1) / (numpy_log_f32(b) - numpy_log_f32(c));
}

/* The same for 1 at b, 0 at c and d */
static float parabola(float t, float b, float c, float d) {
    const float lt = numpy_log_f32(t), lb = numpy_log_f32(b), lc = numpy_log_f32(c), ld = numpy_log_f32(d);
    const float above = t * (lc * (ld - lt + 1) - ld * lt + ld + lt * lt - 2 * lt + 2);
    return above / ((lb - lc) * (lb - ld));
}

static int deis_order(const rung_sampler *s, int i, int filled) {
    const int left = (int)s->table.n - i;
    const bool few = s->c.lower_order_final && s->table.n < 15;
    const int most = few && left < 3 ? left : (int)s->c.solver_order;
    return most < filled ? most : filled;
}

static float rho_at(const rung_sampler *s, int i) {
    const lambda_point p = lambda_at(lambda_path_of(s), s->table.sigma[i]);
    return p.sigma / p.alpha;
}

static rung_status deis_step(rung_sampler *s, int i, float *x, const sampler_io *io) {
    ring *r = s->state;
    const lambda_point from = lambda_at(lambda_path_of(s), s->table.sigma[i]);
    const lambda_point to = lambda_at(lambda_path_of(s), s->table.sigma[i + 1]);
    RUNG_TRY(run_model(s, io, x, s->table.t[i], s->pred, NULL));
    x0_from_vp(s, s->c.prediction, from.alpha, from.sigma, x, s->pred, s->pred);
    settle_x0(s, s->pred);
    eps_from_vp(s, PREDICTS_SAMPLE, from.alpha, from.sigma, x, s->pred, ring_push(r));

    const int order = deis_order(s, i, r->filled);
    const float *m0 = ring_at(r, 0);
    if (order == 1) {
        const dpm_coefs c = dpm_coefficients(ALGO_DPM, SOLVER_MIDPOINT, 1, from, to);
        MIX(s, x, 1, {c.x, x}, {c.d0, m0});
        return RUNG_OK;
    }
    const float t = to.sigma / to.alpha, a = from.sigma / from.alpha, b = rho_at(s, i - 1);
    const float *m1 = ring_at(r, 1), keep = to.alpha / from.alpha;
    if (order == 2) {
        const float w0 = line(t, a, b) - line(a, a, b), w1 = line(t, b, a) - line(a, b, a);
        MIX(s, x, 1, {keep, x}, {to.alpha * w0, m0}, {to.alpha * w1, m1});
        return RUNG_OK;
    }
    const float c = rho_at(s, i - 2), *m2 = ring_at(r, 2);
    const float w0 = parabola(t, a, b, c) - parabola(a, a, b, c), w1 = parabola(t, b, c, a) - parabola(a, b, c, a);
    const float w2 = parabola(t, c, a, b) - parabola(a, c, a, b);
    MIX(s, x, 1, {keep, x}, {to.alpha * w0, m0}, {to.alpha * w1, m1}, {to.alpha * w2, m2});
    return RUNG_OK;
}

const sampler_method method_deis = {deis_open, deis_step};
