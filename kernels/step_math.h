/* kernels/step_math.h - the small arithmetic of a sampling step on host memory: what the CPU backend does, what
 * samplers without a backend do, and what other backends are held against. Meanings: kernels/backend.h. */
#ifndef RUNG_STEP_MATH_H
#define RUNG_STEP_MATH_H
#include "kernels/backend.h"

/** rung_backend_ops.combine, in f32 in the terms' order. */
void rung_combine(float *y, const rung_term *terms, size_t count, float over, size_t n);

/** rung_backend_ops.sinusoids. Rounded step by step as diffusers get_timestep_embedding: at t = 999 one ulp of a
 * frequency is 6e-5 of the angle. shift != dim / 2. */
void rung_sinusoids(float *y, const float *t, size_t rows, size_t dim, bool flip, double shift);
#endif
