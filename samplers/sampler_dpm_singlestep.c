/* DPM-Solver(++) singlestep, Lu et al. 2022: DPMSolverSinglestepScheduler. A group of steps starts from one sample; the
 * orders in it rise 1, 2, 3. */
#include "samplers/lambda_steps.h"

typedef struct {
    ring m;
    float *start; /* sample at the group's first step */
    int *orders;  /* [table.n] */
} singlestep;

/* [1, .., order] over and over; with `fall` the run ends in lower orders */
static void fill_orders(int *out, size_t n, long order, bool fall) {
    for (size_t i = 0; i < n; i++) out[i] = 1 + (int)(i % (size_t)order);
    if (fall && n % (size_t)order == 0) out[n - 1] = 1; /* 1,2,3 -> 1,2,1 and 1,2 -> 1,1 */
}

static rung_status singlestep_open(rung_sampler *s, rung_err *err) {
    if (s->c.algorithm == ALGO_SDE_DPM)
        return rung_fail(err, RUNG_EARG, "scheduler_config.json: the singlestep solver has no sde-dpmsolver form");
    if (s->c.algorithm == ALGO_DPM && !s->c.final_sigma_min)
        return rung_fail(err, RUNG_EARG,
                         "scheduler_config.json: algorithm_type dpmsolver cannot end at sigma 0; "
                         "final_sigmas_type must be \"sigma_min\"");
    if (s->c.algorithm == ALGO_DPM && (s->c.thresholding || s->c.prediction == PREDICTS_FLOW))
        return rung_fail(err, RUNG_EARG,
                         "scheduler_config.json: singlestep dpmsolver takes neither thresholding nor "
                         "flows; algorithm_type dpmsolver++ does");
    singlestep *q = sampler_state(s, sizeof *q, err);
    if (!q) return RUNG_ENOMEM;
    RUNG_TRY(ring_open(s, &q->m, (int)s->c.solver_order, err));
    RUNG_TRY(lambda_open(s, END_BY_CONFIG, true, err));
    q->start = sampler_array(s, err);
    q->orders = sampler_alloc(s, s->table.n, sizeof(int), err);
    if (!q->start || !q->orders) return RUNG_ENOMEM;
    const bool uneven = s->table.n % (size_t)s->c.solver_order != 0;
    fill_orders(q->orders, s->table.n, s->c.solver_order, s->c.lower_order_final || uneven || !s->c.final_sigma_min);
    if (!s->c.final_sigma_min) q->orders[s->table.n - 1] = 1;
    return RUNG_OK;
}

static void second_order(const rung_sampler *s, const dpm_coefs *c, float r0, float *x) {
    const singlestep *q = s->state;
    const float *m0 = ring_at(&q->m, 0), *m1 = ring_at(&q->m, 1), slope = c->d1 / r0;
    MIX(s, x, 1, {c->x, q->start}, {slope, m0}, {c->d0 - slope, m1});
}

static void third_order(const rung_sampler *s, const dpm_coefs *c, float r0, float r1, float *x) {
    const singlestep *q = s->state;
    const float *m0 = ring_at(&q->m, 0), *m1 = ring_at(&q->m, 1), *m2 = ring_at(&q->m, 2);
    const float apart = r0 - r1;
    /* weights of (m1 - m2) / r1 and (m0 - m2) / r0, then of m1 and m0 */
    float near = 0, far = c->d1;
    if (s->c.solver != SOLVER_MIDPOINT) {
        near = (c->d1 * r0 - 2 * c->d2) / apart;
        far = (2 * c->d2 - c->d1 * r1) / apart;
    }
    near /= r1;
    far /= r0;
    MIX(s, x, 1, {c->x, q->start}, {far, m0}, {near, m1}, {c->d0 - near - far, m2});
}

static rung_status singlestep_step(rung_sampler *s, int i, float *x, const sampler_io *io) {
    singlestep *q = s->state;
    const lambda_path path = lambda_path_of(s);
    const float *sigma = s->table.sigma;
    RUNG_TRY(run_model(s, io, x, s->table.t[i], s->pred, NULL));
    dpm_convert(s, lambda_at(path, sigma[i]), x, s->pred, ring_push(&q->m));
    const int order = q->orders[i] < q->m.filled ? q->orders[i] : q->m.filled;
    if (order == 1) MIX(s, q->start, 1, {1, x});

    const lambda_point to = lambda_at(path, sigma[i + 1]), from = lambda_at(path, sigma[i - order + 1]);
    const dpm_coefs c = dpm_coefficients(s->c.algorithm, s->c.solver, order, from, to);
    const float h = to.lambda - from.lambda, *m0 = ring_at(&q->m, 0);
    if (order == 1) {
        MIX(s, x, 1, {c.x, x}, {c.d0, m0});
    } else {
        const float r0 = (lambda_at(path, sigma[i]).lambda - from.lambda) / h;
        if (order == 2)
            second_order(s, &c, r0, x);
        else
            third_order(s, &c, r0, (lambda_at(path, sigma[i - 1]).lambda - from.lambda) / h, x);
    }
    if (!dpm_is_sde(s->c.algorithm)) return RUNG_OK;
    RUNG_TRY(draw_noise(s, io, s->noise));
    MIX(s, x, 1, {1, x}, {c.noise, s->noise});
    return RUNG_OK;
}

const sampler_method method_dpm_singlestep = {singlestep_open, singlestep_step};
