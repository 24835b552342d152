#include "samplers/scheduler_config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "assets/json.h"

/* Arguments that several classes share, and their usual defaults. */
#define K_BETAS      "num_train_timesteps beta_start beta_end beta_schedule trained_betas "
#define K_SPACING    "prediction_type timestep_spacing steps_offset "
#define K_SIGMAS     "use_karras_sigmas use_exponential_sigmas use_beta_sigmas "
#define K_THRESHOLD  "thresholding dynamic_thresholding_ratio sample_max_value "
#define K_CLIP       "clip_sample clip_sample_range "
#define K_FLOW       "use_flow_sigmas flow_shift use_dynamic_shifting time_shift_type "
#define K_DPM        "solver_order algorithm_type solver_type lower_order_final "
#define K_EDM_SIGMAS "sigma_min sigma_max sigma_data sigma_schedule "
#define K_EDM        K_EDM_SIGMAS "num_train_timesteps prediction_type rho final_sigmas_type "
#define K_FLOW_MATCH                                                                                                   \
    "num_train_timesteps shift use_dynamic_shifting base_shift max_shift base_image_seq_len max_image_seq_len "        \
    "invert_sigmas shift_terminal time_shift_type " K_SIGMAS

#define COMMON                                                                                                         \
    .num_train_timesteps = 1000, .dynamic_thresholding_ratio = 0.995, .sample_max_value = 1, .clip_sample_range = 1,   \
    .sigma_min = NAN, .sigma_max = NAN, .shift = 1, .base_shift = 0.5, .max_shift = 1.15, .base_image_seq_len = 256,   \
    .max_image_seq_len = 4096, .lambda_min_clipped = -INFINITY, .solver_order = 2, .algorithm = ALGO_DPMPP,            \
    .predict_x0 = true, .lower_order_final = true
#define BETAS(start, end) .beta_start = start, .beta_end = end
#define DDIM_BETAS        BETAS(0.0001, 0.02)
#define LDM_BETAS         BETAS(0.00085, 0.012)
#define EDM_SIGMAS        .sigma_min = 0.002, .sigma_max = 80, .sigma_data = 0.5, .rho = 7
#define CONSISTENCY_KEYS                                                                                               \
    K_BETAS K_SPACING K_THRESHOLD K_CLIP                                                                               \
        "set_alpha_to_one rescale_betas_zero_snr original_inference_steps timestep_scaling"
#define CONSISTENCY                                                                                                    \
    {                                                                                                                  \
        COMMON, LDM_BETAS, .beta_schedule = BETAS_SCALED_LINEAR, .timestep_spacing = SPACED_LEADING,                   \
                           .set_alpha_to_one = true, .original_inference_steps = 50, .timestep_scaling = 10            \
    }

