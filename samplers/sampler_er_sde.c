/* Extended reverse-time SDE, Cui et al. 2023 (arXiv 2309.06169), stages 1 to 3, with ComfyUI's noise scaler and 200
 * integration points: its sample_er_sde on a variance-exploding sample (alpha = 1). */
#include <math.h>

#include "samplers/sigma_steps.h"

enum { POINTS = 200 };

typedef struct {
    ring x0, slope; /* slope: (x0 - older x0) / (sigma - older sigma) */
} er_sde;

static rung_status er_open(rung_sampler *s, rung_err *err) {
    er_sde *q = sampler_state(s, sizeof *q, err);
    if (!q) return RUNG_ENOMEM;
    RUNG_TRY(ring_open(s, &q->x0, 2, err));
    RUNG_TRY(ring_open(s, &q->slope, 2, err));
    return sigma_open_list(s, err);
}

static float scaler(float x) { return x * (expf(powf(x, 0.3f)) + 10); }

/* Integrals over [to, from] of 1 / scaler and (lambda - from) / scaler, by rectangles */
static void integrals(float from, float to, float *plain, float *weighted) {
    const float step = (from - to) / POINTS;
    double a = 0, b = 0;
    for (int k = 0; k < POINTS; k++) {
        const float at = to + (float)k * step, scaled = scaler(at);
        a += (double)(1 / scaled);
        b += (double)((at - from) / scaled);
    }
    *plain = (float)a * step;
    *weighted = (float)b * step;
}

static rung_status er_step(rung_sampler *s, int i, float *x, const sampler_io *io) {
    er_sde *q = s->state;
    const float *sigma = s->table.sigma, from = sigma[i], to = sigma[i + 1];
    float *now = ring_push(&q->x0);
    RUNG_TRY(denoise_ve(s, io, x, from, now, NULL));
    if (to == 0) {
        MIX(s, x, 1, {1, now});
        return RUNG_OK;
    }
    const float r = scaler(to) / scaler(from), dt = to - from;
    MIX(s, x, 1, {r, x}, {1 - r, now});
    if (i > 0) {
        float plain, weighted;
        integrals(from, to, &plain, &weighted);
        const float w1 = dt + plain * scaler(to), w2 = dt * dt / 2 + weighted * scaler(to);
        const float *older = ring_at(&q->x0, 1), gap = from - sigma[i - 1];
        float *slope = ring_push(&q->slope);
        const float *older_slope = ring_at(&q->slope, 1), wide = i > 1 ? (from - sigma[i - 2]) / 2 : 1;
        MIX(s, slope, gap, {1, now}, {-1, older});
        if (i > 1)
            MIX(s, x, 1, {1, x}, {w1 + w2 / wide, slope}, {-w2 / wide, older_slope});
        else
            MIX(s, x, 1, {1, x}, {w1, slope});
    }
    return sigma_add_noise(s, io, x, sqrtf(fmaxf(to * to - from * from * (r * r), 0)));
}

const sampler_method method_er_sde = {er_open, er_step};
