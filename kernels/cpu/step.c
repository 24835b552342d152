#include "kernels/base/rng.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/step_math.h"

void cpu_sinusoids(rung_backend *be, float *y, const float *t, size_t rows, size_t dim, bool flip, double shift) {
    (void)be;
    rung_sinusoids(y, t, rows, dim, flip, shift);
}

void cpu_combine(rung_backend *be, float *y, const rung_term *terms, size_t count, float over, size_t n) {
    (void)be;
    rung_combine(y, terms, count, over, n);
}

void cpu_normal(rung_backend *be, float *y, size_t n, uint64_t seed, uint64_t offset) {
    (void)be;
    rung_philox_normal(y, n, seed, offset);
}