/* COMMON is overridden on purpose: a later initialiser of the same field wins. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Woverride-init"

static const sched_class classes[] = {
    [CLASS_DDIM] = {"DDIMScheduler",
                    K_BETAS K_SPACING K_THRESHOLD K_CLIP "set_alpha_to_one rescale_betas_zero_snr",
                    {COMMON, DDIM_BETAS, .clip_sample = true, .set_alpha_to_one = true,
                     .timestep_spacing = SPACED_LEADING}},
    [CLASS_DDPM] = {"DDPMScheduler",
                    K_BETAS K_SPACING K_THRESHOLD K_CLIP "variance_type rescale_betas_zero_snr",
                    {COMMON, DDIM_BETAS, .clip_sample = true, .timestep_spacing = SPACED_LEADING}},
    [CLASS_PNDM] = {"PNDMScheduler",
                    K_BETAS K_SPACING "skip_prk_steps set_alpha_to_one",
                    {COMMON, DDIM_BETAS, .timestep_spacing = SPACED_LEADING}},
    [CLASS_LCM] = {"LCMScheduler", CONSISTENCY_KEYS, CONSISTENCY},
    [CLASS_TCD] = {"TCDScheduler", CONSISTENCY_KEYS, CONSISTENCY},
    [CLASS_EULER] = {"EulerDiscreteScheduler",
                     K_BETAS K_SPACING K_SIGMAS
                     "interpolation_type sigma_min sigma_max timestep_type rescale_betas_zero_snr final_sigmas_type",
                     {COMMON, DDIM_BETAS}},
    [CLASS_EULER_A] = {"EulerAncestralDiscreteScheduler",
                       K_BETAS K_SPACING "rescale_betas_zero_snr",
                       {COMMON, DDIM_BETAS}},
    [CLASS_HEUN] = {"HeunDiscreteScheduler", K_BETAS K_SPACING K_SIGMAS K_CLIP, {COMMON, LDM_BETAS}},
    [CLASS_DPM2] = {"KDPM2DiscreteScheduler", K_BETAS K_SPACING K_SIGMAS, {COMMON, LDM_BETAS}},
    [CLASS_DPM2_A] = {"KDPM2AncestralDiscreteScheduler", K_BETAS K_SPACING K_SIGMAS, {COMMON, LDM_BETAS}},
    [CLASS_LMS] = {"LMSDiscreteScheduler", K_BETAS K_SPACING K_SIGMAS, {COMMON, DDIM_BETAS}},
    [CLASS_IPNDM] = {"IPNDMScheduler", "num_train_timesteps trained_betas", {COMMON}},
    [CLASS_DPM_MULTI] = {"DPMSolverMultistepScheduler",
                         K_BETAS K_SPACING K_SIGMAS K_THRESHOLD K_DPM K_FLOW
                         "euler_at_final use_lu_lambdas final_sigmas_type lambda_min_clipped rescale_betas_zero_snr",
                         {COMMON, DDIM_BETAS}},
    [CLASS_DPM_SINGLE] = {"DPMSolverSinglestepScheduler",
                          K_BETAS
                          "prediction_type final_sigmas_type lambda_min_clipped " K_SIGMAS K_THRESHOLD K_DPM K_FLOW,
                          {COMMON, DDIM_BETAS, .lower_order_final = false}},
    [CLASS_UNIPC] = {"UniPCMultistepScheduler",
                     K_BETAS K_SPACING K_SIGMAS K_THRESHOLD K_FLOW
                     "solver_order solver_type lower_order_final predict_x0 disable_corrector final_sigmas_type "
                     "rescale_betas_zero_snr sigma_min sigma_max shift_terminal",
                     {COMMON, DDIM_BETAS, .solver = SOLVER_BH2}},
    [CLASS_DEIS] = {"DEISMultistepScheduler",
                    K_BETAS K_SPACING K_SIGMAS K_THRESHOLD K_DPM K_FLOW,
                    {COMMON, DDIM_BETAS}},
    [CLASS_SA] = {"SASolverScheduler",
                  K_BETAS K_SPACING K_SIGMAS K_THRESHOLD
                  "predictor_order corrector_order algorithm_type lower_order_final use_flow_sigmas flow_shift "
                  "lambda_min_clipped",
                  {COMMON, DDIM_BETAS, .predictor_order = 2, .corrector_order = 2}},
    [CLASS_EDM_EULER] = {"EDMEulerScheduler", K_EDM, {COMMON, EDM_SIGMAS}},
    [CLASS_EDM_DPM] = {"EDMDPMSolverMultistepScheduler",
                       K_EDM K_THRESHOLD K_DPM "euler_at_final",
                       {COMMON, EDM_SIGMAS}},
    [CLASS_CM] = {"CMStochasticIterativeScheduler",
                  "num_train_timesteps sigma_min sigma_max sigma_data s_noise rho clip_denoised",
                  {COMMON, EDM_SIGMAS, .num_train_timesteps = 40, .s_noise = 1, .clip_denoised = true}},
    [CLASS_FLOW_EULER] = {"FlowMatchEulerDiscreteScheduler",
                          K_FLOW_MATCH "stochastic_sampling",
                          {COMMON, .prediction = PREDICTS_FLOW}},
    [CLASS_FLOW_HEUN] = {"FlowMatchHeunDiscreteScheduler",
                         "num_train_timesteps shift",
                         {COMMON, .prediction = PREDICTS_FLOW}},
    [CLASS_FLOW_LCM] = {"FlowMatchLCMScheduler", K_FLOW_MATCH, {COMMON, .prediction = PREDICTS_FLOW}},
    [CLASS_K] = {"k-diffusion", K_BETAS K_SIGMAS "prediction_type rescale_betas_zero_snr", {COMMON, DDIM_BETAS}},
};
#pragma GCC diagnostic pop

const sched_class *sched_class_get(sched_class_id id) { return &classes[id]; }

typedef struct {
    rung_config json;
    const sched_class *cls;
    const cJSON *ignored; /* "_use_default_values" */
} reader;

