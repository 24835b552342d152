/* kernels/cuda/cuda_common.h - what the simple kernels share. Read by .cu files only. */
#ifndef RUNG_CUDA_COMMON_H
#define RUNG_CUDA_COMMON_H
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/launch.h"

/* Threads of a block, and most blocks of a kernel that loops over its elements: enough to fill any GPU. */
enum { NT = 256, MOST_BLOCKS = 8192 };

static inline unsigned blocks_for(size_t n) {
    const size_t blocks = (n + NT - 1) / NT;
    return blocks < MOST_BLOCKS ? (unsigned)blocks : (unsigned)MOST_BLOCKS;
}

/* for each element i < n of a kernel launched with blocks_for(n), NT */
#define EACH(i, n) for (size_t i = (size_t)blockIdx.x * NT + threadIdx.x; i < (n); i += (size_t)gridDim.x * NT)

enum { E3M2_BITS = 6 };

/* The bits S EEE MM are those of an f16 with a smaller exponent bias: 2^12 puts it right, exactly, subnormals too. */
static __device__ inline float e3m2_value(unsigned code) {
    return __half2float(__ushort_as_half((unsigned short)((code & 32) << 10 | (code & 31) << 8))) * 4096.0f;
}

static __device__ inline float apply_act(float v, rung_act act) {
    switch (act) {
    case RUNG_ACT_RELU:
        return v < 0 ? 0.0f : v; /* NaN stays NaN */
    case RUNG_ACT_SILU:
        return v / (1 + expf(-v));
    case RUNG_ACT_GELU:
    case RUNG_ACT_GEGLU: /* its gate */
        return 0.5f * v * (1 + erff(v * 0.70710678f));
    case RUNG_ACT_GELU_TANH:
        return 0.5f * v * (1 + tanhf(0.79788456f * (v + 0.044715f * v * v * v)));
    case RUNG_ACT_QUICK_GELU:
        return v / (1 + expf(-1.702f * v));
    case RUNG_ACT_NONE:
        break;
    }
    return v;
}

/* A sum of row r, column c on its way through rung_epilogue (kernels/backend.h): up to the activation, from it on, and
 * all of it. GEGLU takes two sums and is its caller's. */
static __device__ inline float before_act(const cuda_epilogue_args &a, size_t r, size_t c, float v) {
    if (a.scale) v *= a.scale[c];
    if (a.bias) v += a.bias[c];
    if (a.ep.sample_add) v += a.ep.sample_add[r / a.ep.rows_per_sample * a.ep.sample_add_stride + c];
    return v;
}
static __device__ inline float after_act(const cuda_epilogue_args &a, size_t r, size_t c, float v) {
    const size_t n = a.ep.act == RUNG_ACT_GEGLU ? a.n / 2 : a.n;
    if (a.ep.gate) v *= a.ep.gate[r / a.ep.rows_per_sample * a.ep.gate_stride + c];
    if (a.ep.residual) v += a.ep.residual[r * n + c];
    if (a.ep.out_scale != 0) v *= a.ep.out_scale;
    return v;
}
static __device__ inline float finish_sum(const cuda_epilogue_args &a, size_t r, size_t c, float v) {
    return after_act(a, r, c, apply_act(before_act(a, r, c, v), a.ep.act));
}

static __device__ inline float warp_sum(float v) {
    for (int d = 16; d > 0; d /= 2) v += __shfl_xor_sync(0xffffffffu, v, d);
    return v;
}
#endif
