/* kernels/cuda/cuda_step.cu - the arithmetic of a sampling step: timestep embeddings, the samplers' updates, torch's
 * random numbers. A thread for each output (sinusoids: for a pair). Grid blocks_for(threads), block NT. */
#include "kernels/base/philox.h"
#include "kernels/cuda/cuda_common.h"

/* Bytes: 8 for a pair. Rounded as the host does it (kernels/step_math.c), in f64 between f32 numbers; in units of pi,
 * where large angles need no long division. */
__global__ void sinusoids_f32(float *y, const float *t, size_t rows, size_t dim, bool flip, float below) {
    const size_t wide = dim / 2, each = wide + dim % 2;
    EACH(i, rows * each) {
        const size_t row = i / each, j = i % each;
        float *const out = y + row * dim;
        if (j == wide) {
            out[dim - 1] = 0;
            continue;
        }
        const float exponent = -9.210340371976184f * (float)j / below; /* ln 10000 */
        const float angle = t[row] * (float)exp((double)exponent);
        double sine, cosine;
        sincospi((double)angle * 0.31830988618379067, &sine, &cosine); /* 1 / pi */
        out[flip ? wide + j : j] = (float)sine;
        out[flip ? j : wide + j] = (float)cosine;
    }
}

struct combine_args {
    float *y, over;
    rung_term terms[RUNG_MOST_TERMS];
    unsigned count;
    size_t n;
};

/* Bytes: 4 (terms + 1) for an output. Products are rounded before they are added, as on the host. */
__global__ void combine_f32(combine_args a) {
    EACH(i, a.n) {
        float v = a.terms[0].w * a.terms[0].x[i];
        for (unsigned j = 1; j < a.count; j++) v = __fadd_rn(v, __fmul_rn(a.terms[j].w, a.terms[j].x[i]));
        a.y[i] = v / a.over;
    }
}

/* Bytes: 4 for an output; ten rounds of four 32-bit multiplications. The sine is the GPU's fast one, as in cuRAND's
 * curand_normal, which torch calls: within 1e-6 of the host's. */
__global__ void normal_f32(float *y, size_t n, uint64_t seed, uint64_t offset) {
    EACH(i, n) {
        const philox_pair p = philox_normal_bits(seed, offset, i);
        y[i] = sqrtf(-2.0f * logf(p.u)) * __sinf(p.v);
    }
}

void cuda_k_sinusoids(cudaStream_t s, float *y, const float *t, size_t rows, size_t dim, bool flip, double shift) {
    const size_t wide = dim / 2;
    if (rows && dim)
        RUNG_LAUNCH(sinusoids_f32, blocks_for(rows * (wide + dim % 2)), NT, 0, s, y, t, rows, dim, flip,
                    (float)((double)wide - shift));
}

void cuda_k_combine(cudaStream_t s, float *y, const rung_term *terms, size_t count, float over, size_t n) {
    combine_args a = {};
    a.y = y, a.over = over, a.count = (unsigned)count, a.n = n;
    for (size_t j = 0; j < count; j++) a.terms[j] = terms[j];
    if (n) RUNG_LAUNCH(combine_f32, blocks_for(n), NT, 0, s, a);
}

void cuda_k_normal(cudaStream_t s, float *y, size_t n, uint64_t seed, uint64_t offset) {
    if (n) RUNG_LAUNCH(normal_f32, blocks_for(n), NT, 0, s, y, n, seed, offset);
}