static bool has_word(const char *words, const char *word) {
    const size_t n = strlen(word);
    for (const char *at = words; (at = strstr(at, word)); at += n) {
        if ((at == words || at[-1] == ' ') && (at[n] == ' ' || at[n] == '\0')) return true;
    }
    return false;
}

static bool present(const reader *r, const char *key) {
    const cJSON *name;
    cJSON_ArrayForEach(name, r->ignored) {
        if (cJSON_IsString(name) && strcmp(name->valuestring, key) == 0) return false;
    }
    return r->json.root && cfg_has(&r->json, key);
}

static bool given(const reader *r, const char *key) { return has_word(r->cls->keys, key) && present(r, key); }

static void read_bool(reader *r, const char *key, bool *out) {
    if (given(r, key)) *out = cfg_bool(&r->json, key, *out);
}

static void read_int(reader *r, const char *key, long *out, long lo, long hi) {
    if (given(r, key)) *out = cfg_int(&r->json, key, *out, lo, hi);
}

static void read_real(reader *r, const char *key, double *out, double lo, double hi) {
    if (given(r, key)) *out = cfg_real(&r->json, key, *out, lo, hi);
}

/* Index of the key's string among `words` (NULL-terminated); `def` when it is not given. */
static int read_choice(reader *r, const char *key, int def, const char *const *words) {
    if (!given(r, key)) return def;
    const char *found = cfg_string(&r->json, key, "");
    for (int i = 0; words[i]; i++) {
        if (strcmp(words[i], found) == 0) return i;
    }
    if (!r->json.status) cfg_refuse(&r->json, "%s \"%.40s\" is not known to %s", key, found, r->cls->name);
    return def;
}

static rung_status read_trained_betas(reader *r, sched_config *c) {
    if (!given(r, "trained_betas")) return RUNG_OK;
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(r->json.root, "trained_betas");
    const int n = cJSON_IsArray(list) ? cJSON_GetArraySize(list) : 0;
    if (n < 1 || n > MAX_TRAIN_STEPS) {
        cfg_refuse(&r->json, "trained_betas wants a list of 1 to %d numbers", MAX_TRAIN_STEPS);
        return RUNG_OK;
    }
    c->trained_betas = malloc(sizeof(float) * (size_t)n);
    if (!c->trained_betas) return rung_fail(r->json.err, RUNG_ENOMEM, "scheduler: %d betas", n);
    const cJSON *item;
    cJSON_ArrayForEach(item, list) {
        if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0 && item->valuedouble <= 1)) {
            cfg_refuse(&r->json, "trained_betas[%zu] is not a number in 0..1", c->n_trained);
            return RUNG_OK;
        }
        c->trained_betas[c->n_trained++] = (float)item->valuedouble;
    }
    return RUNG_OK;
}

