/* samplers/scheduler_config.h - what scheduler_config.json says, as diffusers' from_config reads it for one class:
 * keys that the class does not know are dropped, absent ones and those in "_use_default_values" take its defaults. */
#ifndef RUNG_SCHEDULER_CONFIG_H
#define RUNG_SCHEDULER_CONFIG_H
#include <stdbool.h>
#include <stddef.h>

#include "kernels/base/err.h"

typedef enum { PREDICTS_EPSILON, PREDICTS_SAMPLE, PREDICTS_V, PREDICTS_FLOW } prediction;
typedef enum { SPACED_LINSPACE, SPACED_LEADING, SPACED_TRAILING } spacing;
typedef enum { BETAS_LINEAR, BETAS_SCALED_LINEAR, BETAS_COSINE, BETAS_SIGMOID, BETAS_LAPLACE, BETAS_EXP } beta_form;
typedef enum { ALGO_DPM, ALGO_DPMPP, ALGO_SDE_DPM, ALGO_SDE_DPMPP } dpm_algorithm;
typedef enum { SOLVER_MIDPOINT, SOLVER_HEUN, SOLVER_BH1, SOLVER_BH2 } solver_form;
typedef enum { VARIANCE_SMALL, VARIANCE_SMALL_LOG, VARIANCE_LARGE } variance_form;

enum { MAX_TRAIN_STEPS = 100000 };

/* One struct for all classes; each class reads the fields that its keys fill. Names are those of the JSON keys. */
typedef struct {
    long num_train_timesteps;
    double beta_start, beta_end;
    beta_form beta_schedule;
    float *trained_betas; /* owned; NULL: computed from the three above */
    size_t n_trained;
    prediction prediction;
    spacing timestep_spacing;
    long steps_offset;
    bool rescale_betas_zero_snr;
    bool set_alpha_to_one;
    bool clip_sample;
    double clip_sample_range;
    bool thresholding;
    double dynamic_thresholding_ratio, sample_max_value;
    bool skip_prk_steps;
    variance_form variance_type;
    long original_inference_steps;
    double timestep_scaling;
    bool use_karras_sigmas, use_exponential_sigmas, use_beta_sigmas, use_lu_lambdas, use_flow_sigmas;
    double sigma_min, sigma_max; /* NAN: not given */
    double sigma_data, rho, s_noise;
    bool sigma_exponential; /* "sigma_schedule" of the EDM classes: exponential instead of karras */
    bool clip_denoised;
    bool log_linear;      /* "interpolation_type": "log_linear" */
    bool continuous;      /* "timestep_type": "continuous" */
    bool final_sigma_min; /* "final_sigmas_type": "sigma_min" instead of "zero" */
    long solver_order, predictor_order, corrector_order;
    dpm_algorithm algorithm;
    solver_form solver;
    bool predict_x0; /* SA-Solver: "algorithm_type": "data_prediction" */
    bool lower_order_final, euler_at_final;
    double lambda_min_clipped;
    unsigned disable_corrector[4]; /* UniPC: bit i set: step i is not corrected (i < 128) */
    double shift;                  /* "shift" or "flow_shift" */
    bool use_dynamic_shifting, shift_linear, invert_sigmas, stochastic_sampling;
    double base_shift, max_shift, shift_terminal; /* shift_terminal 0: none */
    long base_image_seq_len, max_image_seq_len;
} sched_config;

typedef struct {
    const char *name; /* "EulerDiscreteScheduler" */
    const char *keys; /* arguments of its __init__, space-separated */
    sched_config defaults;
} sched_class;

/* Indices of the classes; the table is in scheduler_config.c. */
typedef enum {
    CLASS_DDIM,
    CLASS_DDPM,
    CLASS_PNDM,
    CLASS_LCM,
    CLASS_TCD,
    CLASS_EULER,
    CLASS_EULER_A,
    CLASS_HEUN,
    CLASS_DPM2,
    CLASS_DPM2_A,
    CLASS_LMS,
    CLASS_IPNDM,
    CLASS_DPM_MULTI,
    CLASS_DPM_SINGLE,
    CLASS_UNIPC,
    CLASS_DEIS,
    CLASS_SA,
    CLASS_EDM_EULER,
    CLASS_EDM_DPM,
    CLASS_CM,
    CLASS_FLOW_EULER,
    CLASS_FLOW_HEUN,
    CLASS_FLOW_LCM,
    CLASS_K,
} sched_class_id;

const sched_class *sched_class_get(sched_class_id id);

/* What has to be known of a config before a class is chosen. */
typedef struct {
    char class_name[64]; /* "_class_name"; "" when absent */
    bool flow;           /* a flow-matching model */
} sched_summary;

/** `json` may be NULL (an empty config). RUNG_EFORMAT. */
rung_status sched_config_peek(sched_summary *out, const char *json, rung_err *err);

/** Reads `json` (NULL: all defaults) for a class. RUNG_EFORMAT: a value of the wrong type or out of range; RUNG_EARG: a
 *  value that is understood and not supported (named). Free with sched_config_free. */
rung_status sched_config_read(sched_config *out, sched_class_id id, const char *json, rung_err *err);
void sched_config_free(sched_config *c);
#endif
