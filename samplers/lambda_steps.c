#include "samplers/lambda_steps.h"

lambda_point lambda_at(lambda_path path, float sigma) {
    lambda_point p = {.alpha = 1, .sigma = sigma};
    if (path == PATH_FLOW) p.alpha = 1 - sigma;
    if (path == PATH_VP) {
        p.alpha = 1 / sqrtf(sigma * sigma + 1);
        p.sigma = sigma * p.alpha;
    }
    p.lambda = (float)log((double)p.alpha) - (float)log((double)p.sigma);
    return p;
}

/* mu of the picture's size replaces the shift */
static rung_status shift_by_size(rung_sampler *s, rung_err *err) {
    if (!s->c.use_flow_sigmas || !s->c.use_dynamic_shifting || s->tokens == 0) return RUNG_OK;
    const double mu = dynamic_shift_mu(&s->c, s->tokens);
    s->c.shift = s->c.shift_linear ? mu : exp(mu);
    if (s->c.shift > 0) return RUNG_OK;
    return rung_fail(err, RUNG_EFORMAT, "scheduler_config.json: a linear time shift of %g at %zu tokens", mu,
                     s->tokens);
}

static rung_status check_steps(const rung_sampler *s, bool linspace_only, rung_err *err) {
    const sched_config *c = &s->c;
    const bool spread = c->use_karras_sigmas || c->use_exponential_sigmas || c->use_beta_sigmas || c->use_lu_lambdas;
    if (spread || c->use_flow_sigmas || linspace_only || c->timestep_spacing != SPACED_LEADING) return RUNG_OK;
    if (s->steps < train_steps_above(&s->train, c->lambda_min_clipped)) return RUNG_OK;
    return rung_fail(err, RUNG_EARG, "sampler %s: %zu steps with leading spacing, wanted fewer than the training's %zu",
                     s->entry->row.name, s->steps, s->train.n);
}

/* A list ends at 0. What has no step to there ends at the training's smallest sigma. */
static void end_above_zero(rung_sampler *s) {
    float *end = &s->table.sigma[s->table.n];
    *end = fmaxf(*end, s->train.sigmas[0]);
    if (*end >= end[-1] && s->table.n > 1) s->table.n--;
}

static rung_status open_list(rung_sampler *s, table_end end, rung_err *err) {
    timetable_ask ask = {.c = &s->c, .train = &s->train, .flow = s->custom};
    if (!s->c.use_flow_sigmas) {
        RUNG_TRY(sampler_list(s, err));
        for (size_t i = 0; i < s->table.n; i++) s->table.t[i] = rint(s->table.t[i]);
        if (end == END_REPEATS_LAST || s->c.final_sigma_min) end_above_zero(s);
        if (s->table.sigma[s->table.n] > 0) { /* k-diffusion lowers the order for a last step to 0 alone */
            s->c.final_sigma_min = true;
            s->c.lower_order_final = false;
        }
        return RUNG_OK;
    }
    if (s->schedule != SCHEDULE_CUSTOM)
        return rung_fail(err, RUNG_EARG, "schedule %s is a list over a diffusion's noise: not for flow-matching models",
                         schedule_name(s->schedule));
    RUNG_TRY(sampler_custom(s, 1, err));
    ask.steps = s->n_custom;
    RUNG_TRY(sampler_table(s, ask.steps, err));
    timetable_multistep(&s->table, &ask, end, false);
    return RUNG_OK;
}

rung_status lambda_open(rung_sampler *s, table_end end, bool linspace_only, rung_err *err) {
    s->init_sigma = 1;
    RUNG_TRY(sampler_train(s, true, err));
    RUNG_TRY(shift_by_size(s, err));
    if (s->schedule != SCHEDULE_DEFAULT) return open_list(s, end, err); /* no flag of the config */
    RUNG_TRY(check_steps(s, linspace_only, err));
    RUNG_TRY(sampler_table(s, s->steps, err));
    const timetable_ask ask = {.c = &s->c, .train = &s->train, .steps = s->steps};
    timetable_multistep(&s->table, &ask, end, linspace_only);
    return RUNG_OK;
}

