#include "kernels/step_math.h"

#include <math.h>

void rung_combine(float *y, const rung_term *terms, size_t count, float over, size_t n) {
    for (size_t i = 0; i < n; i++) {
        float v = terms[0].w * terms[0].x[i];
        for (size_t j = 1; j < count; j++) v += terms[j].w * terms[j].x[i];
        y[i] = v / over;
    }
}

void rung_sinusoids(float *y, const float *t, size_t rows, size_t dim, bool flip, double shift) {
    const size_t half = dim / 2;
    for (size_t i = 0; i < rows; i++, y += dim) {
        float *sines = y + (flip ? half : 0), *cosines = y + (flip ? 0 : half);
        for (size_t j = 0; j < half; j++) {
            const float exponent = (float)-log(10000) * (float)j / (float)((double)half - shift);
            const float angle = t[i] * (float)exp((double)exponent);
            sines[j] = (float)sin((double)angle);
            cosines[j] = (float)cos((double)angle);
        }
        if (dim % 2) y[dim - 1] = 0;
    }
}
