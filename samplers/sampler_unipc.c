/* UniPC, Zhao et al. 2023, algorithms 5 and 6 with B(h) = h (bh1) or e^h - 1 (bh2): UniPCMultistepScheduler. */
#include "samplers/lambda_steps.h"

enum { MAX_ORDER = 3 };

typedef struct {
    ring m;
    float *last; /* sample that the last predictor started from */
    float *now;  /* this step's converted prediction */
    int order;   /* of the last predictor */
} unipc;

static rung_status unipc_open(rung_sampler *s, rung_err *err) {
    if (s->c.shift_terminal > 0 && !s->c.use_flow_sigmas)
        return rung_fail(err, RUNG_EFORMAT, "scheduler_config.json: shift_terminal without use_flow_sigmas");
    if (!s->c.predict_x0 && s->c.prediction == PREDICTS_FLOW)
        return rung_fail(err, RUNG_EARG, "scheduler_config.json: a flow takes predict_x0 true");
    if (!s->c.predict_x0 && !s->c.final_sigma_min)
        return rung_fail(err, RUNG_EARG,
                         "scheduler_config.json: UniPC with predict_x0 false cannot end at sigma 0; "
                         "final_sigmas_type must be \"sigma_min\"");
    unipc *u = sampler_state(s, sizeof *u, err);
    if (!u) return RUNG_ENOMEM;
    RUNG_TRY(ring_open(s, &u->m, (int)s->c.solver_order, err));
    u->last = sampler_array(s, err);
    u->now = sampler_array(s, err);
    if (!u->last || !u->now) return RUNG_ENOMEM;
    return lambda_open(s, END_UNIPC, false, err);
}

/* One interval, seen from both its ends: what predictor and corrector have in common. */
typedef struct {
    int order;
    float x, m0, residual; /* x_t = x * x + m0 * m0 + residual * (sum of rho_k D_k) */
    float rk[MAX_ORDER];   /* (lambda_k - lambda_0) / h of the points before, then 1 */
    float R[MAX_ORDER][MAX_ORDER], b[MAX_ORDER];
} interval;

/* from sigma[i] to sigma[i + 1] */
static void interval_set(interval *v, const rung_sampler *s, int i, int order) {
    const lambda_path path = lambda_path_of(s);
    const lambda_point to = lambda_at(path, s->table.sigma[i + 1]), from = lambda_at(path, s->table.sigma[i]);
    const bool x0 = s->c.predict_x0;
    const float h = to.lambda - from.lambda, hh = x0 ? -h : h, phi_1 = expm1_f32(hh);
    const float bh = s->c.solver == SOLVER_BH1 ? hh : phi_1;
    const float scale = x0 ? to.alpha : to.sigma;
    v->order = order;
    v->x = x0 ? to.sigma / from.sigma : to.alpha / from.alpha;
    v->m0 = -(scale * phi_1);
    v->residual = -(scale * bh);
    for (int k = 1; k < order; k++) v->rk[k - 1] = (lambda_at(path, s->table.sigma[i - k]).lambda - from.lambda) / h;
    v->rk[order - 1] = 1;
    float phi_k = phi_1 / hh - 1, factorial = 1;
    for (int j = 0; j < order; j++) {
        for (int k = 0; k < order; k++) v->R[j][k] = j == 0 ? 1 : v->R[j - 1][k] * v->rk[k];
        v->b[j] = phi_k * factorial / bh;
        factorial *= (float)(j + 2);
        phi_k = phi_k / hh - 1 / factorial;
    }
}

/* R[0..n)[0..n) rho = b[0..n) by elimination with pivoting */
static void solve(const interval *v, int n, float *rho) {
    double a[MAX_ORDER][MAX_ORDER + 1];
    for (int r = 0; r < n; r++) {
        for (int c = 0; c < n; c++) a[r][c] = (double)v->R[r][c];
        a[r][n] = (double)v->b[r];
    }
    for (int p = 0; p < n; p++) {
        int best = p;
        for (int r = p + 1; r < n; r++) {
            if (fabs(a[r][p]) > fabs(a[best][p])) best = r;
        }
        for (int c = 0; c <= n; c++) {
            const double swap = a[p][c];
            a[p][c] = a[best][c];
            a[best][c] = swap;
        }
        for (int r = 0; r < n; r++) {
            const double f = r == p ? 0 : a[r][p] / a[p][p];
            for (int c = p; c <= n; c++) a[r][c] -= f * a[p][c];
        }
    }
    for (int r = 0; r < n; r++) rho[r] = (float)(a[r][n] / a[r][r]);
}

/* out = the step over v from `from`; `now`: the prediction at the other end (the corrector's), or NULL */
static void advance(const rung_sampler *s, const interval *v, const float *rho, const float *from, const float *now,
                    float *out) {
    const unipc *u = s->state;
    rung_term terms[3 + MAX_ORDER] = {{v->x, from}, {v->m0, ring_at(&u->m, 0)}};
    size_t count = 2;
    for (int j = 0; j + 1 < v->order; j++) {
        const float w = v->residual * (rho[j] / v->rk[j]);
        terms[count++] = (rung_term){w, ring_at(&u->m, j + 1)};
        terms[1].w -= w;
    }
    if (now) {
        const float w = v->residual * rho[v->order - 1];
        terms[count++] = (rung_term){w, now};
        terms[1].w -= w;
    }
    mix(s, out, 1, terms, count);
}

static void convert(rung_sampler *s, int i, const float *x, float *out) {
    const lambda_point at = lambda_at(lambda_path_of(s), s->table.sigma[i]);
    if (s->c.predict_x0) {
        x0_from_vp(s, s->c.prediction, at.alpha, at.sigma, x, s->pred, out);
        settle_x0(s, out);
    } else {
        eps_from_vp(s, s->c.prediction, at.alpha, at.sigma, x, s->pred, out);
    }
}

static void correct(rung_sampler *s, int i, float *x) {
    unipc *u = s->state;
    interval v;
    float rho[MAX_ORDER] = {0.5f};
    interval_set(&v, s, i - 1, u->order);
    if (u->order > 1) solve(&v, u->order, rho);
    advance(s, &v, rho, u->last, u->now, x);
}

static rung_status unipc_step(rung_sampler *s, int i, float *x, const sampler_io *io) {
    unipc *u = s->state;
    const int left = (int)s->table.n - i;
    const bool spared = i > 0 && i <= 128 && (s->c.disable_corrector[(i - 1) / 32] >> (i - 1) % 32 & 1);
    RUNG_TRY(run_model(s, io, x, s->table.t[i], s->pred, NULL));
    convert(s, i, x, u->now);
    if (i > 0 && !spared) correct(s, i, x);
    MIX(s, ring_push(&u->m), 1, {1, u->now});
    MIX(s, u->last, 1, {1, x});

    u->order = u->m.filled;
    /* sigma 0 is infinitely far away: the polynomial in lambda means nothing there */
    if ((s->c.lower_order_final || s->table.sigma[s->table.n] == 0) && u->order > left) u->order = left;
    interval v;
    float rho[MAX_ORDER] = {0.5f};
    interval_set(&v, s, i, u->order);
    if (u->order > 2) solve(&v, u->order - 1, rho);
    advance(s, &v, rho, u->last, NULL, x);
    return RUNG_OK;
}

const sampler_method method_unipc = {unipc_open, unipc_step};
