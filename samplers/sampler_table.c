/* One row a sampler: what it is called, what it equals, what it takes. docs/ADDING_A_SAMPLER.md. */
#include "samplers/sampler_table.h"

#include <ctype.h>
#include <string.h>

#define DIFFUSERS(class_name) class_name ", diffusers 0.42.1"
#define K_DIFFUSION(function) function ", k-diffusion 0.1.1"
#define COMFY(function)       function ", ComfyUI comfy/k_diffusion/sampling.py"

enum {
    EPS = PREDICTION_BIT(PREDICTS_EPSILON),
    X0 = PREDICTION_BIT(PREDICTS_SAMPLE),
    V = PREDICTION_BIT(PREDICTS_V),
    FLOW = PREDICTION_BIT(PREDICTS_FLOW),
    ANY = EPS | X0 | V | FLOW,

    /* what a method follows as its steps grow: the probability-flow ODE; another path each time; another equation */
    ODE = 0,
    NOISY,
    OWN_WAY,

    OWN = SCHEDULE_BIT(SCHEDULE_DEFAULT),
    LIST = SCHEDULE_BIT(SCHEDULE_CUSTOM), /* --sigmas */
    FLAGS = OWN | SCHEDULES_FLAGGED,
    LU = SCHEDULE_BIT(SCHEDULE_LU),
    LISTS = FLAGS | SCHEDULES_LISTED | LIST,
};

/* What a name promises, whatever order or algorithm the model's own scheduler has. */
static void as_2m(sched_config *c) {
    c->algorithm = ALGO_DPMPP;
    c->solver_order = 2;
    c->solver = SOLVER_MIDPOINT;
}

static void as_2m_sde(sched_config *c) {
    as_2m(c);
    c->algorithm = ALGO_SDE_DPMPP;
}

static void as_bh1(sched_config *c) { c->solver = SOLVER_BH1; }
static void as_bh2(sched_config *c) { c->solver = SOLVER_BH2; }

#define ROW(name_, label_, alias_, source_, order_, calls_, way_, schedules_)                                          \
    .row = {.name = name_,                                                                                             \
            .label = label_,                                                                                           \
            .alias = alias_,                                                                                           \
            .source = source_,                                                                                         \
            .order = order_,                                                                                           \
            .calls = calls_,                                                                                           \
            .stochastic = (way_) == NOISY,                                                                             \
            .ode = (way_) == ODE,                                                                                      \
            .schedules = schedules_}

