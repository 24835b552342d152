/* Karras et al. 2022 with its own preconditioning: EDMEulerScheduler and EDMDPMSolverMultistepScheduler. */
#include "samplers/lambda_steps.h"
#include "samplers/sigma_steps.h"

static float edm_sigma(const sched_config *c, bool f32_ramp, size_t n, size_t i) {
    const float bottom = (float)log(c->sigma_min), top = (float)log(c->sigma_max);
    if (c->sigma_exponential) return expf(linspace_f32(bottom, top, n, n - 1 - i));
    if (!f32_ramp) return (float)spread_karras(c->sigma_max, c->sigma_min, c->rho, n, i);
    const double hi = pow(c->sigma_max, 1 / c->rho), lo = pow(c->sigma_min, 1 / c->rho);
    return powf((float)hi + linspace_f32(0, 1, n, i) * (float)(lo - hi), (float)c->rho);
}

static rung_status edm_table(rung_sampler *s, bool f32_ramp, rung_err *err) {
    if (!(s->c.sigma_max > s->c.sigma_min))
        return rung_fail(err, RUNG_EFORMAT, "scheduler_config.json: sigma_max %g is not above sigma_min %g",
                         s->c.sigma_max, s->c.sigma_min);
    RUNG_TRY(sampler_table(s, s->steps, err));
    for (size_t i = 0; i < s->steps; i++) {
        s->table.sigma[i] = edm_sigma(&s->c, f32_ramp, s->steps, i);
        s->table.t[i] = 0.25f * logf(s->table.sigma[i]);
    }
    const float least = f32_ramp ? (float)s->c.sigma_min : s->table.sigma[s->steps - 1];
    s->table.sigma[s->steps] = s->c.final_sigma_min ? least : 0;
    s->init_sigma = (float)sqrt(s->c.sigma_max * s->c.sigma_max + 1);
    return RUNG_OK;
}

/* out = x0 at step i */
static rung_status edm_x0(rung_sampler *s, int i, const float *x, float *out, const sampler_io *io) {
    const float sigma = s->table.sigma[i], data = (float)s->c.sigma_data;
    const float data2 = (float)(s->c.sigma_data * s->c.sigma_data), sum = sigma * sigma + data2;
    const float in = 1 / sqrtf(sum), skip = data2 / sum;
    const float sign = s->c.prediction == PREDICTS_V ? -1 : 1, scale = sign * sigma * data / sqrtf(sum);
    MIX(s, s->scaled, 1, {in, x});
    RUNG_TRY(run_model(s, io, s->scaled, s->table.t[i], s->pred, NULL));
    MIX(s, out, 1, {skip, x}, {scale, s->pred});
    settle_x0(s, out);
    return RUNG_OK;
}

static rung_status edm_euler_open(rung_sampler *s, rung_err *err) { return edm_table(s, false, err); }

static rung_status edm_euler_step(rung_sampler *s, int i, float *x, const sampler_io *io) {
    const float sigma = s->table.sigma[i];
    RUNG_TRY(edm_x0(s, i, x, s->pred, io));
    sigma_euler(s, x, s->pred, sigma, s->table.sigma[i + 1] - sigma);
    return RUNG_OK;
}

static rung_status edm_dpm_open(rung_sampler *s, rung_err *err) {
    if (s->c.algorithm != ALGO_DPMPP && s->c.algorithm != ALGO_SDE_DPMPP)
        return rung_fail(err, RUNG_EARG, "scheduler_config.json: edm_dpm++2m takes dpmsolver++ or sde-dpmsolver++");
    if (s->c.algorithm == ALGO_SDE_DPMPP && s->c.solver_order == 3)
        return rung_fail(err, RUNG_EARG, "scheduler_config.json: the EDM form of sde-dpmsolver++ has no third order");
    ring *r = sampler_state(s, sizeof *r, err);
    if (!r) return RUNG_ENOMEM;
    RUNG_TRY(ring_open(s, r, (int)s->c.solver_order, err));
    return edm_table(s, true, err);
}

static rung_status edm_dpm_step(rung_sampler *s, int i, float *x, const sampler_io *io) {
    ring *r = s->state;
    RUNG_TRY(edm_x0(s, i, x, ring_push(r), io));
    return dpm_multistep_advance(s, r, PATH_EDM, i, x, io);
}

const sampler_method method_edm_euler = {edm_euler_open, edm_euler_step};
const sampler_method method_edm_dpm = {edm_dpm_open, edm_dpm_step};
