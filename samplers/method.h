/* samplers/method.h - what a sampling method is made of, and what the methods share. Internal to samplers/. */
#ifndef RUNG_METHOD_H
#define RUNG_METHOD_H
#include "kernels/backend.h"
#include "samplers/sampler.h"
#include "samplers/schedule.h"
#include "samplers/sigma_lists.h"

/* The callbacks of one step. */
typedef struct {
    rung_denoise_fn *denoise;
    void *denoise_user;
    rung_noise_fn *noise;
    void *noise_user;
    rung_err *err;
} sampler_io;

/**
 * open   checks the config, allocates with sampler_alloc, fills s->table (steps, timesteps, sigmas) and init_sigma.
 * step   step i on x f32 [batch, n] in place; allocates nothing. i runs from 0 to s->table.n - 1, in order.
 * There is no close: what sampler_alloc gave is freed by rung_sampler_close.
 */
typedef struct {
    rung_status (*open)(rung_sampler *s, rung_err *err);
    rung_status (*step)(rung_sampler *s, int i, float *x, const sampler_io *io);
} sampler_method;

#define PREDICTION_BIT(p) (1u << (p))

/* One row of the table in sampler.c. */
typedef struct {
    rung_sampler_row row;
    sched_class_id cls;
    const sampler_method *method;
    unsigned predictions;             /* bits: PREDICTION_BIT */
    const char *flow;                 /* row that does this on a flow model; NULL: none does */
    void (*by_name)(sched_config *c); /* what the name fixes whatever the config says; NULL: nothing */
    bool one_picture;                 /* its steps depend on the picture: batch 1 only */
    bool sums; /* its steps are sums of whole arrays, made by MIX: they can be in a device's memory */
} sampler_entry;

struct rung_sampler {
    const sampler_entry *entry;
    sched_config c;
    train_noise train; /* n = 0: the method has none */
    schedule_id schedule;
    const float *custom; /* SCHEDULE_CUSTOM, during open only */
    size_t n_custom;
    size_t steps; /* asked for */
    timetable table;
    float init_sigma;
    float eta; /* NAN: unset */
    size_t batch, n, total, tokens;
    int next; /* the step that is due */
    size_t calls;
    rung_backend *be;  /* whose memory x and the arrays below are in; NULL: the host's */
    float *arrays[24]; /* of `be` */
    int n_arrays;
    float *pred, *uncond, *scaled, *noise; /* f32 [total] each: scratch of the shared functions */
    float *sorted;                         /* f32 [n], with thresholding */
    void *state;                           /* the method's */
    void *blocks[24];
    int n_blocks;
};

/** Zeroed memory that lives as long as the sampler; NULL (with RUNG_ENOMEM in err) when there is none. */
void *sampler_alloc(rung_sampler *s, size_t count, size_t size, rung_err *err);
float *sampler_floats(rung_sampler *s, size_t count, rung_err *err);

/** f32 [total] where s->be is; not zeroed there. */
float *sampler_array(rung_sampler *s, rung_err *err);

/** out = (sum of w * x over the terms, in their order) / over: f32 [total] each; out may be one of the x.
 *  MIX(s, out, over, {w, x}, ...). Terms are at most RUNG_MOST_TERMS. */
void mix(const rung_sampler *s, float *out, float over, const rung_term *terms, size_t count);
#define MIX(s, out, over, ...)                                                                                         \
    mix(s, out, over, (const rung_term[]){__VA_ARGS__}, sizeof((const rung_term[]){__VA_ARGS__}) / sizeof(rung_term))

/** s->table with room for `steps` steps. */
rung_status sampler_table(rung_sampler *s, size_t steps, rung_err *err);

/** s->train from the config. */
rung_status sampler_train(rung_sampler *s, bool patch_zero, rung_err *err);

/** Checks --sigmas: falling, in (0, most]; a final 0 is taken off n_custom. RUNG_EARG. */
rung_status sampler_custom(rung_sampler *s, float most, rung_err *err);

/** The timetable of a list of sigmas (SCHEDULE_CUSTOM or by name): sigmas, and timesteps by interpolation. */
rung_status sampler_list(rung_sampler *s, rung_err *err);

/** A state of `size` bytes, in s->state too. */
void *sampler_state(rung_sampler *s, size_t size, rung_err *err);

/** eta as given, `unset` when it was not. */
float sampler_eta(const rung_sampler *s, float unset);

/** The network on x, which is scaled already. out, uncond (may be NULL): f32 [total]. */
rung_status run_model(rung_sampler *s, const sampler_io *io, const float *x, double t, float *out, float *uncond);

/** The network on a variance-exploding x: its input is x / sqrt(sigma^2 + 1). */
rung_status run_model_ve(rung_sampler *s, const sampler_io *io, const float *x, float sigma, double t, float *out,
                         float *uncond);

/** k-diffusion's denoiser: x0 of a variance-exploding x at any sigma, timestep interpolated. x0 [total]. */
rung_status denoise_ve(rung_sampler *s, const sampler_io *io, const float *x, float sigma, float *x0, float *uncond_x0);

/** Standard normal numbers for all pictures into out [total]. RUNG_EARG when the caller gave no source. */
rung_status draw_noise(rung_sampler *s, const sampler_io *io, float *out);

/* x0 or epsilon from a prediction. x = alpha * x0 + sigma * eps. out may be pred or x. */
void x0_from_vp(const rung_sampler *s, prediction p, float alpha, float sigma, const float *x, const float *pred,
                float *out);
void eps_from_vp(const rung_sampler *s, prediction p, float alpha, float sigma, const float *x, const float *pred,
                 float *out);
/* x = x0 + sigma * eps */
void x0_from_ve(const rung_sampler *s, prediction p, float sigma, const float *x, const float *pred, float *out);

/** Dynamic thresholding or clipping, as the config asks. */
void settle_x0(rung_sampler *s, float *x0);

/** k-diffusion's get_ancestral_step. */
void ancestral_step(float from, float to, float eta, float *down, float *up);

/* The last `depth` network outputs, newest first: ring_at(r, 0). */
enum { RING_MAX = 4 };
typedef struct {
    float *slot[RING_MAX];
    int depth, newest, filled;
} ring;

rung_status ring_open(rung_sampler *s, ring *r, int depth, rung_err *err);
/** The slot for the next value: the oldest one, which it replaces. */
float *ring_push(ring *r);
float *ring_at(const ring *r, int back);

/* Adams-Bashforth over a ring of `filled` derivatives, orders 1 to 4 with equal steps */
void adams_bashforth(const rung_sampler *s, const ring *r, float *out);

/* The methods: samplers/sampler_<name>.c */
extern const sampler_method method_ddim, method_ddpm, method_pndm, method_lcm, method_tcd;
extern const sampler_method method_euler, method_euler_a, method_heun, method_dpm2, method_dpm2_a, method_lms;
extern const sampler_method method_ipndm, method_dpm_multistep, method_dpm_singlestep, method_unipc, method_deis;
extern const sampler_method method_sa_solver, method_edm_euler, method_edm_dpm, method_cm;
extern const sampler_method method_flow_euler, method_flow_heun, method_flow_lcm;
extern const sampler_method method_dpmpp_2s_a, method_dpmpp_sde, method_dpmpp_3m_sde, method_dpm_fast;
extern const sampler_method method_dpm_adaptive, method_res_multistep, method_er_sde, method_euler_cfg_pp;
extern const sampler_method method_euler_a_cfg_pp;
#endif