static const sampler_entry entries[] = {
    {ROW("ddim", "DDIM", NULL, DIFFUSERS("DDIMScheduler"), 1, 1, ODE, OWN), .cls = CLASS_DDIM, .method = &method_ddim,
     .sums = true, .predictions = EPS | X0 | V},
    {ROW("ddpm", "DDPM", NULL, DIFFUSERS("DDPMScheduler"), 1, 1, NOISY, OWN), .cls = CLASS_DDPM, .method = &method_ddpm,
     .sums = true, .predictions = EPS | X0 | V},
    {ROW("pndm", "PLMS", "plms", DIFFUSERS("PNDMScheduler"), 4, 1, ODE, OWN), .cls = CLASS_PNDM, .method = &method_pndm,
     .sums = true, .predictions = EPS | V},
    {ROW("lms", "LMS", "lms_discrete", DIFFUSERS("LMSDiscreteScheduler"), 4, 1, ODE, LISTS), .cls = CLASS_LMS,
     .method = &method_lms, .sums = true, .predictions = EPS | X0 | V},
    {ROW("ipndm", "IPNDM", NULL, DIFFUSERS("IPNDMScheduler"), 4, 1, ODE, OWN), .cls = CLASS_IPNDM,
     .method = &method_ipndm, .sums = true, .predictions = ANY},
    {ROW("euler", "Euler", NULL, DIFFUSERS("EulerDiscreteScheduler"), 1, 1, ODE, LISTS), .cls = CLASS_EULER,
     .method = &method_euler, .sums = true, .predictions = EPS | X0 | V, .flow = "flow_euler"},
    {ROW("euler_a", "Euler a", "euler_ancestral", DIFFUSERS("EulerAncestralDiscreteScheduler"), 1, 1, NOISY, LISTS),
     .cls = CLASS_EULER_A, .method = &method_euler_a, .sums = true, .predictions = EPS | V},
    {ROW("heun", "Heun", NULL, DIFFUSERS("HeunDiscreteScheduler"), 2, 2, ODE, LISTS), .cls = CLASS_HEUN,
     .method = &method_heun, .sums = true, .predictions = EPS | X0 | V, .flow = "flow_heun"},
    {ROW("dpm2", "DPM2", "dpm_2,kdpm2", DIFFUSERS("KDPM2DiscreteScheduler"), 2, 2, ODE, LISTS), .cls = CLASS_DPM2,
     .method = &method_dpm2, .sums = true, .predictions = EPS | V},
    {ROW("dpm2_a", "DPM2 a", "dpm_2_ancestral,dpm2_ancestral", DIFFUSERS("KDPM2AncestralDiscreteScheduler"), 2, 2,
         NOISY, LISTS),
     .cls = CLASS_DPM2_A, .method = &method_dpm2_a, .sums = true, .predictions = EPS | V},
    {ROW("dpm++2s", "DPM++ 2S", "dpmpp_2s,dpm_singlestep", DIFFUSERS("DPMSolverSinglestepScheduler"), 2, 1, ODE, LISTS),
     .cls = CLASS_DPM_SINGLE, .method = &method_dpm_singlestep, .sums = true, .predictions = ANY, .flow = "dpm++2s",
     .by_name = as_2m},
    {ROW("dpm++2s_a", "DPM++ 2S a", "dpmpp_2s_ancestral,dpmpp_2s_a", K_DIFFUSION("sample_dpmpp_2s_ancestral"), 2, 2,
         NOISY, LISTS),
     .cls = CLASS_K, .method = &method_dpmpp_2s_a, .sums = true, .predictions = EPS | X0 | V},
    {ROW("dpm++2m", "DPM++ 2M", "dpmpp_2m", DIFFUSERS("DPMSolverMultistepScheduler"), 2, 1, ODE, LISTS | LU),
     .cls = CLASS_DPM_MULTI, .method = &method_dpm_multistep, .sums = true, .predictions = ANY, .flow = "dpm++2m",
     .by_name = as_2m},
    {ROW("dpm++2m_sde", "DPM++ 2M SDE", "dpmpp_2m_sde", DIFFUSERS("DPMSolverMultistepScheduler"), 2, 1, NOISY,
         LISTS | LU),
     .cls = CLASS_DPM_MULTI, .method = &method_dpm_multistep, .sums = true, .predictions = ANY, .flow = "dpm++2m_sde",
     .by_name = as_2m_sde},
    {ROW("dpm++sde", "DPM++ SDE", "dpmpp_sde", K_DIFFUSION("sample_dpmpp_sde"), 2, 2, NOISY, LISTS), .cls = CLASS_K,
     .method = &method_dpmpp_sde, .sums = true, .predictions = EPS | X0 | V},
    {ROW("dpm++3m_sde", "DPM++ 3M SDE", "dpmpp_3m_sde", K_DIFFUSION("sample_dpmpp_3m_sde"), 3, 1, NOISY, LISTS),
     .cls = CLASS_K, .method = &method_dpmpp_3m_sde, .sums = true, .predictions = EPS | X0 | V},
    {ROW("dpm_fast", "DPM fast", NULL, K_DIFFUSION("sample_dpm_fast"), 3, 1, ODE, OWN), .cls = CLASS_K,
     .method = &method_dpm_fast, .sums = true, .predictions = EPS | X0 | V},
    {ROW("dpm_adaptive", "DPM adaptive", NULL, K_DIFFUSION("sample_dpm_adaptive"), 3, 0, ODE, OWN), .cls = CLASS_K,
     .method = &method_dpm_adaptive, .predictions = EPS | X0 | V, .one_picture = true},
    {ROW("unipc", "UniPC", "uni_pc", DIFFUSERS("UniPCMultistepScheduler"), 2, 1, ODE, LISTS), .cls = CLASS_UNIPC,
     .method = &method_unipc, .sums = true, .predictions = ANY, .flow = "unipc"},
    {ROW("unipc_bh1", "UniPC bh1", "uni_pc_bh1", DIFFUSERS("UniPCMultistepScheduler"), 2, 1, ODE, LISTS),
     .cls = CLASS_UNIPC, .method = &method_unipc, .sums = true, .predictions = ANY, .flow = "unipc_bh1",
     .by_name = as_bh1},
    {ROW("unipc_bh2", "UniPC bh2", "uni_pc_bh2", DIFFUSERS("UniPCMultistepScheduler"), 2, 1, ODE, LISTS),
     .cls = CLASS_UNIPC, .method = &method_unipc, .sums = true, .predictions = ANY, .flow = "unipc_bh2",
     .by_name = as_bh2},
    {ROW("deis", "DEIS", NULL, DIFFUSERS("DEISMultistepScheduler"), 2, 1, ODE, LISTS), .cls = CLASS_DEIS,
     .method = &method_deis, .sums = true, .predictions = ANY, .flow = "deis"},
    {ROW("sa_solver", "SA-Solver", NULL, DIFFUSERS("SASolverScheduler"), 2, 1, NOISY, LISTS), .cls = CLASS_SA,
     .method = &method_sa_solver, .sums = true, .predictions = ANY, .flow = "sa_solver"},
    {ROW("lcm", "LCM", NULL, DIFFUSERS("LCMScheduler"), 1, 1, NOISY, OWN), .cls = CLASS_LCM, .method = &method_lcm,
     .sums = true, .predictions = EPS | X0 | V, .flow = "flow_lcm"},
    {ROW("tcd", "TCD", NULL, DIFFUSERS("TCDScheduler"), 1, 1, ODE, OWN), .cls = CLASS_TCD, .method = &method_tcd,
     .sums = true, .predictions = EPS | X0 | V},
    {ROW("edm_euler", "EDM Euler", NULL, DIFFUSERS("EDMEulerScheduler"), 1, 1, ODE, OWN), .cls = CLASS_EDM_EULER,
     .method = &method_edm_euler, .sums = true, .predictions = EPS | V},
    {ROW("edm_dpm++2m", "EDM DPM++ 2M", "edm_dpmpp_2m", DIFFUSERS("EDMDPMSolverMultistepScheduler"), 2, 1, ODE, OWN),
     .cls = CLASS_EDM_DPM, .method = &method_edm_dpm, .sums = true, .predictions = EPS | V},
    {ROW("res_multistep", "RES multistep", NULL, COMFY("res_multistep"), 2, 1, ODE, LISTS), .cls = CLASS_K,
     .method = &method_res_multistep, .sums = true, .predictions = EPS | X0 | V},
    {ROW("er_sde", "ER-SDE", NULL, COMFY("sample_er_sde"), 3, 1, NOISY, LISTS), .cls = CLASS_K,
     .method = &method_er_sde, .sums = true, .predictions = EPS | X0 | V},
    {ROW("cm", "CM", "consistency", DIFFUSERS("CMStochasticIterativeScheduler"), 1, 1, NOISY, OWN), .cls = CLASS_CM,
     .method = &method_cm, .sums = true, .predictions = ANY},
    {ROW("euler_cfg_pp", "Euler CFG++", "euler_cfg++", COMFY("sample_euler_cfg_pp"), 1, 1, OWN_WAY, LISTS),
     .cls = CLASS_K, .method = &method_euler_cfg_pp, .sums = true, .predictions = EPS | X0 | V},
    {ROW("euler_a_cfg_pp", "Euler a CFG++", "euler_a_cfg++,euler_ancestral_cfg_pp",
         COMFY("sample_euler_ancestral_cfg_pp"), 1, 1, NOISY, LISTS),
     .cls = CLASS_K, .method = &method_euler_a_cfg_pp, .sums = true, .predictions = EPS | X0 | V},
    {ROW("flow_euler", "Flow Euler", "flow_match_euler", DIFFUSERS("FlowMatchEulerDiscreteScheduler"), 1, 1, ODE,
         FLAGS | LIST),
     .cls = CLASS_FLOW_EULER, .method = &method_flow_euler, .sums = true, .predictions = FLOW, .flow = "flow_euler"},
    {ROW("flow_heun", "Flow Heun", "flow_match_heun", DIFFUSERS("FlowMatchHeunDiscreteScheduler"), 2, 2, ODE, OWN),
     .cls = CLASS_FLOW_HEUN, .method = &method_flow_heun, .sums = true, .predictions = FLOW, .flow = "flow_heun"},
    {ROW("flow_lcm", "Flow LCM", "flow_match_lcm", DIFFUSERS("FlowMatchLCMScheduler"), 1, 1, NOISY, FLAGS | LIST),
     .cls = CLASS_FLOW_LCM, .method = &method_flow_lcm, .sums = true, .predictions = FLOW, .flow = "flow_lcm"},
};

