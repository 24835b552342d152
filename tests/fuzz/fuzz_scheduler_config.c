/* tests/fuzz/fuzz_scheduler_config.c - any text as scheduler_config.json, for every sampler and schedule: what opens
 * also runs. The first byte chooses the number of steps, the second the schedule. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "samplers/sampler.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static rung_status denoise(void *user, float *out, float *uncond, const float *x, float t, rung_err *err) {
    (void)err, (void)t;
    if (++*(int *)user > 200) return RUNG_ECANCELLED; /* dpm_adaptive on a strange schedule */
    for (int k = 0; k < 8; k++) {
        out[k] = 0.9f * x[k];
        if (uncond) uncond[k] = out[k];
    }
    return RUNG_OK;
}

static void noise(void *user, size_t picture, float *out, size_t n) {
    (void)user, (void)picture;
    for (size_t k = 0; k < n; k++) out[k] = k % 2 ? 1 : -1;
}

static void try_sampler(const rung_sampler_params *p) {
    rung_sampler *s = NULL;
    rung_err err = {0};
    float x[8] = {1, -1, 0.5f, -0.5f, 0, 2, -2, 0.1f};
    int calls = 0;
    rung_status st = rung_sampler_open(&s, p, &err);
    for (int i = 0; !st && i < rung_sampler_steps(s); i++)
        st = rung_sampler_step(s, i, x, denoise, &calls, noise, NULL, &err);
    rung_sampler_close(&s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2) return 0;
    char *text = calloc(size - 1, 1);
    if (!text) return 0;
    memcpy(text, data + 2, size - 2);
    rung_sampler_params p = {.config_json = text,
                             .steps = 1 + data[0] % 40,
                             .eta = NAN,
                             .batch = 1,
                             .n = 8,
                             .image_tokens = 300,
                             .schedule = rung_schedule_name(data[1] % 24)};
    try_sampler(&p);
    for (size_t i = 0; i < rung_sampler_count(); i++) {
        p.sampler = rung_sampler_get(i)->name;
        try_sampler(&p);
    }
    free(text);
    return 0;
}
