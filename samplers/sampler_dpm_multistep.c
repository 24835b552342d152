/* DPM-Solver and DPM-Solver++ multistep, Lu et al. 2022, orders 1 to 3, ODE and SDE: DPMSolverMultistepScheduler.step.
 */
#include "samplers/lambda_steps.h"

static rung_status multistep_open(rung_sampler *s, rung_err *err) {
    const bool plus_plus = s->c.algorithm == ALGO_DPMPP || s->c.algorithm == ALGO_SDE_DPMPP;
    if (!plus_plus && !s->c.final_sigma_min)
        return rung_fail(err, RUNG_EARG,
                         "scheduler_config.json: algorithm_type dpmsolver cannot end at sigma 0; "
                         "final_sigmas_type must be \"sigma_min\"");
    if (!plus_plus && s->c.prediction == PREDICTS_FLOW)
        return rung_fail(err, RUNG_EARG, "scheduler_config.json: a flow takes algorithm_type dpmsolver++");
    if (s->c.algorithm == ALGO_SDE_DPM && s->c.solver_order == 3)
        return rung_fail(err, RUNG_EARG, "scheduler_config.json: sde-dpmsolver has no third order");
    ring *r = sampler_state(s, sizeof *r, err);
    if (!r) return RUNG_ENOMEM;
    RUNG_TRY(ring_open(s, r, (int)s->c.solver_order, err));
    return lambda_open(s, END_BY_CONFIG, false, err);
}

static rung_status multistep_step(rung_sampler *s, int i, float *x, const sampler_io *io) {
    ring *r = s->state;
    const lambda_path path = lambda_path_of(s);
    RUNG_TRY(run_model(s, io, x, s->table.t[i], s->pred, NULL));
    dpm_convert(s, lambda_at(path, s->table.sigma[i]), x, s->pred, ring_push(r));
    return dpm_multistep_advance(s, r, path, i, x, io);
}

const sampler_method method_dpm_multistep = {multistep_open, multistep_step};