dpm_coefs dpm_coefficients(dpm_algorithm algorithm, solver_form solver, int order, lambda_point from, lambda_point to) {
    const float h = to.lambda - from.lambda;
    const bool curved = solver == SOLVER_HEUN || order == 3;
    dpm_coefs c = {0};
    if (algorithm == ALGO_DPMPP) {
        const float e = exp_f32(-h) - 1, plain = to.alpha * e;
        c.x = to.sigma / from.sigma;
        c.d0 = -plain;
        c.d1 = curved ? to.alpha * (e / h + 1) : -0.5f * plain;
        c.d2 = -(to.alpha * ((e + h) / (h * h) - 0.5f));
    } else if (algorithm == ALGO_SDE_DPMPP) {
        const float e = 1 - exp_f32(-2 * h), plain = to.alpha * e;
        c.x = to.sigma / from.sigma * exp_f32(-h);
        c.d0 = plain;
        c.d1 = curved ? to.alpha * (e / (-2 * h) + 1) : 0.5f * plain;
        c.d2 = to.alpha * ((e - 2 * h) / (2 * h * (2 * h)) - 0.5f);
        c.noise = to.sigma * sqrtf(e);
    } else {
        const float e = exp_f32(h) - 1, plain = to.sigma * e;
        const float twice = algorithm == ALGO_SDE_DPM ? 2 : 1;
        c.x = to.alpha / from.alpha;
        c.d0 = -twice * plain;
        c.d1 = curved ? -twice * (to.sigma * (e / h - 1)) : -0.5f * twice * plain;
        c.d2 = -(to.sigma * ((e - h) / (h * h) - 0.5f));
        if (algorithm == ALGO_SDE_DPM) c.noise = to.sigma * sqrtf(exp_f32(2 * h) - 1);
    }
    return c;
}

void dpm_convert(rung_sampler *s, lambda_point at, const float *x, const float *pred, float *out) {
    const bool keeps_x0 = s->c.algorithm == ALGO_DPMPP || s->c.algorithm == ALGO_SDE_DPMPP;
    if (keeps_x0) {
        x0_from_vp(s, s->c.prediction, at.alpha, at.sigma, x, pred, out);
        settle_x0(s, out);
        return;
    }
    eps_from_vp(s, s->c.prediction, at.alpha, at.sigma, x, pred, out);
    if (!s->c.thresholding) return;
    x0_from_vp(s, PREDICTS_EPSILON, at.alpha, at.sigma, x, out, out);
    settle_x0(s, out);
    eps_from_vp(s, PREDICTS_SAMPLE, at.alpha, at.sigma, x, out, out);
}

/* orders go up at the start, and down at the end when the steps are few or sigma ends at 0 */
static int multistep_order(const rung_sampler *s, int i, int filled) {
    const int left = (int)s->table.n - i;
    const bool few = s->c.lower_order_final && s->table.n < 15;
    int order = (int)s->c.solver_order;
    if (order > filled) order = filled;
    if (left == 1 && (s->c.euler_at_final || few || !s->c.final_sigma_min)) order = 1;
    if (left == 2 && few && order > 2) order = 2;
    return order;
}

/* Terms of a step of second order, D1 = (m0 - m1) / r0; of third order, with D2 from the slopes of both intervals. */
static size_t second_order(const dpm_coefs *c, float r0, const ring *r, rung_term *terms) {
    const float w = c->d1 / r0;
    terms[0].w += w;
    terms[1] = (rung_term){-w, ring_at(r, 1)};
    return 2;
}

static size_t third_order(const dpm_coefs *c, float r0, float r1, const ring *r, rung_term *terms) {
    const float mix_in = r0 / (r0 + r1), bend = c->d1 * mix_in + c->d2 / (r0 + r1); /* D2's and its share in D1 */
    const float near = (c->d1 + bend) / r0, far = -bend / r1;
    terms[0].w += near;
    terms[1] = (rung_term){far - near, ring_at(r, 1)};
    terms[2] = (rung_term){-far, ring_at(r, 2)};
    return 3;
}

rung_status dpm_multistep_advance(rung_sampler *s, const ring *r, lambda_path path, int i, float *x,
                                  const sampler_io *io) {
    const int order = multistep_order(s, i, r->filled);
    const lambda_point from = lambda_at(path, s->table.sigma[i]), to = lambda_at(path, s->table.sigma[i + 1]);
    const dpm_coefs c = dpm_coefficients(s->c.algorithm, s->c.solver, order, from, to);
    const float h = to.lambda - from.lambda;
    const float before = order > 1 ? lambda_at(path, s->table.sigma[i - 1]).lambda : 0;
    const float long_before = order > 2 ? lambda_at(path, s->table.sigma[i - 2]).lambda : 0;
    rung_term terms[5] = {{c.x, x}, {c.d0, ring_at(r, 0)}};
    size_t count = 2;
    if (order == 2) count = 1 + second_order(&c, (from.lambda - before) / h, r, terms + 1);
    if (order == 3) count = 1 + third_order(&c, (from.lambda - before) / h, (before - long_before) / h, r, terms + 1);
    if (dpm_is_sde(s->c.algorithm)) {
        RUNG_TRY(draw_noise(s, io, s->noise));
        terms[count++] = (rung_term){c.noise, s->noise};
    }
    mix(s, x, 1, terms, count);
    return RUNG_OK;
}
