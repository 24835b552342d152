#include "samplers/guidance.h"

#include <math.h>

/* The sample standard deviation (n - 1), as torch.std: sums of x and x^2 are kept by one pass in f64 */
typedef struct {
    double sum, squares;
} moments;

static void add(moments *m, float x) {
    m->sum += (double)x;
    m->squares += (double)x * x;
}

static double deviation(const moments *m, size_t n) {
    const double mean = m->sum / (double)n, left = m->squares - m->sum * mean;
    return sqrt((left > 0 ? left : 0) / (double)(n - 1));
}

void rung_guidance(float *out, const float *cond, const float *uncond, float scale, float phi, size_t batch, size_t n) {
    for (size_t p = 0; p < batch; p++, out += n, cond += n, uncond += n) {
        moments text = {0}, guided = {0};
        for (size_t k = 0; k < n; k++) {
            const float c = cond[k];
            /* scale 1 is cond to the bit */
            out[k] = scale == 1 ? c : uncond[k] + scale * (c - uncond[k]);
            add(&text, c);
            add(&guided, out[k]);
        }
        if (phi == 0 || n < 2) continue;
        const float ratio = (float)(deviation(&text, n) / deviation(&guided, n));
        for (size_t k = 0; k < n; k++) out[k] = phi * (out[k] * ratio) + (1 - phi) * out[k];
    }
}
