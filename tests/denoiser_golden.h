/* tests/denoiser_golden.h - runs the networks of tests/golden/unet (tools/goldens/unet.py) and compares. */
#ifndef RUNG_DENOISER_GOLDEN_H
#define RUNG_DENOISER_GOLDEN_H
#include <stdlib.h>
#include <string.h>

#include "assets/weights.h"
#include "kernels/base/cpu.h"
#include "tests/check.h"
#include "unet/denoiser.h"

#define GOLDEN RUNG_TEST_DIR "/golden/unet/"

/* Tensor "<i>.<what>" as f32; NULL when there is none. Free it. `shape` may be NULL. */
static float *golden(rung_weights *w, size_t i, const char *what, size_t *shape) {
    char name[40];
    snprintf(name, sizeof name, "%zu.%s", i, what);
    const rung_tensor *t = rung_weights_find(w, name);
    if (!t) return NULL;
    for (int d = 0; shape && d < t->ndim; d++) shape[d] = t->shape[d];
    float *v = malloc(rung_tensor_count(t) * sizeof *v);
    if (v && rung_tensor_to_f32(t, 0, rung_tensor_count(t), v, NULL)) abort();
    return v;
}

/* The largest difference, as a share of the largest value. */
static inline double rel_max(const float *got, const float *ref, size_t n) {
    double most = 0, top = 0;
    for (size_t i = 0; i < n; i++) {
        const double d = fabs((double)got[i] - ref[i]);
        if (!(d <= most)) most = d; /* NaN sticks */
        if (fabs(ref[i]) > top) top = fabs(ref[i]);
    }
    return most / (top > 0 ? top : 1);
}

/* Case i of the file: two steps of one run. The first, at other timesteps, must leave nothing behind. */
static inline int run_case(rung_denoiser *d, rung_weights *cases, size_t i, double *worst) {
    size_t xs[4], cs[3], os[4];
    float *x = golden(cases, i, "x", xs);
    if (!x) return 0;
    float *ctx = golden(cases, i, "ctx", cs), *ref = golden(cases, i, "out", os), *t = golden(cases, i, "t", NULL);
    float *mask = golden(cases, i, "mask", NULL), *image = golden(cases, i, "image", NULL);
    float *pooled = golden(cases, i, "pooled", NULL);
    const size_t n = os[0] * os[1] * os[2] * os[3], rows = cs[0] * cs[1];
    unsigned char *bytes = malloc(rows);
    for (size_t k = 0; mask && k < rows; k++) bytes[k] = mask[k] != 0;
    float *got = malloc(n * sizeof *got), *other = malloc(xs[0] * sizeof *other);
    for (size_t k = 0; k < xs[0]; k++) other[k] = 300 + t[k] / 2;

    rung_err err = {0};
    rung_denoiser_run *run = NULL;
    const rung_denoiser_info *info = rung_denoiser_describe(d);
    const rung_denoiser_cond cond = {.batch = xs[0],
                                     .h = xs[1],
                                     .w = xs[2],
                                     .n_ctx = cs[1],
                                     .ctx = ctx,
                                     .mask = mask ? bytes : NULL,
                                     .pooled = pooled,
                                     .image_h = image ? image[0] : 0,
                                     .image_w = image ? image[1] : 0};
    CHECK(info->in_channels == xs[3] && info->out_channels == os[3] && info->context_dim == cs[2]);
    if (CHECK(rung_denoiser_begin(d, &run, &cond, &err) == RUNG_OK)) {
        memset(ctx, 0xff, rows * cs[2] * sizeof *ctx); /* kept only during rung_denoiser_begin */
        CHECK(rung_denoiser_run_bytes(run) > 0);
        CHECK(rung_denoiser_step(run, got, x, other, &err) == RUNG_OK);
        CHECK(rel_l2(got, ref, n) > 1e-4);
        CHECK(rung_denoiser_step(run, got, x, t, &err) == RUNG_OK);
        *worst = fmax(*worst, rel_l2(got, ref, n));
        if (!CHECK(rel_l2(got, ref, n) < 2e-5) || !CHECK(rel_max(got, ref, n) < 5e-5))
            fprintf(stderr, "  case %zu: rel l2 %g, max %g\n", i, rel_l2(got, ref, n), rel_max(got, ref, n));
    } else {
        fprintf(stderr, "  case %zu: %s\n", i, err.msg);
    }
    rung_denoiser_end(&run);
    free(x), free(pooled), free(ctx), free(ref), free(t), free(mask), free(image), free(bytes), free(got), free(other);
    return 1;
}