static void read_training(reader *r, sched_config *c) {
    static const char *const betas[] = {"linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "laplace", "exp",
                                        NULL};
    read_int(r, "num_train_timesteps", &c->num_train_timesteps, 2, MAX_TRAIN_STEPS);
    read_real(r, "beta_start", &c->beta_start, 0, 1);
    read_real(r, "beta_end", &c->beta_end, 0, 1);
    c->beta_schedule = (beta_form)read_choice(r, "beta_schedule", (int)c->beta_schedule, betas);
    const bool ddpm = r->cls == &classes[CLASS_DDPM], heun = r->cls == &classes[CLASS_HEUN];
    if (((c->beta_schedule == BETAS_SIGMOID || c->beta_schedule == BETAS_LAPLACE) && !ddpm) ||
        (c->beta_schedule == BETAS_EXP && !heun))
        cfg_refuse(&r->json, "beta_schedule \"%s\" is not known to %s", betas[c->beta_schedule], r->cls->name);
    read_bool(r, "rescale_betas_zero_snr", &c->rescale_betas_zero_snr);
    read_bool(r, "set_alpha_to_one", &c->set_alpha_to_one);
}

static void read_prediction(reader *r, sched_config *c) {
    static const char *const words[] = {"epsilon",         "sample",          "v_prediction",
                                        "flow_prediction", "original_sample", NULL};
    const int found = read_choice(r, "prediction_type", (int)c->prediction, words);
    c->prediction = found == 4 ? PREDICTS_SAMPLE : (prediction)found;
    read_bool(r, "thresholding", &c->thresholding);
    read_real(r, "dynamic_thresholding_ratio", &c->dynamic_thresholding_ratio, 0, 1);
    read_real(r, "sample_max_value", &c->sample_max_value, 1e-6, 1e6);
    read_bool(r, "clip_sample", &c->clip_sample);
    read_real(r, "clip_sample_range", &c->clip_sample_range, 0, 1e6);
    read_bool(r, "clip_denoised", &c->clip_denoised);
}

static void read_steps(reader *r, sched_config *c) {
    static const char *const spacings[] = {"linspace", "leading", "trailing", NULL};
    static const char *const interpolations[] = {"linear", "log_linear", NULL};
    static const char *const kinds[] = {"discrete", "continuous", NULL};
    static const char *const finals[] = {"zero", "sigma_min", NULL};
    static const char *const edm[] = {"karras", "exponential", NULL};
    c->timestep_spacing = (spacing)read_choice(r, "timestep_spacing", (int)c->timestep_spacing, spacings);
    read_int(r, "steps_offset", &c->steps_offset, 0, MAX_TRAIN_STEPS);
    c->log_linear = read_choice(r, "interpolation_type", c->log_linear, interpolations);
    c->continuous = read_choice(r, "timestep_type", c->continuous, kinds);
    c->final_sigma_min = read_choice(r, "final_sigmas_type", c->final_sigma_min, finals);
    c->sigma_exponential = read_choice(r, "sigma_schedule", c->sigma_exponential, edm);
    read_bool(r, "use_karras_sigmas", &c->use_karras_sigmas);
    read_bool(r, "use_exponential_sigmas", &c->use_exponential_sigmas);
    read_bool(r, "use_beta_sigmas", &c->use_beta_sigmas);
    read_bool(r, "use_lu_lambdas", &c->use_lu_lambdas);
    if (c->use_karras_sigmas + c->use_exponential_sigmas + c->use_beta_sigmas > 1)
        cfg_refuse(&r->json, "only one of use_karras_sigmas, use_exponential_sigmas, use_beta_sigmas may be set");
    /* not an argument of every class, and yet read by all of them: from_config keeps unknown keys in self.config */
    if (present(r, "sigma_min")) c->sigma_min = cfg_real(&r->json, "sigma_min", c->sigma_min, 1e-9, 1e9);
    if (present(r, "sigma_max")) c->sigma_max = cfg_real(&r->json, "sigma_max", c->sigma_max, 1e-9, 1e9);
    read_real(r, "sigma_data", &c->sigma_data, 1e-6, 1e6);
    read_real(r, "rho", &c->rho, 1e-3, 1e3);
    read_real(r, "s_noise", &c->s_noise, 0, 1e3);
    read_int(r, "original_inference_steps", &c->original_inference_steps, 1, MAX_TRAIN_STEPS);
    read_real(r, "timestep_scaling", &c->timestep_scaling, 0, 1e6);
    read_bool(r, "skip_prk_steps", &c->skip_prk_steps);
    if (r->cls == &classes[CLASS_DDPM]) {
        static const char *const variances[] = {"fixed_small", "fixed_small_log", "fixed_large", NULL};
        c->variance_type = (variance_form)read_choice(r, "variance_type", (int)c->variance_type, variances);
    }
}

