#include "samplers/method.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/size.h"
#include "kernels/step_math.h"

/* ---- memory ---- */

void *sampler_alloc(rung_sampler *s, size_t count, size_t size, rung_err *err) {
    enum { ROOM = sizeof s->blocks / sizeof s->blocks[0] };
    void *p = s->n_blocks < ROOM ? calloc(count ? count : 1, size) : NULL;
    if (!p) {
        rung_fail(err, RUNG_ENOMEM, "sampler %s: %zu elements of %zu bytes", s->entry->row.name, count, size);
        return NULL;
    }
    return s->blocks[s->n_blocks++] = p;
}

float *sampler_floats(rung_sampler *s, size_t count, rung_err *err) {
    return sampler_alloc(s, count, sizeof(float), err);
}

float *sampler_array(rung_sampler *s, rung_err *err) {
    enum { ROOM = sizeof s->arrays / sizeof s->arrays[0] };
    void *p = NULL;
    if (!s->be) return sampler_floats(s, s->total, err);
    if (s->n_arrays == ROOM || s->be->ops->mem_alloc(s->be, &p, s->total * sizeof(float), err)) {
        rung_fail(err, RUNG_ENOMEM, "sampler %s: %zu numbers on the device", s->entry->row.name, s->total);
        return NULL;
    }
    return s->arrays[s->n_arrays++] = p;
}

void mix(const rung_sampler *s, float *out, float over, const rung_term *terms, size_t count) {
    if (s->be)
        s->be->ops->combine(s->be, out, terms, count, over, s->total);
    else
        rung_combine(out, terms, count, over, s->total);
}

void *sampler_state(rung_sampler *s, size_t size, rung_err *err) { return s->state = sampler_alloc(s, 1, size, err); }

rung_status sampler_table(rung_sampler *s, size_t steps, rung_err *err) {
    /* rounding can make one step more, and log_linear has one sigma more */
    s->table = (timetable){
        .n = steps, .t = sampler_alloc(s, steps + 2, sizeof(double), err), .sigma = sampler_floats(s, steps + 3, err)};
    return s->table.t && s->table.sigma ? RUNG_OK : RUNG_ENOMEM;
}

rung_status sampler_train(rung_sampler *s, bool patch_zero, rung_err *err) {
    return train_noise_open(&s->train, &s->c, patch_zero, err);
}

rung_status sampler_custom(rung_sampler *s, float most, rung_err *err) {
    if (s->n_custom > 0 && s->custom[s->n_custom - 1] == 0) s->n_custom--;
    const size_t n = s->n_custom;
    for (size_t i = 0; i < n; i++) {
        if (!(s->custom[i] > 0 && s->custom[i] <= most))
            return rung_fail(err, RUNG_EARG, "sigmas[%zu] is %g, wanted a positive number of at most %g", i,
                             (double)s->custom[i], (double)most);
        if (i > 0 && s->custom[i] >= s->custom[i - 1])
            return rung_fail(err, RUNG_EARG, "sigmas must fall: sigmas[%zu] is %g after %g", i, (double)s->custom[i],
                             (double)s->custom[i - 1]);
    }
    if (n == 0) return rung_fail(err, RUNG_EARG, "sigmas: the list has no positive value");
    return RUNG_OK;
}

rung_status sampler_list(rung_sampler *s, rung_err *err) {
    if (s->schedule == SCHEDULE_CUSTOM) RUNG_TRY(sampler_custom(s, FLT_MAX, err));
    const size_t n = s->schedule == SCHEDULE_CUSTOM ? s->n_custom : sigma_list_steps(s->schedule, &s->train, s->steps);
    RUNG_TRY(sampler_table(s, n, err));
    if (s->schedule == SCHEDULE_CUSTOM)
        memcpy(s->table.sigma, s->custom, n * sizeof(float));
    else
        sigma_list_fill(s->schedule, &s->train, s->steps, s->table.sigma);
    for (size_t i = 0; i < n; i++) s->table.t[i] = (float)train_sigma_to_t(&s->train, s->table.sigma[i]);
    return RUNG_OK;
}

float sampler_eta(const rung_sampler *s, float unset) { return isnan(s->eta) ? unset : s->eta; }

/* ---- callbacks ---- */

rung_status run_model(rung_sampler *s, const sampler_io *io, const float *x, double t, float *out, float *uncond) {
    s->calls++;
    const rung_status st = io->denoise(io->denoise_user, out, uncond, x, (float)t, io->err);
    return st ? rung_fail(io->err, st, "sampler %s: the denoiser failed", s->entry->row.name) : RUNG_OK;
}

rung_status run_model_ve(rung_sampler *s, const sampler_io *io, const float *x, float sigma, double t, float *out,
                         float *uncond) {
    const float scale = sqrtf(sigma * sigma + 1);
    MIX(s, s->scaled, scale, {1, x});
    return run_model(s, io, s->scaled, t, out, uncond);
}

rung_status denoise_ve(rung_sampler *s, const sampler_io *io, const float *x, float sigma, float *x0,
                       float *uncond_x0) {
    float *uncond = uncond_x0 ? s->uncond : NULL;
    RUNG_TRY(run_model_ve(s, io, x, sigma, train_sigma_to_t(&s->train, sigma), s->pred, uncond));
    x0_from_ve(s, s->c.prediction, sigma, x, s->pred, x0);
    if (uncond_x0) x0_from_ve(s, s->c.prediction, sigma, x, uncond, uncond_x0);
    return RUNG_OK;
}