static inline void run_network(const char *name, unsigned cpu, int threads) {
    char path[400];
    rung_err err = {0};
    rung_pool *pool = NULL;
    rung_backend *be = NULL;
    rung_model *model = NULL;
    rung_denoiser *d = NULL;
    rung_weights *cases = NULL;
    double worst = 0;
    snprintf(path, sizeof path, GOLDEN "%s", name);
    CHECK(rung_pool_open(&pool, threads, &err) == RUNG_OK && rung_cpu_backend_open(&be, pool, cpu, &err) == RUNG_OK);
    CHECK(rung_model_open(&model, path, &err) == RUNG_OK);
    snprintf(path, sizeof path, GOLDEN "%s/cases.safetensors", name);
    CHECK(rung_weights_open(&cases, path, &err) == RUNG_OK);
    if (!CHECK(!err.code && rung_denoiser_open(&d, model, be, RUNG_STORE_STORED, &err) == RUNG_OK))
        fprintf(stderr, "  %s: %s\n", name, err.msg);
    size_t i = 0;
    while (d && cases && run_case(d, cases, i, &worst)) i++;
    if (!CHECK(i > 0) || worst >= 2e-5) fprintf(stderr, "  %s\n", name);
    fprintf(stderr, "%-14s %-10s %d threads, %zu cases: rel l2 <= %.2g\n", name, rung_cpu_name(cpu), threads, i, worst);
    rung_denoiser_close(&d);
    rung_weights_close(&cases);
    rung_model_close(&model);
    rung_backend_close(&be);
    rung_pool_close(&pool);
}

/* Every level of the processor that the machine has, then the best one with another number of threads. */
static inline void run_networks(const char *const *names, size_t n) {
    static const unsigned levels[] = {0, RUNG_CPU_AVX2, RUNG_CPU_AVX2 | RUNG_CPU_AVX512, RUNG_CPU_ALL};
    const unsigned have = rung_cpu_detect();
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < sizeof levels / sizeof *levels; k++)
            if ((levels[k] & ~have) == 0) run_network(names[i], levels[k], 1);
        run_network(names[i], have, 3);
    }
}

/* A config that must be refused: `key` set to `value`. */
typedef struct {
    const char *key, *value; /* JSON; value NULL: the key is taken out */
    const char *named;       /* what the message must name; NULL: the key */
} bad_config;

typedef rung_status config_reader(void *out, rung_config *c);

/* Reads `base` with each change in turn. read_ok: the message when the changed config was taken. */
static inline void check_bad_configs(const char *base, const bad_config *bad, size_t n, config_reader *read) {
    char out[4096];
    for (size_t i = 0; i < n; i++) {
        rung_err err = {0};
        cJSON *root = cJSON_Parse(base);
        cJSON_DeleteItemFromObjectCaseSensitive(root, bad[i].key);
        if (bad[i].value) cJSON_AddItemToObject(root, bad[i].key, cJSON_Parse(bad[i].value));
        rung_config c = {.root = root, .where = "config.json", .err = &err};
        const char *named = bad[i].named ? bad[i].named : bad[i].key;
        if (!CHECK(read(out, &c) == RUNG_EFORMAT) || !CHECK(c.status == RUNG_EFORMAT && err.code == RUNG_EFORMAT) ||
            !CHECK(strstr(err.msg, named)))
            fprintf(stderr, "  %s = %s: \"%s\"\n", bad[i].key, bad[i].value ? bad[i].value : "(missing)", err.msg);
        cJSON_Delete(root);
    }
}

static inline cJSON *parse_config(const char *base, rung_config *c, rung_err *err) {
    cJSON *root = cJSON_Parse(base);
    *c = (rung_config){.root = root, .where = "config.json", .err = err};
    return root;
}
#endif
