/* tests/test_samplers.c - every sampler against the runs of diffusers, k-diffusion and ComfyUI in
 * tests/golden/samplers/cases.json (tools/goldens/samplers.py): the timesteps at which the network is asked, and the
 * final samples, to 1e-4 of their norm. The network is a closed formula, the noise is torch's. */
#include <stdlib.h>
#include <string.h>

#include "assets/json.h"
#include "kernels/base/rng.h"
#include "samplers/sampler.h"
#include "tests/check.h"

enum { MAX_PICTURES = 4 };

/* The generator's formulas: f32 in, f64 inside. */
static float net_epsilon(float x, float t) {
    const double v = x, at = t;
    return (float)(0.7 * v + 0.3 * tanh(2 * v + sin(at / 150)) + 0.05 * sin(at / 100));
}

static float net_other(float x, float t) {
    const double v = x, at = t;
    return (float)(0.5 * tanh(1.5 * v + 0.2 * sin(at / 120)) + 0.1 * cos(at / 77));
}

struct run {
    size_t batch, n;
    float (*net)(float x, float t);
    const cJSON *t; /* timestep of each call */
    int calls, wrong_t;
    rung_rng rng[MAX_PICTURES];
};

static rung_status denoise(void *user, float *out, float *uncond, const float *x, float t, rung_err *err) {
    struct run *r = user;
    const cJSON *want = cJSON_GetArrayItem(r->t, r->calls++);
    (void)err;
    if (!want || !(fabs((double)t - want->valuedouble) <= 1e-4 * (1 + fabs(want->valuedouble)))) {
        if (!r->wrong_t++) fprintf(stderr, "  call %d at %.7g\n", r->calls - 1, (double)t);
    }
    for (size_t k = 0; k < r->batch * r->n; k++) {
        out[k] = r->net(x[k], t);
        if (uncond) uncond[k] = r->net(0.5f * x[k], t);
    }
    return RUNG_OK;
}

static void noise(void *user, size_t picture, float *out, size_t n) {
    rung_rng_normal(&((struct run *)user)->rng[picture], out, n);
}

static double number(const cJSON *c, const char *key, double def) {
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(c, key);
    return cJSON_IsNumber(v) ? v->valuedouble : def;
}

static const char *text(const cJSON *c, const char *key) {
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(c, key);
    return cJSON_IsString(v) ? v->valuestring : NULL;
}

static rung_status sample(const rung_sampler_params *p, struct run *r, float *x, rung_err *err) {
    rung_sampler *s = NULL;
    rung_status st = rung_sampler_open(&s, p, err);
    for (size_t k = 0; k < r->batch; k++) noise(r, k, x + k * r->n, r->n);
    if (!st) {
        for (size_t k = 0; k < r->batch * r->n; k++) x[k] *= rung_sampler_init_sigma(s);
    }
    for (int i = 0; !st && i < rung_sampler_steps(s); i++) st = rung_sampler_step(s, i, x, denoise, r, noise, r, err);
    if (!st) CHECK(rung_sampler_calls(s) == (size_t)r->calls);
    rung_sampler_close(&s);
    return st;
}

/* relative L2 error of one case; -1 when it failed otherwise */
static double replay(const cJSON *c) {
    float sigmas[64], got[512], want[512];
    struct run r = {.batch = (size_t)number(c, "batch", 0),
                    .n = (size_t)number(c, "n", 0),
                    .net = strcmp(text(c, "net"), "epsilon") == 0 ? net_epsilon : net_other,
                    .t = cJSON_GetObjectItemCaseSensitive(c, "t")};
    const cJSON *x = cJSON_GetObjectItemCaseSensitive(c, "x");
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(c, "sigmas"), *item;
    const size_t total = r.batch * r.n;
    if (!CHECK(r.batch <= MAX_PICTURES && total <= 512 && (size_t)cJSON_GetArraySize(x) == total)) return -1;
    char *config = cJSON_PrintUnformatted(cJSON_GetObjectItemCaseSensitive(c, "config"));
    rung_sampler_params p = {.sampler = text(c, "sampler"),
                             .schedule = text(c, "schedule"),
                             .config_json = config,
                             .steps = (int)number(c, "steps", 0),
                             .eta = (float)number(c, "eta", NAN),
                             .batch = r.batch,
                             .n = r.n,
                             .image_tokens = (size_t)number(c, "tokens", 0)};
    cJSON_ArrayForEach(item, list) sigmas[p.n_sigmas++] = (float)item->valuedouble;
    if (list) p.sigmas = sigmas;
    for (size_t k = 0; k < r.batch; k++) rung_rng_seed(&r.rng[k], RUNG_RNG_CPU, (uint64_t)number(c, "seed", 0) + k);
    size_t k = 0;
    cJSON_ArrayForEach(item, x) want[k++] = (float)item->valuedouble;

    rung_err err = {0};
    const rung_status st = sample(&p, &r, got, &err);
    free(config);
    if (st) fprintf(stderr, "  %s\n", err.msg);
    if (!CHECK(st == RUNG_OK)) return -1;
    const bool same_calls = CHECK(r.calls == cJSON_GetArraySize(r.t));
    return CHECK(r.wrong_t == 0) && same_calls ? rel_l2(got, want, total) : -1;
}

int main(void) {
    rung_err err = {0};
    cJSON *root = NULL;
    const char *path = RUNG_TEST_DIR "/golden/samplers/cases.json";
    if (!CHECK(rung_json_load(&root, path, &err) == RUNG_OK)) {
        fprintf(stderr, "%s\n", err.msg);
        return check_result();
    }
    const cJSON *c;
    double worst = 0;
    cJSON_ArrayForEach(c, cJSON_GetObjectItemCaseSensitive(root, "cases")) {
        const double error = replay(c);
        if (error > worst) worst = error;
        if (!CHECK(error >= 0 && error <= 1e-4)) {
            char *shown = cJSON_PrintUnformatted(cJSON_GetObjectItemCaseSensitive(c, "config"));
            fprintf(stderr, "  %s, schedule %s, steps %d, eta %g, %s: %.3g\n", text(c, "sampler"), text(c, "schedule"),
                    (int)number(c, "steps", 0), number(c, "eta", NAN), shown, error);
            free(shown);
        }
        if (getenv("RUNG_VERBOSE") && error > 1e-5)
            fprintf(stderr, "%s %s %d %.3g\n", text(c, "sampler"), text(c, "schedule"), (int)number(c, "steps", 0),
                    error);
    }
    fprintf(stderr, "largest relative error %.3g\n", worst);
    cJSON_Delete(root);
    return check_result();
}