rung_status draw_noise(rung_sampler *s, const sampler_io *io, float *out) {
    if (!io->noise)
        return rung_fail(io->err, RUNG_EARG, "sampler %s adds noise and was given none", s->entry->row.name);
    for (size_t p = 0; p < s->batch; p++) io->noise(io->noise_user, p, out + p * s->n, s->n);
    return RUNG_OK;
}

/* ---- predictions: the order of operations is torch's, so that large sigmas lose the same digits ---- */

void x0_from_vp(const rung_sampler *s, prediction p, float alpha, float sigma, const float *x, const float *pred,
                float *out) {
    if (p == PREDICTS_EPSILON)
        MIX(s, out, alpha, {1, x}, {-sigma, pred});
    else if (p == PREDICTS_V)
        MIX(s, out, 1, {alpha, x}, {-sigma, pred});
    else if (p == PREDICTS_FLOW)
        MIX(s, out, 1, {1, x}, {-sigma, pred});
    else
        MIX(s, out, 1, {1, pred});
}

void eps_from_vp(const rung_sampler *s, prediction p, float alpha, float sigma, const float *x, const float *pred,
                 float *out) {
    if (p == PREDICTS_SAMPLE)
        MIX(s, out, sigma, {1, x}, {-alpha, pred});
    else if (p == PREDICTS_V)
        MIX(s, out, 1, {alpha, pred}, {sigma, x});
    else
        MIX(s, out, 1, {1, pred});
}

void x0_from_ve(const rung_sampler *s, prediction p, float sigma, const float *x, const float *pred, float *out) {
    const float square = sigma * sigma + 1, slope = -sigma / sqrtf(square);
    if (p == PREDICTS_EPSILON)
        MIX(s, out, 1, {1, x}, {-sigma, pred});
    else if (p == PREDICTS_V)
        MIX(s, out, 1, {slope, pred}, {1 / square, x});
    else
        MIX(s, out, 1, {1, pred});
}

/* The k-th smallest of v[0..n): Hoare's quickselect; v is reordered so that all before k are <= v[k] */
static float select_kth(float *v, size_t n, size_t k) {
    size_t lo = 0, hi = n - 1;
    while (lo < hi) {
        const float pivot = v[lo + (hi - lo) / 2];
        size_t i = lo, j = hi;
        for (;;) {
            while (v[i] < pivot) i++;
            while (v[j] > pivot) j--;
            if (i >= j) break;
            const float swap = v[i];
            v[i++] = v[j];
            v[j--] = swap;
        }
        if (k <= j)
            hi = j;
        else
            lo = j + 1;
    }
    return v[k];
}

/* torch.quantile: linear between the two nearest order statistics */
static float quantile(float *v, size_t n, double q) {
    const float rank = (float)q * (float)(n - 1);
    const size_t below = (size_t)rank;
    const float w = rank - (float)below;
    const float a = select_kth(v, n, below);
    const float b = below + 1 < n ? select_kth(v, n, below + 1) : a;
    return w < 0.5f ? a + w * (b - a) : b - (b - a) * (1 - w);
}

static void threshold(rung_sampler *s, float *x0) {
    for (size_t k = 0; k < s->n; k++) {
        if (isnan(x0[k])) return; /* the selection below needs an order; the caller sees the NaN */
        s->sorted[k] = fabsf(x0[k]);
    }
    const float q = quantile(s->sorted, s->n, s->c.dynamic_thresholding_ratio);
    const float limit = fminf(fmaxf(q, 1), (float)s->c.sample_max_value);
    for (size_t k = 0; k < s->n; k++) x0[k] = fminf(fmaxf(x0[k], -limit), limit) / limit;
}

void settle_x0(rung_sampler *s, float *x0) {
    if (s->c.thresholding) {
        for (size_t p = 0; p < s->batch; p++) threshold(s, x0 + p * s->n);
    } else if (s->c.clip_sample) {
        const float r = (float)s->c.clip_sample_range;
        for (size_t k = 0; k < s->total; k++) x0[k] = x0[k] < -r ? -r : x0[k] > r ? r : x0[k];
    }
}

void ancestral_step(float from, float to, float eta, float *down, float *up) {
    const float from2 = from * from, to2 = to * to;
    *up = fminf(to, eta * sqrtf(to2 * (from2 - to2) / from2));
    *down = eta == 0 ? to : sqrtf(fmaxf(to2 - *up * *up, 0));
}

/* ---- history ---- */

rung_status ring_open(rung_sampler *s, ring *r, int depth, rung_err *err) {
    *r = (ring){.depth = depth};
    for (int i = 0; i < depth; i++) {
        r->slot[i] = sampler_array(s, err);
        if (!r->slot[i]) return RUNG_ENOMEM;
    }
    return RUNG_OK;
}

float *ring_push(ring *r) {
    r->newest = (r->newest + 1) % r->depth;
    if (r->filled < r->depth) r->filled++;
    return r->slot[r->newest];
}

float *ring_at(const ring *r, int back) { return r->slot[(r->newest + r->depth - back) % r->depth]; }

void adams_bashforth(const rung_sampler *s, const ring *r, float *out) {
    const float *a = ring_at(r, 0), *b = ring_at(r, 1), *c = ring_at(r, 2), *d = ring_at(r, 3);
    if (r->filled == 1)
        MIX(s, out, 1, {1, a});
    else if (r->filled == 2)
        MIX(s, out, 2, {3, a}, {-1, b});
    else if (r->filled == 3)
        MIX(s, out, 12, {23, a}, {-16, b}, {5, c});
    else
        MIX(s, out, 24, {55, a}, {-59, b}, {37, c}, {-9, d});
}
