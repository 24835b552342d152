/* samplers/lambda_steps.h - what the methods share that step in lambda = log(alpha / sigma): DPM-Solver, UniPC, DEIS,
 * SA-Solver. Scalars are f32 in the order in which torch computes them. */
#ifndef RUNG_LAMBDA_STEPS_H
#define RUNG_LAMBDA_STEPS_H
#include <math.h>

#include "samplers/method.h"

typedef struct {
    float alpha, sigma, lambda;
} lambda_point;

typedef enum { PATH_VP, PATH_FLOW, PATH_EDM } lambda_path;

/* alpha and sigma of a table's sigma: VP 1/sqrt(s^2 + 1) and s * alpha, flow 1 - s and s, EDM 1 and s */
lambda_point lambda_at(lambda_path path, float sigma);

static inline lambda_path lambda_path_of(const rung_sampler *s) { return s->c.use_flow_sigmas ? PATH_FLOW : PATH_VP; }

/** Training noise and timetable; init_sigma 1. */
rung_status lambda_open(rung_sampler *s, table_end end, bool linspace_only, rung_err *err);

/* exp and expm1 with one rounding: differences of them cancel, so their last digit counts */
static inline float exp_f32(float x) { return (float)exp((double)x); }
static inline float expm1_f32(float x) { return (float)expm1((double)x); }

/* x_t = x * x + d0 * D0 + d1 * D1 + d2 * D2 + noise * n, with D0.. the derivatives of the prediction in lambda */
typedef struct {
    float x, d0, d1, d2, noise;
} dpm_coefs;

/** From `from` to `to`. `order` 3: d1 takes the second derivative into account whatever `solver` says. */
dpm_coefs dpm_coefficients(dpm_algorithm algorithm, solver_form solver, int order, lambda_point from, lambda_point to);

static inline bool dpm_is_sde(dpm_algorithm a) { return a == ALGO_SDE_DPM || a == ALGO_SDE_DPMPP; }

/** Step i of a DPM multistep over the predictions in `r` (newest = this step's), lower orders at both ends of the run.
 *  Draws the noise of the sde forms. Used by dpm++2m and by its EDM form. */
rung_status dpm_multistep_advance(rung_sampler *s, const ring *r, lambda_path path, int i, float *x,
                                  const sampler_io *io);

/** pred -> what DPM-Solver keeps: x0 or, for the algorithms without ++, epsilon; thresholded. */
void dpm_convert(rung_sampler *s, lambda_point at, const float *x, const float *pred, float *out);
#endif
