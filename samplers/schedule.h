/* samplers/schedule.h - training noise, timesteps, sigmas: the numbers that a scheduler's set_timesteps makes.
 * Computed in the precision that torch and numpy use there (f32 tensors, f64 arrays), so that they agree to rounding.
 */
#ifndef RUNG_SCHEDULE_H
#define RUNG_SCHEDULE_H
#include "samplers/scheduler_config.h"

/* The noise levels that the model was trained at. f32 [n] each, owned. */
typedef struct {
    size_t n;
    float *alphas_cumprod;
    float *sigmas;     /* sqrt((1 - a) / a), rising */
    float *log_sigmas; /* of the above */
} train_noise;

/** Zero terminal SNR leaves alpha 0 at the end; `patch_zero` puts 2^-24 there, as the sigma classes do. RUNG_ENOMEM;
 *  RUNG_EFORMAT: trained_betas of another length. */
rung_status train_noise_open(train_noise *t, const sched_config *c, bool patch_zero, rung_err *err);
void train_noise_close(train_noise *t);

/** sigma of a fractional timestep, linear in sigma (numpy.interp): clamped at both ends. */
double train_sigma_at(const train_noise *t, double timestep);
/** Fractional timestep of a sigma, linear in log sigma, 0..n-1 (k-diffusion's sigma_to_t). */
double train_sigma_to_t(const train_noise *t, double sigma);
/** sigma of a fractional timestep, linear in log sigma (k-diffusion's t_to_sigma). */
float train_t_to_sigma(const train_noise *t, float timestep);
/** Training steps that are left when those with log(alpha / sigma) < limit are dropped. */
size_t train_steps_above(const train_noise *t, double limit);

/* torch.linspace in f32 and numpy.linspace in f64, element i of n */
float linspace_f32(float start, float end, size_t n, size_t i);
double linspace_f64(double start, double end, size_t n, size_t i);

/** numpy.log of an f32 as its AVX2 and AVX-512 loops compute it (within 2 ulp): timesteps are cut to whole numbers, and
 *  there the last bit decides between 999 and 998. */
float numpy_log_f32(float x);

/** numpy.arange(start, 0, -start0 / n): how many, and element i. Rounding can make it n + 1. */
size_t trailing_count(double start, double step);
double trailing_at(double start, double step, size_t i);

/* A timetable: t [n] as the network gets them, sigma [n + 1] with the last one where the run ends. */
typedef struct {
    size_t n;
    double *t;
    float *sigma;
} timetable;

/* What decides a timetable besides the config. */
typedef struct {
    const sched_config *c;
    const train_noise *train;
    size_t steps;
    const float *flow; /* [steps] the caller's own sigmas of a flow, before the shift; NULL: evenly from 1 */
} timetable_ask;

/** Timesteps of ddim, ddpm and pndm: whole numbers, falling. `out` holds steps + 1. Returns how many.
 *  `rounded`: linspace is rounded to whole timesteps. */
size_t spaced_timesteps(const sched_config *c, size_t steps, bool rounded, double *out);

/** Euler, Heun, LMS, KDPM2: points on the training schedule, both ends kept. `out` has room for steps + 2. */
void timetable_sigma(timetable *out, const timetable_ask *ask, bool lms, bool round_karras);

/* Where a multistep table ends. */
typedef enum { END_BY_CONFIG, END_REPEATS_LAST, END_UNIPC } table_end;

/** DPM-Solver, UniPC, DEIS, SA-Solver: steps + 1 points, the last one dropped; whole timesteps. */
void timetable_multistep(timetable *out, const timetable_ask *ask, table_end end, bool linspace_only);

/** Spreads n sigmas over [lo, hi], falling, by the config's flag (karras, exponential, beta; rho 7): element i. */
double spread_karras(double hi, double lo, double rho, size_t n, size_t i);
double spread_exponential(double hi, double lo, size_t n, size_t i);
double spread_beta(double hi, double lo, size_t n, size_t i);

/** Inverse of the regularised incomplete beta function with a = b = 0.6; scipy.stats.beta.ppf to 1e-12. */
double beta_quantile(double q);

/** mu of a picture with `tokens` latent tokens: calculate_shift of diffusers' pipelines. */
double dynamic_shift_mu(const sched_config *c, size_t tokens);
#endif
