/* samplers/sigma_steps.h - what the methods share that step over sigmas on a variance-exploding sample. */
#ifndef RUNG_SIGMA_STEPS_H
#define RUNG_SIGMA_STEPS_H
#include "samplers/method.h"

typedef enum { SIGMA_PLAIN, SIGMA_LMS, SIGMA_KDPM2 } sigma_table_form;

/** Timetable, training noise and initial sigma of Euler, Heun, LMS and KDPM2. */
rung_status sigma_open(rung_sampler *s, sigma_table_form form, rung_err *err);

/** The same for k-diffusion's own samplers: a list of sigmas, and noise of its first value. */
rung_status sigma_open_list(rung_sampler *s, rung_err *err);

/** s->pred becomes x0 at step i's sigma. */
rung_status sigma_x0(rung_sampler *s, const sampler_io *io, const float *x, float sigma, double t);

/** x += (x - x0) / sigma * dt: an Euler step. */
void sigma_euler(const rung_sampler *s, float *x, const float *x0, float sigma, float dt);

/** x += scale * noise, drawn for every picture. */
rung_status sigma_add_noise(rung_sampler *s, const sampler_io *io, float *x, float scale);
#endif