/* Each class translates the names of its relatives' algorithms and solvers to its own default. */
static void read_solver(reader *r, sched_config *c) {
    static const char *const algorithms[] = {"dpmsolver",       "dpmsolver++", "sde-dpmsolver",
                                             "sde-dpmsolver++", "deis",        NULL};
    static const char *const sa_forms[] = {"noise_prediction", "data_prediction", "dpmsolver", "dpmsolver++",
                                           "sde-dpmsolver",    "sde-dpmsolver++", "deis",      NULL};
    static const char *const solvers[] = {"midpoint", "heun", "bh1", "bh2", "logrho", NULL};
    const bool unipc = r->cls == &classes[CLASS_UNIPC], deis = r->cls == &classes[CLASS_DEIS];
    if (r->cls == &classes[CLASS_SA]) {
        c->predict_x0 = read_choice(r, "algorithm_type", 1, sa_forms) != 0;
    } else if (!deis) {
        const int found = read_choice(r, "algorithm_type", (int)c->algorithm, algorithms);
        c->algorithm = found == 4 ? ALGO_DPMPP : (dpm_algorithm)found;
    }
    const int found = read_choice(r, "solver_type", (int)c->solver, solvers);
    if (unipc)
        c->solver = found == 2 ? SOLVER_BH1 : SOLVER_BH2;
    else
        c->solver = found == 1 ? SOLVER_HEUN : SOLVER_MIDPOINT;
    read_int(r, "solver_order", &c->solver_order, 1, 3);
    read_int(r, "predictor_order", &c->predictor_order, 1, 4);
    read_int(r, "corrector_order", &c->corrector_order, 1, 4);
    read_bool(r, "predict_x0", &c->predict_x0);
    read_bool(r, "lower_order_final", &c->lower_order_final);
    read_bool(r, "euler_at_final", &c->euler_at_final);
    read_real(r, "lambda_min_clipped", &c->lambda_min_clipped, -INFINITY, 1e6);
    if (given(r, "disable_corrector")) {
        const cJSON *step, *list = cJSON_GetObjectItemCaseSensitive(r->json.root, "disable_corrector");
        if (!cJSON_IsArray(list)) cfg_refuse(&r->json, "disable_corrector wants a list of steps");
        cJSON_ArrayForEach(step, list) {
            if (!cJSON_IsNumber(step) || !(step->valuedouble >= 0 && step->valuedouble < 128))
                cfg_refuse(&r->json, "disable_corrector wants steps in 0..127");
            else
                c->disable_corrector[step->valueint / 32] |= 1u << step->valueint % 32;
        }
    }
}

