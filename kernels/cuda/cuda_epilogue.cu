/* kernels/cuda/cuda_epilogue.cu - what a product's sums go through where the library has no epilogue for it.
 * grid: blocks_for(outputs).  block: NT.  Bytes: 4 out, 2 or 4 in for each sum, 4 for a residual. */
#include "kernels/cuda/cuda_common.h"

static __device__ inline float read_sum(const cuda_epilogue_args &a, size_t r, size_t c) {
    const size_t i = r * a.sums_row + c;
    float v;
    if (a.kind == CUDA_X_F32)
        v = ((const float *)a.sums)[i];
    else
        v = __half2float(((const __half *)a.sums)[i]);
    if (a.kind == CUDA_X_F16 && !(fabsf(v) < INFINITY)) atomicOr(a.range, 1u);
    return before_act(a, r, c, v);
}

__global__ void epilogue(cuda_epilogue_args a, size_t n) {
    EACH(i, a.m * n) {
        const size_t r = i / n, c = i % n;
        float v = read_sum(a, r, c);
        if (a.ep.act == RUNG_ACT_GEGLU)
            v *= apply_act(read_sum(a, r, n + c), RUNG_ACT_GELU);
        else
            v = apply_act(v, a.ep.act);
        a.y[r * a.y_row + c] = after_act(a, r, c, v);
    }
}

void cuda_k_epilogue(cudaStream_t s, const cuda_epilogue_args *args) {
    const cuda_epilogue_args a = *args;
    const size_t n = a.ep.act == RUNG_ACT_GEGLU ? a.n / 2 : a.n;
    if (a.m && n) RUNG_LAUNCH(epilogue, blocks_for(a.m * n), NT, 0, s, a, n);
}
