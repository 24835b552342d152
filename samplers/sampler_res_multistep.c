/* RES multistep, Zhang et al. 2023 (arXiv 2308.02157), second order: ComfyUI's res_multistep; eta > 0 makes it
 * ancestral, as its res_multistep_ancestral. */
#include <math.h>

#include "samplers/sigma_steps.h"

typedef struct {
    ring x0;
    float down; /* where the last step stopped */
} res;

static rung_status res_open(rung_sampler *s, rung_err *err) {
    res *q = sampler_state(s, sizeof *q, err);
    if (!q) return RUNG_ENOMEM;
    RUNG_TRY(ring_open(s, &q->x0, 2, err));
    return sigma_open_list(s, err);
}

static float phi_1(float t) { return expm1f(t) / t; }

static rung_status res_step(rung_sampler *s, int i, float *x, const sampler_io *io) {
    res *q = s->state;
    const float sigma = s->table.sigma[i], next = s->table.sigma[i + 1], eta = sampler_eta(s, 0);
    float down, up, *now = ring_push(&q->x0);
    ancestral_step(sigma, next, eta, &down, &up);
    RUNG_TRY(denoise_ve(s, io, x, sigma, now, NULL));
    if (down == 0 || i == 0) {
        sigma_euler(s, x, now, sigma, down - sigma);
    } else {
        const float *old = ring_at(&q->x0, 1);
        const float h = logf(sigma) - logf(down), c2 = (logf(q->down) - logf(s->table.sigma[i - 1])) / h;
        const float one = phi_1(-h), two = (one - 1) / -h;
        float b1 = one - two / c2, b2 = two / c2;
        if (isnan(b1)) b1 = 0;
        if (isnan(b2)) b2 = 0;
        const float shrink = expf(-h);
        MIX(s, x, 1, {shrink, x}, {h * b1, now}, {h * b2, old});
    }
    q->down = down;
    return next > 0 && eta > 0 ? sigma_add_noise(s, io, x, up) : RUNG_OK;
}

const sampler_method method_res_multistep = {res_open, res_step};
