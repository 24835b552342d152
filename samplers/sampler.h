/* samplers/sampler.h - noise -> latents. Knows no network: the denoiser is a callback. Part of the public API. */
#ifndef RUNG_SAMPLER_H
#define RUNG_SAMPLER_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/err.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct rung_sampler rung_sampler; /* one sampler set up for one run: schedule, history; opaque */

/**
 * The model: writes its raw prediction (epsilon, v, sample or flow, as the scheduler's config says; guidance already
 * applied) for the network input x at training timestep t. x is scaled as the network wants it.
 * out, x  f32 [batch * n], the layout is the caller's.
 * uncond  NULL, or f32 [batch * n] where the unconditional prediction is wanted as well (cfg++ samplers).
 */
typedef rung_status rung_denoise_fn(void *user, float *out, float *uncond, const float *x, float t, rung_err *err);

/** Standard normal noise for one picture: f32 out [n]. `picture` is 0..batch-1; each has a generator of its own. */
typedef void rung_noise_fn(void *user, size_t picture, float *out, size_t n);

typedef struct {
    const char *sampler;     /* "euler_a", ...; NULL: the class that the config names */
    const char *schedule;    /* "karras", ...; NULL: what the config says */
    const char *config_json; /* text of scheduler_config.json; NULL: the class's defaults */
    int steps;
    float eta;           /* NAN: unset, 0 everywhere (ancestral and SDE samplers: their own 1) */
    const float *sigmas; /* custom schedule, n_sigmas values, falling; the final 0 is appended when missing. Read
                            during open. NULL: none. `steps` and `schedule` do not count when there is one. Flow
                            models: in 0..1, before the model's shift, as diffusers' set_timesteps(sigmas) */
    size_t n_sigmas;
    size_t batch, n;         /* pictures, elements of one picture's latents */
    size_t image_tokens;     /* latent tokens of one picture, for flow models with dynamic shifting; 0: unknown */
    struct rung_backend *be; /* in whose memory the arrays may be, see rung_sampler_memory; NULL: the host's */
} rung_sampler_params;

/** RUNG_EARG: unknown name (the message lists those that exist), a schedule the sampler has no form of, a prediction
 *  type that does not fit; RUNG_EFORMAT: the config. */
rung_status rung_sampler_open(rung_sampler **out, const rung_sampler_params *p, rung_err *err);
void rung_sampler_close(rung_sampler **s);

/** Where x and what the callbacks get are: the params' `be` when the method's steps are sums of whole arrays, which it
 *  then makes there, without waiting for them; NULL: in the host's memory. */
struct rung_backend *rung_sampler_memory(const rung_sampler *s);

int rung_sampler_steps(const rung_sampler *s);             /* calls of rung_sampler_step that make a picture */
float rung_sampler_timestep(const rung_sampler *s, int i); /* of the first denoiser call of step i */
float rung_sampler_sigma(const rung_sampler *s, int i);    /* at the start of step i; i = steps: at the end. 0 for
                                                              methods that step over timesteps alone (ddim, pndm..) */
float rung_sampler_init_sigma(const rung_sampler *s);      /* what the initial standard normal noise is multiplied by */
size_t rung_sampler_calls(const rung_sampler *s);          /* denoiser calls made so far */

/**
 * Step i (0, 1, .. in order, each once): x f32 [batch, n] in place. `noise` is asked in a fixed order: per step, per
 * picture; NULL is fine for a method that adds none. Allocates nothing. RUNG_EARG: another step is due, or noise is
 * wanted and NULL; whatever the denoiser returned otherwise, and then the sampler is of no further use.
 */
rung_status rung_sampler_step(rung_sampler *s, int i, float *x, rung_denoise_fn *denoise, void *denoise_user,
                              rung_noise_fn *noise, void *noise_user, rung_err *err);

/* The table of samplers, for lists and refusals: one row a sampler. */
typedef struct {
    const char *name;   /* option name: "dpm++2m" */
    const char *label;  /* A1111's label: "DPM++ 2M" */
    const char *alias;  /* other spellings, comma-separated, or NULL */
    const char *source; /* class or function that it equals, with the version it was checked against */
    int order;
    int calls;          /* denoiser calls of one step, the last one may have fewer; 0: it depends on the picture */
    bool stochastic;    /* adds noise with eta unset */
    bool ode;           /* with eta unset, follows the probability-flow ODE: more steps lead to its one solution */
    unsigned schedules; /* bit i: rung_schedule_name(i) is accepted */
} rung_sampler_row;

const rung_sampler_row *rung_sampler_describe(const rung_sampler *s); /* flow_euler when euler met a flow model */
size_t rung_sampler_count(void);
const rung_sampler_row *rung_sampler_get(size_t i);
/** By name, alias or label, case-insensitive; NULL when there is none. */
const rung_sampler_row *rung_sampler_find(const char *name);
/** Name of the i-th schedule ("default", "karras", ...), NULL past the end. */
const char *rung_schedule_name(size_t i);

#ifdef __cplusplus
}
#endif
#endif
