/* Linear multistep in sigma, order 4: LMSDiscreteScheduler.step. */
#include <math.h>

#include "samplers/sigma_steps.h"

static rung_status lms_open(rung_sampler *s, rung_err *err) {
    ring *slopes = sampler_state(s, sizeof *slopes, err);
    if (!slopes) return RUNG_ENOMEM;
    RUNG_TRY(ring_open(s, slopes, 4, err));
    return sigma_open(s, SIGMA_LMS, err);
}

/* The Lagrange polynomial of point j among the last `order` sigmas, integrated over step i. Its degree is at most 3, so
 * two Gauss points are exact. */
static float weight(const float *sigma, int i, int j, int order) {
    const double a = sigma[i], b = sigma[i + 1], half = (b - a) / 2, node = half / sqrt(3);
    double sum = 0;
    for (int side = -1; side <= 1; side += 2) {
        const double tau = (a + b) / 2 + side * node;
        double product = 1;
        for (int k = 0; k < order; k++) {
            if (k != j) product *= (tau - (double)sigma[i - k]) / ((double)sigma[i - j] - (double)sigma[i - k]);
        }
        sum += product;
    }
    return (float)(sum * half);
}

static rung_status lms_step(rung_sampler *s, int i, float *x, const sampler_io *io) {
    ring *slopes = s->state;
    const float sigma = s->table.sigma[i];
    RUNG_TRY(sigma_x0(s, io, x, sigma, s->table.t[i]));
    float *newest = ring_push(slopes);
    MIX(s, newest, sigma, {1, x}, {-1, s->pred});
    rung_term terms[1 + RING_MAX] = {{1, x}};
    for (int j = 0; j < slopes->filled; j++)
        terms[j + 1] = (rung_term){weight(s->table.sigma, i, j, slopes->filled), ring_at(slopes, j)};
    mix(s, x, 1, terms, (size_t)slopes->filled + 1);
    return RUNG_OK;
}

const sampler_method method_lms = {lms_open, lms_step};
