#include "samplers/sigma_lists.h"

#include <ctype.h>
#include <math.h>

static const char *const names[SCHEDULES] = {
    "default", "karras",       "exponential",      "beta",       "lu",  "polyexponential", "sgm_uniform", "simple",
    "normal",  "ddim_uniform", "linear_quadratic", "kl_optimal", "ays", "ays_sdxl",        "custom",
};

static const struct {
    const char *name;
    schedule_id id;
} aliases[] = {
    {"automatic", SCHEDULE_DEFAULT},    {"discrete", SCHEDULE_DEFAULT},  {"sgmuniform", SCHEDULE_SGM_UNIFORM},
    {"align_your_steps", SCHEDULE_AYS}, {"ddim", SCHEDULE_DDIM_UNIFORM}, {"uniform", SCHEDULE_NORMAL},
};

const char *schedule_name(schedule_id id) { return id < SCHEDULES ? names[id] : NULL; }

/* "SGM Uniform" is "sgm_uniform" */
static bool same_name(const char *a, const char *b) {
    for (; *a && *b; a++, b++) {
        const int x = *a == ' ' || *a == '-' ? '_' : tolower((unsigned char)*a);
        if (x != *b) return false;
    }
    return *a == *b;
}

schedule_id schedule_find(const char *name) {
    for (int i = 0; i < SCHEDULE_CUSTOM; i++) {
        if (same_name(name, names[i])) return (schedule_id)i;
    }
    for (size_t i = 0; i < sizeof aliases / sizeof aliases[0]; i++) {
        if (same_name(name, aliases[i].name)) return aliases[i].id;
    }
    return SCHEDULES;
}

static size_t ddim_stride(const train_noise *t, size_t steps) { return t->n / steps > 1 ? t->n / steps : 1; }

size_t sigma_list_steps(schedule_id id, const train_noise *t, size_t steps) {
    if (id != SCHEDULE_DDIM_UNIFORM) return steps;
    const size_t stride = ddim_stride(t, steps);
    return (t->n - 1 + stride - 1) / stride;
}

/* log-linear through the published points (Sabour et al. 2024, "Align Your Steps") */
static double align_your_steps(bool sdxl, size_t n, size_t i) {
    static const double published[2][11] = {
        {14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029},
        {14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029},
    };
    const double *p = published[sdxl];
    /* the interpolation runs upwards from the smallest */
    const double at = linspace_f64(0, 1, n, n - 1 - i) * 10;
    const int j = at >= 10 ? 9 : (int)at;
    const double a = log(p[10 - j]), b = log(p[9 - j]);
    return exp(a + (b - a) * (at - j));
}

/* linear up to 0.025 in the first half of the steps, quadratic from there to 1; the list runs from 1 down to 0 */
static double linear_quadratic(size_t n, size_t i) {
    const double threshold = 0.025, steps = (double)n, x = (double)i;
    const double linear = (double)(n / 2), quadratic = steps - linear;
    if (n == 1) return 1.0 - x;
    if (i < n / 2) return 1.0 - x * threshold / linear;
    if (i == n) return 0;
    const double excess = linear - threshold * steps;
    const double a = excess / (linear * quadratic * quadratic);
    const double b = threshold / linear - 2 * excess / (quadratic * quadratic);
    return 1.0 - (a * x * x + b * x + a * linear * linear);
}

static double list_element(schedule_id id, const train_noise *t, size_t n, size_t i) {
    const float lo = t->sigmas[0], hi = t->sigmas[t->n - 1];
    const float last = (float)(t->n - 1);
    switch (id) {
    case SCHEDULE_KARRAS:
        return spread_karras(hi, lo, 7, n, i);
    case SCHEDULE_EXPONENTIAL: /* and polyexponential with its default rho = 1 */
    case SCHEDULE_POLYEXPONENTIAL:
        return spread_exponential(hi, lo, n, i);
    case SCHEDULE_BETA:
        return spread_beta(hi, lo, n, i);
    case SCHEDULE_SGM_UNIFORM:
        return train_t_to_sigma(t, linspace_f32(last, 0, n + 1, i));
    case SCHEDULE_SIMPLE:
        return t->sigmas[t->n - 1 - (size_t)((double)i * ((double)t->n / (double)n))];
    case SCHEDULE_LINEAR_QUADRATIC:
        return linear_quadratic(n, i) * (double)hi;
    case SCHEDULE_KL_OPTIMAL: {
        const double w = (double)i / (double)n;
        return tan(w * atan((double)lo) + (1 - w) * atan((double)hi));
    }
    case SCHEDULE_AYS:
    case SCHEDULE_AYS_SDXL:
        return align_your_steps(id == SCHEDULE_AYS_SDXL, n, i);
    default:
        return train_t_to_sigma(t, linspace_f32(last, 0, n, i)); /* k-diffusion's own, and "normal" */
    }
}

void sigma_list_fill(schedule_id id, const train_noise *t, size_t steps, float *sigma) {
    const size_t n = sigma_list_steps(id, t, steps);
    for (size_t i = 0; i < n; i++) {
        if (id == SCHEDULE_DDIM_UNIFORM)
            sigma[i] = t->sigmas[1 + (n - 1 - i) * ddim_stride(t, steps)];
        else
            sigma[i] = (float)list_element(id, t, n, i);
    }
    sigma[n] = id == SCHEDULE_KL_OPTIMAL ? (float)list_element(id, t, n, n) : 0;
}
