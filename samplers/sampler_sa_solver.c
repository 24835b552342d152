/* SA-Solver, Xue et al. 2023, stochastic Adams predictor and corrector with the default tau (1 for timesteps 200..800,
 * else 0): SASolverScheduler. */
#include "samplers/lambda_steps.h"

enum { MAX_ORDER = 4 };

typedef struct {
    ring m;
    float *last;       /* sample that the last predictor started from */
    float *last_noise; /* and its noise */
    float *now;        /* this step's converted prediction */
    int corrector;     /* order of the corrector that checks the last predictor */
    float last_tau;
} sa_solver;

static rung_status sa_open(rung_sampler *s, rung_err *err) {
    if (!s->c.predict_x0 && (s->c.thresholding || s->c.prediction == PREDICTS_FLOW))
        return rung_fail(err, RUNG_EARG,
                         "scheduler_config.json: sa_solver's noise_prediction takes neither "
                         "thresholding nor flows; data_prediction does");
    sa_solver *q = sampler_state(s, sizeof *q, err);
    if (!q) return RUNG_ENOMEM;
    const long depth =
        s->c.predictor_order > s->c.corrector_order - 1 ? s->c.predictor_order : s->c.corrector_order - 1;
    RUNG_TRY(ring_open(s, &q->m, (int)depth, err));
    q->last = sampler_array(s, err);
    q->last_noise = sampler_array(s, err);
    q->now = sampler_array(s, err);
    if (!q->last || !q->last_noise || !q->now) return RUNG_ENOMEM;
    return lambda_open(s, END_REPEATS_LAST, false, err);
}

/* The i-th Lagrange polynomial over l[0..n): coefficients of falling powers */
static void lagrange(const float *l, int n, int i, float *out) {
    float below = 1;
    int degree = 0;
    out[0] = 1;
    for (int k = 0; k < n; k++) {
        if (k == i) continue;
        below *= l[i] - l[k];
        out[degree + 1] = 0;
        for (int d = ++degree; d > 0; d--) out[d] -= l[k] * out[d - 1];
    }
    for (int d = 0; d <= degree; d++) out[d] /= below;
}

/* x^k - k x^(k-1) + k(k-1) x^(k-2) - ...: e^x times it is the antiderivative of x^k e^x. sign -1: that of x^k e^-x,
 * turned round */
static float by_parts(int k, float x, float sign) {
    if (k == 0) return 1;
    if (k == 1) return x - sign;
    if (k == 2) return x * x - sign * 2 * x + 2;
    return x * x * x - sign * 3 * (x * x) + 6 * x - sign * 6;
}

/* The integral of lambda^k e^(c lambda) from a to b, c = 1 + tau^2; for noise prediction of lambda^k e^-lambda */
static float moment(bool x0, int k, float a, float b, float c) {
    if (!x0) return exp_f32(-b) * (by_parts(k, a, -1) * exp_f32(b - a) - by_parts(k, b, -1));
    const float end = c * b, start = c * a;
    float below = c;
    for (int j = 0; j < k; j++) below *= c;
    return exp_f32(end) * (by_parts(k, end, 1) - by_parts(k, start, 1) * exp_f32(-(end - start))) / below;
}

typedef struct {
    int order;
    float x, noise;
    float m[MAX_ORDER]; /* of the predictions, newest first */
} weights;

/* The step from sigma[i] to sigma[i + 1] through the points sigma[newest], sigma[newest - 1], .. */
static weights step_weights(const rung_sampler *s, int i, int newest, int order, float tau) {
    const lambda_path path = lambda_path_of(s);
    const lambda_point from = lambda_at(path, s->table.sigma[i]), to = lambda_at(path, s->table.sigma[i + 1]);
    const bool x0 = s->c.predict_x0;
    const float h = to.lambda - from.lambda, c = 1 + tau * tau;
    float l[MAX_ORDER], polynomial[MAX_ORDER];
    for (int k = 0; k < order; k++) l[k] = lambda_at(path, s->table.sigma[newest - k]).lambda;
    weights w = {.order = order};
    for (int k = 0; k < order; k++) {
        lagrange(l, order, k, polynomial);
        for (int d = 0; d < order; d++) w.m[k] += polynomial[d] * moment(x0, order - 1 - d, from.lambda, to.lambda, c);
    }
    if (x0 && order == 2) { /* the closed form of order 2 in place of the polynomial's quadratic error */
        const float exact = (h * c - 1 + exp_f32(c * -h)) / (c * c);
        const float gap = newest == i ? (h * h / 2 - exact) / (l[0] - l[1]) : h / 2 - exact / h;
        w.m[0] += exp_f32(c * to.lambda) * gap;
        w.m[1] -= exp_f32(c * to.lambda) * gap;
    }
    const float scale = x0 ? c * to.sigma * exp_f32(-(tau * tau) * to.lambda) : -c * to.alpha;
    for (int k = 0; k < order; k++) w.m[k] *= scale;
    w.x = x0 ? exp_f32(-(tau * tau) * h) * (to.sigma / from.sigma) : to.alpha / from.alpha;
    w.noise = x0 ? to.sigma * sqrtf(1 - exp_f32(-2 * (tau * tau) * h)) : tau * to.sigma * sqrtf(exp_f32(2 * h) - 1);
    return w;
}

/* x = the weighted sum; `now`, when given, is the newest prediction and the ring holds those before it */
static void advance(const rung_sampler *s, const weights *w, const float *from, const float *noise, const float *now,
                    float *x) {
    const sa_solver *q = s->state;
    rung_term terms[MAX_ORDER + 2];
    size_t count = 0;
    for (int j = 0; j < w->order; j++) {
        const float *m = now ? (j == 0 ? now : ring_at(&q->m, j - 1)) : ring_at(&q->m, j);
        terms[count++] = (rung_term){w->m[j], m};
    }
    terms[count++] = (rung_term){w->x, from};
    terms[count++] = (rung_term){w->noise, noise};
    mix(s, x, 1, terms, count);
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

static int least(long a, long b) { return (int)(a < b ? a : b); }

static rung_status sa_step(rung_sampler *s, int i, float *x, const sampler_io *io) {
    sa_solver *q = s->state;
    const double t = s->table.t[i];
    RUNG_TRY(run_model(s, io, x, t, s->pred, NULL));
    convert(s, i, x, q->now);
    if (i > 0) {
        const weights w = step_weights(s, i - 1, i, q->corrector, q->last_tau);
        advance(s, &w, q->last, q->last_noise, q->now, x);
    }
    const int done = q->m.filled;
    MIX(s, ring_push(&q->m), 1, {1, q->now});
    RUNG_TRY(draw_noise(s, io, q->last_noise));
    MIX(s, q->last, 1, {1, x});

    const long left = s->c.lower_order_final ? (long)s->table.n - i : MAX_ORDER;
    const int order = least(least(s->c.predictor_order, left), done + 1);
    q->corrector = least(least(s->c.corrector_order, left + 1), done + 2);
    q->last_tau = t >= 200 && t <= 800 ? 1 : 0;
    const weights w = step_weights(s, i, i, order, q->last_tau);
    advance(s, &w, q->last, q->last_noise, NULL, x);
    return RUNG_OK;
}

const sampler_method method_sa_solver = {sa_open, sa_step};
