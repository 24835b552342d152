/* samplers/sigma_lists.h - schedules by name, as lists of sigmas over a model's training noise. */
#ifndef RUNG_SIGMA_LISTS_H
#define RUNG_SIGMA_LISTS_H
#include "samplers/schedule.h"

typedef enum {
    SCHEDULE_DEFAULT,
    SCHEDULE_KARRAS,
    SCHEDULE_EXPONENTIAL,
    SCHEDULE_BETA,
    SCHEDULE_LU,
    SCHEDULE_POLYEXPONENTIAL,
    SCHEDULE_SGM_UNIFORM,
    SCHEDULE_SIMPLE,
    SCHEDULE_NORMAL,
    SCHEDULE_DDIM_UNIFORM,
    SCHEDULE_LINEAR_QUADRATIC,
    SCHEDULE_KL_OPTIMAL,
    SCHEDULE_AYS,
    SCHEDULE_AYS_SDXL,
    SCHEDULE_CUSTOM,
    SCHEDULES,
} schedule_id;

#define SCHEDULE_BIT(id) (1u << (id))

/* Those with a flag in diffusers' classes (use_karras_sigmas, ...) */
#define SCHEDULES_FLAGGED                                                                                              \
    (SCHEDULE_BIT(SCHEDULE_KARRAS) | SCHEDULE_BIT(SCHEDULE_EXPONENTIAL) | SCHEDULE_BIT(SCHEDULE_BETA))
/* Those that are a list of sigmas and nothing else: for methods that take any list */
#define SCHEDULES_LISTED                                                                                               \
    (SCHEDULE_BIT(SCHEDULE_POLYEXPONENTIAL) | SCHEDULE_BIT(SCHEDULE_SGM_UNIFORM) | SCHEDULE_BIT(SCHEDULE_SIMPLE) |     \
     SCHEDULE_BIT(SCHEDULE_NORMAL) | SCHEDULE_BIT(SCHEDULE_DDIM_UNIFORM) | SCHEDULE_BIT(SCHEDULE_LINEAR_QUADRATIC) |   \
     SCHEDULE_BIT(SCHEDULE_KL_OPTIMAL) | SCHEDULE_BIT(SCHEDULE_AYS) | SCHEDULE_BIT(SCHEDULE_AYS_SDXL))

/** Steps of the list: `steps`, but for ddim_uniform, which takes every (n / steps)-th training step. */
size_t sigma_list_steps(schedule_id id, const train_noise *t, size_t steps);

/**
 * Fills sigma [count + 1], falling; the last one is 0, but for kl_optimal, which ends at the model's smallest sigma.
 * SCHEDULE_DEFAULT is k-diffusion's get_sigmas. Not for SCHEDULE_LU and SCHEDULE_CUSTOM.
 * Sources: k-diffusion 0.1.1 get_sigmas_*; A1111 1.10 modules/sd_schedulers.py (sgm_uniform, simple, normal, ddim,
 * beta, kl_optimal, align_your_steps); ComfyUI comfy/samplers.py (linear_quadratic).
 */
void sigma_list_fill(schedule_id id, const train_noise *t, size_t steps, float *sigma);

/** "karras" -> SCHEDULE_KARRAS, case-insensitive, A1111's names too; SCHEDULES when there is none. */
schedule_id schedule_find(const char *name);
const char *schedule_name(schedule_id id);
#endif
