/* samplers/alpha_steps.h - what the methods share that step over whole training timesteps: ddim, ddpm, pndm, lcm, tcd.
 */
#ifndef RUNG_ALPHA_STEPS_H
#define RUNG_ALPHA_STEPS_H
#include "samplers/method.h"

/** Timesteps by the config's spacing, training noise, init_sigma 1. RUNG_EARG: more steps than were trained, a timestep
 *  past the end, a prediction that alpha = 0 makes impossible. */
rung_status alpha_open(rung_sampler *s, rung_err *err);

/** The same for lcm and tcd: a subset of original_inference_steps. */
rung_status alpha_open_distilled(rung_sampler *s, rung_err *err);

/** alphas_cumprod[t]; below 0 it is `final`: 1 or alphas_cumprod[0]. */
float alpha_prod(const rung_sampler *s, long t);
/** The same for the timestep of a step: -1 (a rounding quirk of trailing) wraps to the last, as Python's index does. */
float alpha_prod_here(const rung_sampler *s, long t);

/** num_train_timesteps / steps: the distance from a timestep to the one before. */
long alpha_stride(const rung_sampler *s);

rung_status alpha_check(const rung_sampler *s, rung_err *err);
#endif
