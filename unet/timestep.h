/* unet/timestep.h - numbers as sinusoids, and the two-layer network over them: the time embedding of every denoiser. */
#ifndef RUNG_TIMESTEP_H
#define RUNG_TIMESTEP_H
#include "assets/loader.h"
#include "kernels/ops.h"

/** f32 [rows, dim] in the arena, the sinusoids of t f32 [rows], host memory (kernels/backend.h; NULL in a dry run). */
float *timestep_sinusoids(const rung_exec *x, const float *t, size_t rows, size_t dim, bool flip, double shift);

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
