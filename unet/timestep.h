/* unet/timestep.h - numbers as sinusoids, and the two-layer network over them: the time embedding of every denoiser. */
#ifndef RUNG_TIMESTEP_H
#define RUNG_TIMESTEP_H
#include "assets/loader.h"
#include "kernels/ops.h"

/**
 * out f32 [n, dim], host memory: row i is [sin(t_i f_j)..., cos(t_i f_j)...], f_j = 10000^(-j / (dim/2 - shift)),
 * the two halves exchanged by `flip`; an odd dim ends in 0. t f32 [n]. shift != dim / 2.
 * Rounded step by step as diffusers get_timestep_embedding: at t = 999 one ulp of f_j is 6e-5 of the angle.
 */
void timestep_sinusoids(float *out, const float *t, size_t n, size_t dim, bool flip, double shift);

/* linear_2(silu(linear_1(x))): diffusers' TimestepEmbedding. */
typedef struct {
    size_t in, out;
    const rung_linear *linear_1, *linear_2;
} time_mlp;

void time_mlp_load(time_mlp *m, rung_loader *l, size_t in, size_t out, const char *name);

/** y f32 [rows, m->out] = m(sinusoids f32 [rows, m->in]) + add[r * add_stride + c] (NULL: nothing added). */
void time_mlp_run(const rung_exec *x, const time_mlp *m, float *y, const float *sinusoids, size_t rows,
                  const float *add, size_t add_stride);

/** 1 when all n numbers are equal (one row then serves every picture), else n; n too when t is NULL (a dry run). */
size_t timestep_rows(const float *t, size_t n);
#endif
