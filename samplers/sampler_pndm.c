/* Pseudo numerical methods, Liu et al. 2022, eq. 9 and 11: PNDMScheduler, with the Runge-Kutta start (prk) or, as
 * latent diffusion uses it, without (plms). */
#include <math.h>

#include "samplers/alpha_steps.h"

typedef struct {
    ring eps;     /* raw predictions */
    float *kept;  /* the sample that several calls start from */
    float *mixed; /* prediction that a step moves along */
    size_t prk;   /* calls of the Runge-Kutta start */
} pndm;

/* _timesteps[i] in rising order */
static double rising(const double *t, size_t n, size_t i) { return t[n - 1 - i]; }

/* Each of the last four timesteps is visited four times: itself, twice half a stride on, the next. */
static size_t prk_timesteps(const rung_sampler *s, const double *t, size_t n, double *out) {
    double base[8];
    const long half = alpha_stride(s) / 2;
    for (size_t i = 0; i < 8; i++) base[i] = rising(t, n, n - 4 + i / 2) + (double)(i % 2 ? half : 0);
    size_t count = 0;
    for (size_t i = 13; i-- > 1;) out[count++] = base[i / 2];
    return count;
}

static rung_status pndm_timesteps(rung_sampler *s, double *spaced, rung_err *err) {
    size_t n = spaced_timesteps(&s->c, s->steps, true, spaced), count = 0;
    double *t = s->table.t;
    pndm *p = s->state;
    if (s->c.skip_prk_steps) { /* the second one twice */
        for (size_t i = 0; i < n; i++) {
            t[count++] = spaced[i];
            if (i == 1) t[count++] = spaced[i];
        }
    } else {
        if (n < 4)
            return rung_fail(err, RUNG_EARG, "sampler pndm: the Runge-Kutta start takes at least 4 steps, got %zu", n);
        p->prk = count = prk_timesteps(s, spaced, n, t);
        for (size_t i = 3; i < n; i++) t[count++] = spaced[i];
    }
    s->table.n = count;
    return alpha_check(s, err);
}

static rung_status pndm_open(rung_sampler *s, rung_err *err) {
    if (s->steps > (size_t)s->c.num_train_timesteps)
        return rung_fail(err, RUNG_EARG, "sampler pndm: %zu steps, the model has %ld training timesteps", s->steps,
                         s->c.num_train_timesteps);
    pndm *p = sampler_state(s, sizeof *p, err);
    if (!p) return RUNG_ENOMEM;
    RUNG_TRY(ring_open(s, &p->eps, 4, err));
    p->kept = sampler_array(s, err);
    p->mixed = sampler_array(s, err);
    double *spaced = sampler_alloc(s, s->steps + 2, sizeof(double), err);
    if (!p->kept || !p->mixed || !spaced) return RUNG_ENOMEM;
    RUNG_TRY(sampler_train(s, false, err));
    RUNG_TRY(sampler_table(s, s->steps + 12, err));
    s->init_sigma = 1;
    return pndm_timesteps(s, spaced, err);
}

/* eq. 9: from timestep t to `to` along the prediction in p->mixed */
static void transfer(const rung_sampler *s, const float *from, long t, long to, float *out) {
    const pndm *p = s->state;
    const float a = alpha_prod_here(s, t), prev = alpha_prod(s, to), b = 1 - a, b_prev = 1 - prev;
    const float root_a = sqrtf(a), root_b = sqrtf(b), scale = sqrtf(prev / a);
    const float below = a * sqrtf(b_prev) + sqrtf(a * b * prev);
    const float along = -(prev - a) / below;
    if (s->c.prediction == PREDICTS_V)
        MIX(s, out, 1, {scale + along * root_b, from}, {along * root_a, p->mixed});
    else
        MIX(s, out, 1, {scale, from}, {along, p->mixed});
}

static void step_prk(rung_sampler *s, size_t i, float *x) {
    static const float weights[4] = {1.0f / 6, 1.0f / 3, 1.0f / 3, 1.0f / 6};
    pndm *p = s->state;
    const size_t stage = i % 4;
    const long to = (long)s->table.t[i] - (i % 2 ? 0 : alpha_stride(s) / 2), t = (long)s->table.t[i - stage];
    if (stage == 0) {
        MIX(s, ring_push(&p->eps), 1, {1, s->pred});
        MIX(s, p->kept, 1, {1, x});
    }
    float *sum = s->noise; /* the method draws none: the weighted sum lives here over four calls */
    if (stage == 0)
        MIX(s, sum, 1, {weights[0], s->pred});
    else
        MIX(s, sum, 1, {1, sum}, {weights[stage], s->pred});
    MIX(s, p->mixed, 1, {1, stage == 3 ? sum : s->pred});
    transfer(s, p->kept, t, to, x);
}

static void step_plms(rung_sampler *s, size_t i, float *x) {
    pndm *p = s->state;
    long t = (long)s->table.t[i], to = t - alpha_stride(s);
    if (i == 1) { /* the same interval again, with the mean of both ends */
        to = t;
        t += alpha_stride(s);
        const float *first = ring_at(&p->eps, 0);
        MIX(s, p->mixed, 2, {1, s->pred}, {1, first});
        transfer(s, p->kept, t, to, x);
        return;
    }
    MIX(s, ring_push(&p->eps), 1, {1, s->pred});
    if (i == 0) MIX(s, p->kept, 1, {1, x});
    adams_bashforth(s, &p->eps, p->mixed);
    transfer(s, x, t, to, x);
}

static rung_status pndm_step(rung_sampler *s, int i, float *x, const sampler_io *io) {
    RUNG_TRY(run_model(s, io, x, s->table.t[i], s->pred, NULL));
    if ((size_t)i < ((pndm *)s->state)->prk)
        step_prk(s, (size_t)i, x);
    else
        step_plms(s, (size_t)i, x);
    return RUNG_OK;
}

const sampler_method method_pndm = {pndm_open, pndm_step};
