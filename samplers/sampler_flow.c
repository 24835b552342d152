/* Flow matching, x = (1 - sigma) x0 + sigma noise, the network predicting noise - x0: FlowMatchEulerDiscreteScheduler,
 * FlowMatchHeunDiscreteScheduler, FlowMatchLCMScheduler (without its upscaling). */
#include <math.h>

#include "samplers/method.h"

static double shifted(double shift, double sigma) { return shift * sigma / (1 + (shift - 1) * sigma); }

/* The class shifts its training sigmas once, takes their ends, and shifts the run's sigmas again. */
static double plain_sigma(const rung_sampler *s, size_t i) {
    const float train = (float)s->c.num_train_timesteps, shift = (float)s->c.shift, least = 1 / train;
    float lo = least;
    if (!s->c.use_dynamic_shifting) lo = shift * least / (1 + (shift - 1) * least);
    return linspace_f64(1.0 * train, (double)lo * train, s->steps, i) / train;
}

static double spread(const rung_sampler *s, double hi, double lo, size_t i) {
    const sched_config *c = &s->c;
    if (!isnan(c->sigma_min)) lo = c->sigma_min;
    if (!isnan(c->sigma_max)) hi = c->sigma_max;
    if (c->use_karras_sigmas) return spread_karras(hi, lo, 7, s->steps, i);
    if (c->use_exponential_sigmas) return spread_exponential(hi, lo, s->steps, i);
    return spread_beta(hi, lo, s->steps, i);
}

/* sigma [steps] from here on in f64, as numpy has them */
static void fill_sigmas(const rung_sampler *s, double shift, double *sigma) {
    const sched_config *c = &s->c;
    const size_t n = s->steps;
    for (size_t i = 0; i < n; i++)
        sigma[i] = shifted(shift, s->schedule == SCHEDULE_CUSTOM ? (double)s->custom[i] : plain_sigma(s, i));
    if (c->shift_terminal > 0) {
        const double stretch = (1 - sigma[n - 1]) / (1 - c->shift_terminal);
        for (size_t i = 0; i < n; i++) sigma[i] = 1 - (1 - sigma[i]) / stretch;
    }
    if (c->use_karras_sigmas || c->use_exponential_sigmas || c->use_beta_sigmas) {
        const double hi = sigma[0], lo = sigma[n - 1];
        for (size_t i = 0; i < n; i++) sigma[i] = spread(s, hi, lo, i);
    }
}

static rung_status flow_open(rung_sampler *s, rung_err *err) {
    double shift = s->c.shift;
    if (s->schedule == SCHEDULE_CUSTOM) {
        RUNG_TRY(sampler_custom(s, 1, err));
        s->steps = s->n_custom;
    }
    if (s->c.use_dynamic_shifting) {
        if (s->tokens == 0)
            return rung_fail(err, RUNG_EARG,
                             "sampler %s: this model shifts its sigmas by the picture's size, which "
                             "was not given",
                             s->entry->row.name);
        const double mu = dynamic_shift_mu(&s->c, s->tokens);
        shift = s->c.shift_linear ? mu : exp(mu);
        if (!(shift > 0))
            return rung_fail(err, RUNG_EFORMAT, "scheduler_config.json: a linear time shift of %g at %zu tokens", mu,
                             s->tokens);
    }
    RUNG_TRY(sampler_table(s, s->steps, err));
    fill_sigmas(s, shift, s->table.t);
    for (size_t i = 0; i < s->steps; i++) {
        float sigma = (float)s->table.t[i];
        if (s->c.invert_sigmas) sigma = 1 - sigma;
        s->table.sigma[i] = sigma;
        s->table.t[i] = sigma * (float)s->c.num_train_timesteps;
    }
    s->table.sigma[s->steps] = s->c.invert_sigmas;
    s->init_sigma = 1;
    return RUNG_OK;
}

static rung_status renoise(rung_sampler *s, int i, float *x, const sampler_io *io) {
    const float sigma = s->table.sigma[i], next = s->table.sigma[i + 1], keep = 1 - next;
    RUNG_TRY(draw_noise(s, io, s->noise));
    MIX(s, x, 1, {keep, x}, {-keep * sigma, s->pred}, {next, s->noise});
    return RUNG_OK;
}

static rung_status flow_euler_step(rung_sampler *s, int i, float *x, const sampler_io *io) {
    const float dt = s->table.sigma[i + 1] - s->table.sigma[i];
    RUNG_TRY(run_model(s, io, x, s->table.t[i], s->pred, NULL));
    if (s->c.stochastic_sampling) return renoise(s, i, x, io);
    MIX(s, x, 1, {1, x}, {dt, s->pred});
    return RUNG_OK;
}

static rung_status flow_lcm_step(rung_sampler *s, int i, float *x, const sampler_io *io) {
    RUNG_TRY(run_model(s, io, x, s->table.t[i], s->pred, NULL));
    return renoise(s, i, x, io);
}

static rung_status flow_heun_open(rung_sampler *s, rung_err *err) {
    if (!(s->state = sampler_array(s, err))) return RUNG_ENOMEM; /* the point ahead */
    return flow_open(s, err);
}

static rung_status flow_heun_step(rung_sampler *s, int i, float *x, const sampler_io *io) {
    float *ahead = s->state, *slope = s->scaled; /* the first one; nothing is scaled here */
    const float sigma = s->table.sigma[i], next = s->table.sigma[i + 1], dt = next - sigma;
    RUNG_TRY(run_model(s, io, x, s->table.t[i], s->pred, NULL));
    MIX(s, slope, 1, {1, s->pred});
    MIX(s, ahead, 1, {1, x}, {dt, slope});
    if ((size_t)i + 1 == s->table.n) {
        MIX(s, x, 1, {1, ahead});
        return RUNG_OK;
    }
    RUNG_TRY(run_model(s, io, ahead, s->table.t[i + 1], s->pred, NULL));
    MIX(s, x, 1, {1, x}, {dt / 2, slope}, {dt / 2, s->pred});
    return RUNG_OK;
}

const sampler_method method_flow_euler = {flow_open, flow_euler_step};
const sampler_method method_flow_heun = {flow_heun_open, flow_heun_step};
const sampler_method method_flow_lcm = {flow_open, flow_lcm_step};
