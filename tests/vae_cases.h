/* tests/vae_cases.h - opening the golden autoencoders of tests/golden/vae. */
#ifndef RUNG_VAE_CASES_H
#define RUNG_VAE_CASES_H
#include <stdlib.h>
#include <string.h>

#include "kernels/base/cpu.h"
#include "tests/check.h"
#include "vae/vae.h"

#define VAE_GOLDEN RUNG_TEST_DIR "/golden/vae/"

static const char *const vae_cases[] = {"kl_sd", "kl_rgba", "kl_one_level", "kl_lists", "tiny_sd", "tiny_odd"};
enum { VAE_CASES = sizeof vae_cases / sizeof *vae_cases };

typedef struct {
    rung_pool *pool;
    rung_backend *be;
    rung_model *model;
    rung_vae *vae;
} vae_setup;

static inline void vae_teardown(vae_setup *s) {
    rung_vae_close(&s->vae);
    rung_model_close(&s->model);
    rung_backend_close(&s->be);
    rung_pool_close(&s->pool);
}

/* What fails is in err; vae_teardown is due in any case. */
static inline rung_status vae_setup_at(vae_setup *s, const char *folder, unsigned cpu, rung_store store,
                                       rung_err *err) {
    *s = (vae_setup){0};
    RUNG_TRY(rung_pool_open(&s->pool, 2, err));
    RUNG_TRY(rung_cpu_backend_open(&s->be, s->pool, cpu, err));
    RUNG_TRY(rung_model_open(&s->model, folder, err));
    return rung_vae_open(&s->vae, s->model, s->be, store, err);
}

static inline rung_status vae_setup_case(vae_setup *s, const char *name, unsigned cpu, rung_err *err) {
    char path[400];
    snprintf(path, sizeof path, "%s%s", VAE_GOLDEN, name);
    return vae_setup_at(s, path, cpu, RUNG_STORE_STORED, err);
}

/* ||got - ref|| / ||ref - its mean||: an image is far from 0 everywhere. */
static inline double image_error(const float *got, const float *ref, size_t n) {
    double mean = 0, d = 0, r = 0;
    for (size_t i = 0; i < n; i++) mean += ref[i] / (double)n;
    for (size_t i = 0; i < n; i++) {
        d += ((double)got[i] - ref[i]) * ((double)got[i] - ref[i]);
        r += (ref[i] - mean) * (ref[i] - mean);
    }
    return sqrt(d / r);
}
#endif
