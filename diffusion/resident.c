#include "diffusion/resident.h"

#include <stdlib.h>

static size_t picture_size(const resident *r) { return r->channels * r->pixels; }

rung_status resident_open(resident *r, rung_err *err) {
    const size_t n = picture_size(r);
    const struct {
        float **p;
        size_t count;
    } arrays[] = {{&r->latents, r->count}, {&r->in, r->nets}, {&r->out, r->nets}};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) {
        void *p = NULL;
        RUNG_TRY(r->be->ops->mem_alloc(r->be, &p, arrays[i].count * n * sizeof(float), err));
        *arrays[i].p = p;
    }
    r->staging = malloc(n * sizeof(float));
    return r->staging ? RUNG_OK : rung_fail(err, RUNG_ENOMEM, "no memory for latents of %zu numbers", n);
}

void resident_close(resident *r) {
    if (!r->be) return;
    r->be->ops->mem_free(r->be, r->latents);
    r->be->ops->mem_free(r->be, r->in);
    r->be->ops->mem_free(r->be, r->out);
    free(r->staging);
    *r = (resident){0};
}

/* torch's CUDA numbers are made where they are needed; torch's CPU numbers depend on each other, and are the host's. */
void resident_noise(void *user, size_t picture, float *out, size_t n) {
    const resident *r = user;
    rung_rng *g = &r->rng[picture];
    if (g->kind == RUNG_RNG_CUDA) {
        r->be->ops->normal(r->be, out, n, g->seed, g->offset++);
        return;
    }
    rung_rng_normal(g, r->staging, n);
    r->be->ops->upload(r->be, out, r->staging, n * sizeof *out);
}

void resident_start(resident *r, size_t picture, const float *given, float sigma) {
    const size_t n = picture_size(r);
    float *x = r->latents + picture * n;
    if (given)
        r->be->ops->upload(r->be, x, given, n * sizeof *x);
    else
        resident_noise(r, picture, x, n);
    r->be->ops->combine(r->be, x, &(rung_term){sigma, x}, 1, 1, n);
}

/* One column at a time: channels are few. */
static void to_nhwc(const resident *r, float *y, const float *x) {
    for (size_t c = 0; c < r->channels; c++)
        r->be->ops->copy2d(r->be, y + c, r->channels, x + c * r->pixels, 1, r->pixels, 1);
}

static void to_nchw(const resident *r, float *y, const float *x) {
    for (size_t c = 0; c < r->channels; c++)
        r->be->ops->copy2d(r->be, y + c * r->pixels, 1, x + c, r->channels, r->pixels, 1);
}

rung_status resident_denoise(void *user, float *out, float *uncond, const float *x, float t, rung_err *err) {
    const resident *r = user;
    const size_t n = picture_size(r), half = r->count * n;
    const bool guided = r->nets > r->count;
    for (size_t i = 0; i < r->count; i++) to_nhwc(r, r->in + i * n, x + i * n);
    if (guided) r->be->ops->copy2d(r->be, r->in + half, half, r->in, half, 1, half);
    for (size_t i = 0; i < r->nets; i++) r->time[i] = t;
    RUNG_TRY(rung_denoiser_step_resident(r->run, r->out, r->in, r->time, err));
    float *cond = r->out + (guided ? half : 0);
    if (guided) {
        const rung_term terms[] = {{1 - r->scale, r->out}, {r->scale, cond}};
        r->be->ops->combine(r->be, cond, terms, 2, 1, half);
    }
    for (size_t i = 0; i < r->count; i++) {
        to_nchw(r, out + i * n, cond + i * n);
        if (uncond) to_nchw(r, uncond + i * n, r->out + i * n);
    }
    return RUNG_OK;
}

rung_status resident_finish(resident *r, float *latents, rung_err *err) {
    r->be->ops->download(r->be, latents, r->latents, r->count * picture_size(r) * sizeof *latents);
    return r->be->ops->sync(r->be, err);
}
