/* tests/test_sampler_order.c - on Gaussian data the answer is known: halving the step divides the error by 2^order, and
 * what adds noise ends with the right mean and deviation. */
#include <stdlib.h>
#include <string.h>

#include "kernels/base/rng.h"
#include "samplers/sampler.h"
#include "samplers/schedule.h"
#include "tests/check.h"

/* Fine training steps, so that rounding to whole timesteps does not show */
static const char config[] = "{\"num_train_timesteps\": 50000, \"beta_start\": 2e-6, \"beta_end\": 4e-4, "
                             "\"beta_schedule\": \"linear\", \"clip_sample\": false}";

enum { N = 64, MANY = 20000 };
static const float mean = 0.3f, deviation = 0.8f;

struct gauss {
    train_noise train;
    size_t n;
    rung_rng rng;
};

/* The exact epsilon for x0 ~ N(mean, deviation^2), at the network's input x = (x0 + sigma * eps) / sqrt(sigma^2 + 1) */
static rung_status denoise(void *user, float *out, float *uncond, const float *x, float t, rung_err *err) {
    const struct gauss *g = user;
    const double sigma = train_sigma_at(&g->train, (double)t), s2 = sigma * sigma, d2 = (double)deviation * deviation;
    (void)err;
    for (size_t k = 0; k < g->n; k++) {
        const double ve = (double)x[k] * sqrt(s2 + 1);
        out[k] = (float)((ve - (mean * s2 + d2 * ve) / (s2 + d2)) / sigma);
        if (uncond) uncond[k] = out[k];
    }
    return RUNG_OK;
}

static void noise(void *user, size_t picture, float *out, size_t n) {
    (void)picture;
    rung_rng_normal(&((struct gauss *)user)->rng, out, n);
}

static int gauss_open(struct gauss *g, size_t n) {
    sched_config c;
    rung_err err = {0};
    *g = (struct gauss){.n = n};
    rung_rng_seed(&g->rng, RUNG_RNG_CPU, 3);
    if (!CHECK(sched_config_read(&c, CLASS_EULER, config, &err) == RUNG_OK)) return 0;
    return CHECK(train_noise_open(&g->train, &c, false, &err) == RUNG_OK);
}

/* variance-exploding x at `from` -> the same point of the probability-flow ODE at `to` */
static double flow(double x, double from, double to) {
    const double d2 = (double)deviation * deviation;
    return mean + (x - mean) * sqrt((to * to + d2) / (from * from + d2));
}

/* x = the samples, start = their noise; returns the sigma of the last step */
static double run(const char *name, const char *schedule, float eta, int steps, struct gauss *g, float *x,
                  float *start) {
    rung_sampler_params p = {.sampler = name,
                             .schedule = schedule,
                             .config_json = config,
                             .steps = steps,
                             .eta = eta,
                             .batch = 1,
                             .n = g->n};
    rung_sampler *s = NULL;
    rung_err err = {0};
    rung_rng_seed(&g->rng, RUNG_RNG_CPU, 3);
    if (!CHECK(rung_sampler_open(&s, &p, &err) == RUNG_OK)) {
        fprintf(stderr, "  %s: %s\n", name, err.msg);
        return NAN;
    }
    noise(g, 0, start, g->n);
    for (size_t k = 0; k < g->n; k++) x[k] = start[k] * rung_sampler_init_sigma(s);
    for (int i = 0; i < rung_sampler_steps(s); i++)
        CHECK(rung_sampler_step(s, i, x, denoise, g, noise, g, &err) == RUNG_OK);
    const double last = (double)rung_sampler_timestep(s, rung_sampler_steps(s) - 1);
    rung_sampler_close(&s);
    return train_sigma_at(&g->train, last);
}

/* RMS distance to the exact solution. The last step of all is a jump to the prediction from the smallest sigma. */
static double error_at(const char *name, int steps, struct gauss *g) {
    float x[N], start[N];
    const double last = run(name, NULL, 0, steps, g, x, start), top = (double)g->train.sigmas[g->train.n - 1];
    const double d2 = (double)deviation * deviation;
    const int is_ve = strcmp(name, "ddim") != 0 && strcmp(name, "dpm++2m") != 0 && strcmp(name, "dpm++2s") != 0 &&
                      strcmp(name, "unipc") != 0;
    double sum = 0;
    for (int k = 0; k < N; k++) {
        const double ve = (double)start[k] * (is_ve ? top : sqrt(top * top + 1));
        const double at_last = flow(ve, top, last);
        const double want = (mean * last * last + d2 * at_last) / (last * last + d2);
        sum += ((double)x[k] - want) * ((double)x[k] - want);
    }
    return sqrt(sum / N);
}

static void order_is(const char *name, double least, double most, struct gauss *g) {
    const double coarse = error_at(name, 100, g), fine = error_at(name, 200, g), slope = log2(coarse / fine);
    if (!CHECK(slope >= least && slope <= most))
        fprintf(stderr, "  %s: errors %.3g, %.3g: order %.2f, wanted %g to %g\n", name, coarse, fine, slope, least,
                most);
}

/* What is stochastic draws from the data's own distribution */
static void distribution_is_kept(const char *name, const char *schedule, float eta, struct gauss *g) {
    float *x = malloc(2 * MANY * sizeof *x);
    double sum = 0, squares = 0;
    run(name, schedule, eta, 150, g, x, x + MANY);
    for (int k = 0; k < MANY; k++) {
        sum += (double)x[k];
        squares += (double)x[k] * x[k];
    }
    const double m = sum / MANY, d = sqrt(squares / MANY - m * m);
    if (!CHECK(fabs(m - mean) < 0.03 && fabs(d - deviation) < 0.03))
        fprintf(stderr, "  %s: mean %.4f, deviation %.4f\n", name, m, d);
    free(x);
}

int main(void) {
    struct gauss g;
    if (!gauss_open(&g, N)) return check_result();
    order_is("euler", 0.8, 1.3, &g);
    order_is("euler_a", 0.8, 1.3, &g); /* eta 0 */
    order_is("ddim", 0.8, 1.3, &g);
    order_is("heun", 1.6, 2.6, &g);
    order_is("dpm2", 1.6, 2.6, &g);
    order_is("dpm2_a", 1.6, 2.6, &g);
    order_is("dpm++2m", 1.6, 2.9, &g);
    order_is("dpm++2s", 1.6, 2.9, &g);
    order_is("dpm++2s_a", 1.6, 2.9, &g);
    order_is("dpm++sde", 1.6, 2.9, &g);
    order_is("dpm++3m_sde", 1.8, 3.6, &g);
    order_is("unipc", 1.6, 3.5, &g);
    order_is("res_multistep", 1.6, 2.9, &g);
    g.n = MANY;
    const float unset = NAN;
    distribution_is_kept("euler_a", NULL, unset, &g);
    distribution_is_kept("dpm2_a", NULL, unset, &g);
    distribution_is_kept("ddim", NULL, 1, &g);
    distribution_is_kept("dpm++2s_a", NULL, unset, &g);
    distribution_is_kept("dpm++2m_sde", NULL, unset, &g);
    distribution_is_kept("dpm++sde", NULL, unset, &g);
    distribution_is_kept("dpm++3m_sde", "karras", unset, &g);
    distribution_is_kept("er_sde", NULL, unset, &g);
    distribution_is_kept("euler_a_cfg_pp", NULL, unset, &g);
    distribution_is_kept("sa_solver", NULL, unset, &g);
    train_noise_close(&g.train);
    return check_result();
}
