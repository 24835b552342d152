#include "samplers/dpm_singles.h"

#include <math.h>

static const float two_thirds = 2.0f / 3;

rung_status dpm_singles_open(rung_sampler *s, dpm_singles *q, rung_err *err) {
    float **all[] = {&q->eps, &q->eps_1, &q->eps_2, &q->inner, &q->turn};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (!(*all[i] = sampler_array(s, err))) return RUNG_ENOMEM;
    }
    return RUNG_OK;
}

rung_status dpm_eps(rung_sampler *s, const sampler_io *io, const float *x, float t, float *eps) {
    const float sigma = expf(-t);
    RUNG_TRY(denoise_ve(s, io, x, sigma, s->pred, NULL));
    MIX(s, eps, sigma, {1, x}, {-1, s->pred});
    return RUNG_OK;
}

/* out = x - move * eps - bend * (later - eps): the difference first, for it is small */
static void follow(const rung_sampler *s, const dpm_singles *q, const float *x, float move, float bend,
                   const float *later, float *out) {
    MIX(s, q->turn, 1, {1, later}, {-1, q->eps});
    MIX(s, out, 1, {1, x}, {-move, q->eps}, {-bend, q->turn});
}

rung_status dpm_inner_1(rung_sampler *s, dpm_singles *q, const sampler_io *io, const float *x, float t, float t_next,
                        float r) {
    const float h = t_next - t, at = t + r * h, move = expf(-at) * expm1f(r * h);
    MIX(s, q->inner, 1, {1, x}, {-move, q->eps});
    return dpm_eps(s, io, q->inner, at, q->eps_1);
}

rung_status dpm_inner_2(rung_sampler *s, dpm_singles *q, const sampler_io *io, const float *x, float t, float t_next) {
    const float h = t_next - t, at = t + two_thirds * h, e = expm1f(two_thirds * h), sigma = expf(-at);
    const float move = sigma * e, bend = sigma * 2 * (e / (two_thirds * h) - 1);
    follow(s, q, x, move, bend, q->eps_1, q->inner);
    return dpm_eps(s, io, q->inner, at, q->eps_2);
}

void dpm_finish_1(const rung_sampler *s, const dpm_singles *q, const float *x, float t, float t_next, float *out) {
    const float move = expf(-t_next) * expm1f(t_next - t);
    MIX(s, out, 1, {1, x}, {-move, q->eps});
}

void dpm_finish_2(const rung_sampler *s, const dpm_singles *q, const float *x, float t, float t_next, float r,
                  float *out) {
    const float sigma = expf(-t_next), e = expm1f(t_next - t), move = sigma * e, bend = sigma / (2 * r) * e;
    follow(s, q, x, move, bend, q->eps_1, out);
}

void dpm_finish_3(const rung_sampler *s, const dpm_singles *q, const float *x, float t, float t_next, float *out) {
    const float h = t_next - t, sigma = expf(-t_next), e = expm1f(h);
    const float move = sigma * e, bend = sigma / two_thirds * (e / h - 1);
    follow(s, q, x, move, bend, q->eps_2, out);
}

void dpm_ancestral(float t, float t_next, float t_end, float eta, float *stop, float *up) {
    float down, unused;
    *stop = t_next;
    *up = 0;
    if (eta == 0) return;
    ancestral_step(expf(-t), expf(-t_next), eta, &down, &unused);
    *stop = fminf(t_end, -logf(down));
    const float to = expf(-t_next), at = expf(-*stop);
    *up = sqrtf(fmaxf(to * to - at * at, 0));
}
