/* samplers/dpm_singles.h - DPM-Solver's single steps of order 1, 2, 3 in t = -log sigma (k-diffusion's DPMSolver). */
#ifndef RUNG_DPM_SINGLES_H
#define RUNG_DPM_SINGLES_H
#include "samplers/method.h"

/* Scratch, f32 [total] each. */
typedef struct {
    float *eps, *eps_1, *eps_2; /* noise at the start and at the inner points */
    float *inner;
    float *turn; /* what eps_1 or eps_2 has changed since eps */
} dpm_singles;

rung_status dpm_singles_open(rung_sampler *s, dpm_singles *q, rung_err *err);

/** q->eps at x. */
rung_status dpm_eps(rung_sampler *s, const sampler_io *io, const float *x, float t, float *eps);
/** q->eps_1 at x moved by a third (r = 1/3) or half (r = 1/2) of the step; q->eps is there. */
rung_status dpm_inner_1(rung_sampler *s, dpm_singles *q, const sampler_io *io, const float *x, float t, float t_next,
                        float r);
/** q->eps_2 at two thirds; q->eps and q->eps_1 (r = 1/3) are there. */
rung_status dpm_inner_2(rung_sampler *s, dpm_singles *q, const sampler_io *io, const float *x, float t, float t_next);

/* out = x at t_next; out may be x. order 2 with the r of eps_1. */
void dpm_finish_1(const rung_sampler *s, const dpm_singles *q, const float *x, float t, float t_next, float *out);
void dpm_finish_2(const rung_sampler *s, const dpm_singles *q, const float *x, float t, float t_next, float r,
                  float *out);
void dpm_finish_3(const rung_sampler *s, const dpm_singles *q, const float *x, float t, float t_next, float *out);

/** Where an ancestral step from t to t_next with eta stops, not past t_end, and the noise that takes it to t_next. */
void dpm_ancestral(float t, float t_next, float t_end, float eta, float *stop, float *up);
#endif
