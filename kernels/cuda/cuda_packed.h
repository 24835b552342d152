/* kernels/cuda/cuda_packed.h - linear weights that our own tensor-core kernels read. Internal to kernels/cuda. */
#ifndef RUNG_CUDA_PACKED_H
#define RUNG_CUDA_PACKED_H
#include "kernels/cuda/cuda_ops.h"

typedef enum {
    CUDA_PACKED_NONE,   /* dense 16- and 32-bit weights: the libraries' */
    CUDA_PACKED_FPX,    /* six bits: kernels/tc_fpx.h */
    CUDA_PACKED_BITMAP, /* sparse six bits: kernels/fp6_strips.h */
    CUDA_PACKED_CSL,    /* sparse 16 bits: kernels/tiled_csl.h */
} cuda_packed_form;

/* On the device. */
typedef struct {
    cuda_packed_form form;
    void *items, *bitmap, *at; /* NULL where the form has none */
} cuda_packed;

/* From so many rows of x on the weights are expanded to 16 bits in scratch and multiplied by cuBLASLt. Ours expand a
 * weight again for every 64 rows; expanding it once costs about 5 bytes of traffic, at a GPU's peaks the time of 390
 * (4090) to 700 rows (H100) of arithmetic; published six-bit kernels fall behind dense f16 from 256 rows on
 * (pytorch/ao, pull 223). An estimate: no GPU has measured it here. */
enum { CUDA_PACKED_LARGE = 512 };

cuda_packed_form cuda_packed_choose(const weight_stack *s);

/** w: sizes, factors and bias; its w->w stays NULL. RUNG_EFORMAT, RUNG_ESHAPE, RUNG_ENOMEM, RUNG_EDEVICE. */
rung_status cuda_packed_open(cuda_backend *c, cuda_packed *out, cuda_matrix *w, const weight_stack *s,
                             const gemm_part *parts, size_t count, rung_err *err);
void cuda_packed_close(cuda_backend *c, cuda_packed *p); /* a zeroed one is fine */

/** y = ep(x W^T): x f16 [m, w->kp], or bf16 [2, m, w->kp], as the weights are; zeros behind their columns. */
void cuda_packed_run(cuda_backend *c, float *y, const void *x, size_t m, const cuda_packed *p, const cuda_matrix *w,
                     const rung_epilogue *ep);
#endif