/* flow_match: the config is a FlowMatch* class's, whose relatives here need telling that the model is a flow. */
static void read_flow(reader *r, sched_config *c, bool flow_match) {
    static const char *const shifts[] = {"exponential", "linear", NULL};
    read_bool(r, "use_flow_sigmas", &c->use_flow_sigmas);
    /* the shift is `shift` in one half of the classes and `flow_shift` in the other: either name counts for both */
    if (has_word(r->cls->keys, "shift") || has_word(r->cls->keys, "flow_shift")) {
        const char *key = has_word(r->cls->keys, "shift") ? "shift" : "flow_shift";
        if (!present(r, key)) key = key[0] == 's' ? "flow_shift" : "shift";
        if (present(r, key)) c->shift = cfg_real(&r->json, key, c->shift, 1e-6, 1e6);
    }
    read_bool(r, "use_dynamic_shifting", &c->use_dynamic_shifting);
    c->shift_linear = read_choice(r, "time_shift_type", c->shift_linear, shifts);
    read_bool(r, "invert_sigmas", &c->invert_sigmas);
    read_bool(r, "stochastic_sampling", &c->stochastic_sampling);
    read_real(r, "shift_terminal", &c->shift_terminal, 0, 0.999);
    if (present(r, "base_shift")) c->base_shift = cfg_real(&r->json, "base_shift", c->base_shift, -100, 100);
    if (present(r, "max_shift")) c->max_shift = cfg_real(&r->json, "max_shift", c->max_shift, -100, 100);
    if (present(r, "base_image_seq_len"))
        c->base_image_seq_len = cfg_int(&r->json, "base_image_seq_len", c->base_image_seq_len, 1, 1 << 30);
    if (present(r, "max_image_seq_len"))
        c->max_image_seq_len = cfg_int(&r->json, "max_image_seq_len", c->max_image_seq_len, 1, 1 << 30);
    if (c->base_image_seq_len == c->max_image_seq_len)
        cfg_refuse(&r->json, "base_image_seq_len equals max_image_seq_len");
    if (flow_match && has_word(r->cls->keys, "use_flow_sigmas")) {
        c->use_flow_sigmas = true;
        c->prediction = PREDICTS_FLOW;
    }
}

static rung_status parse(cJSON **root, reader *r, const char *json, rung_err *err) {
    *root = NULL;
    r->json = (rung_config){.where = "scheduler_config.json", .err = err};
    if (!json) return RUNG_OK;
    RUNG_TRY(rung_json_parse(root, json, strlen(json), r->json.where, err));
    if (!cJSON_IsObject(*root)) {
        cJSON_Delete(*root);
        *root = NULL;
        return rung_fail(err, RUNG_EFORMAT, "%s: not a JSON object", r->json.where);
    }
    r->json.root = *root;
    r->ignored = cJSON_GetObjectItemCaseSensitive(*root, "_use_default_values");
    return RUNG_OK;
}

static bool is_flow(const reader *r, const char *class_name) {
    if (strncmp(class_name, "FlowMatch", 9) == 0) return true;
    if (!r->json.root) return false;
    const cJSON *p = cJSON_GetObjectItemCaseSensitive(r->json.root, "prediction_type");
    return (cJSON_IsString(p) && strcmp(p->valuestring, "flow_prediction") == 0) ||
           cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(r->json.root, "use_flow_sigmas"));
}

static const char *class_name_of(reader *r) {
    return r->json.root && cfg_has(&r->json, "_class_name") ? cfg_string(&r->json, "_class_name", "") : "";
}

rung_status sched_config_peek(sched_summary *out, const char *json, rung_err *err) {
    reader r = {0};
    cJSON *root;
    *out = (sched_summary){0};
    RUNG_TRY(parse(&root, &r, json, err));
    const char *name = class_name_of(&r);
    strncpy(out->class_name, name, sizeof out->class_name - 1);
    out->flow = is_flow(&r, name);
    cJSON_Delete(root);
    return r.json.status;
}

rung_status sched_config_read(sched_config *out, sched_class_id id, const char *json, rung_err *err) {
    reader r = {.cls = &classes[id]};
    cJSON *root;
    *out = classes[id].defaults;
    RUNG_TRY(parse(&root, &r, json, err));
    const bool flow_match = strncmp(class_name_of(&r), "FlowMatch", 9) == 0;
    rung_status st = read_trained_betas(&r, out);
    read_training(&r, out);
    read_prediction(&r, out);
    read_steps(&r, out);
    read_solver(&r, out);
    read_flow(&r, out, flow_match);
    if (!st) st = r.json.status;
    cJSON_Delete(root);
    if (st) sched_config_free(out);
    return st;
}

void sched_config_free(sched_config *c) {
    free(c->trained_betas);
    c->trained_betas = NULL;
}