enum { ENTRIES = sizeof entries / sizeof entries[0] };

size_t sampler_table_count(void) { return ENTRIES; }

const sampler_entry *sampler_table_at(size_t i) { return i < ENTRIES ? &entries[i] : NULL; }

/* a[0..n) against b, letters without case, spaces as underscores */
static bool same(const char *a, size_t n, const char *b) {
    if (strlen(b) != n) return false;
    for (size_t i = 0; i < n; i++) {
        const int x = a[i] == ' ' ? '_' : tolower((unsigned char)a[i]);
        const int y = b[i] == ' ' ? '_' : tolower((unsigned char)b[i]);
        if (x != y) return false;
    }
    return true;
}

static bool in_list(const char *list, const char *name) {
    while (list) {
        const char *end = strchr(list, ',');
        if (same(list, end ? (size_t)(end - list) : strlen(list), name)) return true;
        list = end ? end + 1 : NULL;
    }
    return false;
}

const sampler_entry *sampler_table_find(const char *name) {
    for (size_t i = 0; i < ENTRIES; i++) {
        const rung_sampler_row *r = &entries[i].row;
        if (in_list(r->name, name) || in_list(r->alias, name) || in_list(r->label, name)) return &entries[i];
    }
    return NULL;
}

const sampler_entry *sampler_table_of_class(const char *class_name) {
    /* the one class whose reference here is k-diffusion's function */
    if (strcmp(class_name, "DPMSolverSDEScheduler") == 0) return sampler_table_find("dpm++sde");
    for (size_t i = 0; i < ENTRIES; i++) {
        if (strcmp(sched_class_get(entries[i].cls)->name, class_name) == 0) return &entries[i];
    }
    return NULL;
}
