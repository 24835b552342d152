/* tests/test_schedule.c - schedules: published numbers, zero terminal SNR, and everything that has to be refused. */
#include <stdlib.h>
#include <string.h>

#include "samplers/sampler.h"
#include "samplers/sigma_lists.h"
#include "tests/check.h"

#define SD1                                                                                                            \
    "\"_class_name\": \"PNDMScheduler\", \"beta_start\": 0.00085, \"beta_end\": 0.012, \"beta_schedule\": "            \
    "\"scaled_linear\", \"clip_sample\": false, \"skip_prk_steps\": true, \"steps_offset\": 1"

static void beta_quantile_is_scipy(void) {
    /* scipy.stats.beta.ppf(q, 0.6, 0.6), scipy 1.17.1 */
    static const double q[] = {1e-6, 0.01, 0.3, 0.5, 0.9, 0.999};
    static const double want[] = {1.8558824624053043e-10, 0.00086123882154290593, 0.23401700387523572,
                                  0.50000000000000011,    0.96041559441121915,    0.99998144126148258};
    for (int i = 0; i < 6; i++) CHECK(fabs(beta_quantile(q[i]) - want[i]) <= 1e-13 * want[i]);
    CHECK(beta_quantile(0) == 0 && beta_quantile(1) == 1);
}

static void train_noise_is_torch(void) {
    sched_config c;
    train_noise t;
    rung_err err = {0};
    CHECK(sched_config_read(&c, CLASS_EULER, "{" SD1 "}", &err) == RUNG_OK);
    CHECK(train_noise_open(&t, &c, true, &err) == RUNG_OK);
    /* EulerDiscreteScheduler: the sigmas of Stable Diffusion */
    CHECK(fabsf(t.sigmas[0] - 0.0291671f) < 1e-6f && fabsf(t.sigmas[999] - 14.614647f) < 1e-5f);
    CHECK(fabs(train_sigma_to_t(&t, (double)t.sigmas[500]) - 500) < 1e-3 && train_sigma_to_t(&t, 1e9) == 999);
    CHECK(train_sigma_to_t(&t, 0) == 0 && train_sigma_at(&t, -3) == (double)t.sigmas[0]);
    CHECK(fabsf(train_t_to_sigma(&t, 10.5f) - sqrtf(t.sigmas[10] * t.sigmas[11])) < 1e-6f);
    train_noise_close(&t);
    c.rescale_betas_zero_snr = true;
    CHECK(train_noise_open(&t, &c, false, &err) == RUNG_OK);
    CHECK(t.alphas_cumprod[999] == 0 && isinf(t.sigmas[999]));
    train_noise_close(&t);
    CHECK(train_noise_open(&t, &c, true, &err) == RUNG_OK);
    CHECK(fabsf(t.sigmas[999] - 4096) < 1e-2f);
    train_noise_close(&t);
}

static void names_are_found(void) {
    CHECK(schedule_find("karras") == SCHEDULE_KARRAS && schedule_find("SGM Uniform") == SCHEDULE_SGM_UNIFORM);
    CHECK(schedule_find("align_your_steps") == SCHEDULE_AYS && schedule_find("karra") == SCHEDULES);
    CHECK(schedule_find("custom") == SCHEDULES && schedule_find("") == SCHEDULES);
    CHECK(rung_schedule_name(0) && strcmp(rung_schedule_name(0), "default") == 0);
    CHECK(!rung_schedule_name(SCHEDULE_CUSTOM) && !rung_schedule_name(1000));
    CHECK(rung_sampler_find("DPM++ 2M") == rung_sampler_find("dpmpp_2m") && rung_sampler_find("dpm++2m"));
    CHECK(rung_sampler_find("PLMS") == rung_sampler_find("pndm") && !rung_sampler_find("eule"));
    CHECK(!rung_sampler_get(rung_sampler_count()));
    for (size_t i = 0; i < rung_sampler_count(); i++) {
        const rung_sampler_row *r = rung_sampler_get(i);
        CHECK(rung_sampler_find(r->name) == r && rung_sampler_find(r->label) == r && (r->schedules & 1));
    }
}

/* open fails, and the message has `word` in it */
static void refused(rung_sampler_params p, rung_status code, const char *word) {
    rung_sampler *s = NULL;
    rung_err err = {0};
    if (!p.batch) p.batch = 1;
    if (!p.n) p.n = 16;
    const rung_status st = rung_sampler_open(&s, &p, &err);
    if (!CHECK(st == code && !s && strstr(err.msg, word)))
        fprintf(stderr, "  wanted \"%s\", got %d \"%s\"\n", word, st, err.msg);
    rung_sampler_close(&s);
}

/* what a case names replaces the usual */
#pragma GCC diagnostic ignored "-Woverride-init"
#define ASK(...)                                                                                                       \
    (rung_sampler_params) { .config_json = "{" SD1 "}", .eta = NAN, .steps = 10, __VA_ARGS__ }
#define WITH(more) .config_json = "{" SD1 ", " more "}"
#define BARE(text) .config_json = text

static void bad_numbers_are_refused(void) {
    refused(ASK(.sampler = "euler", .steps = 0), RUNG_EARG, "steps is 0");
    refused(ASK(.sampler = "euler", .steps = -3), RUNG_EARG, "steps is -3");
    refused(ASK(.sampler = "euler", .steps = 1000000000), RUNG_EARG, "1 to 10000");
    refused(ASK(.sampler = "ddim", .steps = 1001), RUNG_EARG, "1000 training timesteps");
    refused(ASK(.sampler = "pndm", .steps = 1001), RUNG_EARG, "1000 training timesteps");
    refused(ASK(.sampler = "euler", .steps = 1001, WITH("\"timestep_spacing\": \"leading\"")), RUNG_EARG, "1001");
    refused(ASK(.sampler = "dpm++2m", .steps = 1000, WITH("\"timestep_spacing\": \"leading\"")), RUNG_EARG, "1000");
    refused(ASK(.sampler = "lcm", .steps = 51), RUNG_EARG, "50 original_inference_steps");
    refused(ASK(.sampler = "cm", .steps = 41), RUNG_EARG, "41 steps");
    refused(ASK(.sampler = "ddim", .steps = 1000), RUNG_EARG, "timestep 1000"); /* steps_offset 1 */
    refused(ASK(.sampler = "ddim", .eta = -1), RUNG_EARG, "eta is -1");
    refused(ASK(.sampler = "ddim", .eta = 1.5f), RUNG_EARG, "eta is 1.5");
    refused(ASK(.sampler = "euler_a", .eta = INFINITY), RUNG_EARG, "eta is inf");
    refused(ASK(.sampler = "euler", .batch = SIZE_MAX / 8, .n = 3), RUNG_EARG, "pictures");
    refused(ASK(.sampler = "pndm", .steps = 3,
                WITH("\"prediction_type\": \"epsilon\", \"_use_default_values\": "
                     "[\"skip_prk_steps\"]")),
            RUNG_EARG, "at least 4 steps");
    refused(ASK(.sampler = "dpm_adaptive", .batch = 2), RUNG_EARG, "one at a time");
}

static void bad_sigmas_are_refused(void) {
    static const float rising[] = {1, 2}, equal[] = {2, 2, 0}, nothing[] = {0}, negative[] = {2, -1}, nan[] = {NAN};
    static const float huge[] = {INFINITY, 1}, flow[] = {1.5f, 0.5f};
    refused(ASK(.sampler = "euler", .sigmas = rising, .n_sigmas = 2), RUNG_EARG, "must fall");
    refused(ASK(.sampler = "euler", .sigmas = equal, .n_sigmas = 3), RUNG_EARG, "must fall");
    refused(ASK(.sampler = "euler", .sigmas = nothing, .n_sigmas = 1), RUNG_EARG, "no positive");
    refused(ASK(.sampler = "euler", .sigmas = nothing, .n_sigmas = 0), RUNG_EARG, "empty");
    refused(ASK(.sampler = "euler", .sigmas = NULL, .n_sigmas = 5), RUNG_EARG, "5 sigmas");
    refused(ASK(.sampler = "dpm++2m", .sigmas = negative, .n_sigmas = 2), RUNG_EARG, "positive");
    refused(ASK(.sampler = "heun", .sigmas = nan, .n_sigmas = 1), RUNG_EARG, "positive");
    refused(ASK(.sampler = "lms", .sigmas = huge, .n_sigmas = 2), RUNG_EARG, "positive");
    refused(ASK(.sampler = "ddim", .sigmas = rising, .n_sigmas = 2), RUNG_EARG, "cannot take schedule custom");
    refused(ASK(.sampler = "euler", .sigmas = flow, .n_sigmas = 2,
                BARE("{\"_class_name\": "
                     "\"FlowMatchEulerDiscreteScheduler\"}")),
            RUNG_EARG, "at most 1");
}

static void combinations_are_refused(void) {
    refused(ASK(.sampler = "foo"), RUNG_EARG, "there are ddim, ddpm");
    refused(ASK(.sampler = "foo"), RUNG_EARG, "flow_lcm"); /* the list is whole */
    refused(ASK(.sampler = "euler", .schedule = "foo"), RUNG_EARG, "there are default, karras");
    refused(ASK(.sampler = "ddim", .schedule = "karras"), RUNG_EARG,
            "DDIMScheduler has no such option; it takes default");
    refused(ASK(.sampler = "lcm", .schedule = "simple"), RUNG_EARG,
            "LCMScheduler has no such option; it takes default");
    refused(ASK(.sampler = "dpm++sde", .schedule = "lu"), RUNG_EARG,
            "dpm++sde cannot take schedule lu: k-diffusion has no such option; it takes default, karras");
    refused(ASK(.sampler = "pndm", WITH("\"prediction_type\": \"sample\"")), RUNG_EARG, "predicts sample");
    refused(ASK(.sampler = "ddim", WITH("\"prediction_type\": \"flow_prediction\"")), RUNG_EARG, "flow_euler");
    refused(ASK(.sampler = "flow_euler"), RUNG_EARG, "flow-matching models, which this one is not");
    refused(ASK(.sampler = "euler", BARE("{\"_class_name\": \"FlowMatchEulerDiscreteScheduler\", "
                                         "\"use_dynamic_shifting\": true}")),
            RUNG_EARG, "picture's size");
    refused(ASK(.sampler = NULL, BARE("{}")), RUNG_EARG, "no sampler is named");
    refused(ASK(.sampler = NULL, BARE(NULL)), RUNG_EARG, "no sampler is named");
    refused(ASK(.sampler = NULL, BARE("{\"_class_name\": \"KarrasVeScheduler\"}")), RUNG_EARG, "KarrasVeScheduler");
    refused(ASK(.sampler = "ddim", WITH("\"rescale_betas_zero_snr\": true, \"timestep_spacing\": \"trailing\"")),
            RUNG_EARG, "zero terminal SNR");
    refused(ASK(.sampler = NULL, BARE("{\"_class_name\": \"DPMSolverMultistepScheduler\", \"algorithm_type\": "
                                      "\"dpmsolver\"}")),
            RUNG_EARG, "final_sigmas_type");
}

static void bad_configs_are_refused(void) {
    refused(ASK(.sampler = "ddim", BARE("{")), RUNG_EFORMAT, "scheduler_config.json");
    refused(ASK(.sampler = "ddim", BARE("[1]")), RUNG_EFORMAT, "not a JSON object");
    refused(ASK(.sampler = "ddim", BARE("{\"num_train_timesteps\": 1e9}")), RUNG_EFORMAT, "num_train_timesteps");
    refused(ASK(.sampler = "ddim", BARE("{\"num_train_timesteps\": \"many\"}")), RUNG_EFORMAT, "num_train_timesteps");
    refused(ASK(.sampler = "ddim", BARE("{\"beta_start\": NaN}")), RUNG_EFORMAT, "beta_start");
    refused(ASK(.sampler = "ddim", BARE("{\"beta_schedule\": \"wavy\"}")), RUNG_EFORMAT, "\"wavy\"");
    refused(ASK(.sampler = "ddim", BARE("{\"beta_schedule\": \"sigmoid\"}")), RUNG_EFORMAT, "not known to DDIM");
    refused(ASK(.sampler = "ddim", BARE("{\"timestep_spacing\": \"odd\"}")), RUNG_EFORMAT, "\"odd\"");
    refused(ASK(.sampler = "ddim", BARE("{\"trained_betas\": [0.1, \"x\"]}")), RUNG_EFORMAT, "trained_betas[1]");
    refused(ASK(.sampler = "ddim", BARE("{\"trained_betas\": [0.1, 0.2]}")), RUNG_EFORMAT, "2 trained_betas");
    refused(ASK(.sampler = "ddpm", BARE("{\"variance_type\": \"learned_range\"}")), RUNG_EFORMAT, "learned_range");
    refused(ASK(.sampler = "euler", BARE("{\"beta_start\": 0, \"beta_end\": 0}")), RUNG_EFORMAT, "no finite");
    refused(ASK(.sampler = "euler", BARE("{\"beta_start\": 1, \"beta_end\": 1}")), RUNG_EFORMAT, "no finite");
    refused(ASK(.sampler = "euler", WITH("\"use_karras_sigmas\": true, \"use_beta_sigmas\": true")), RUNG_EFORMAT,
            "only one");
    refused(ASK(.sampler = "unipc", WITH("\"disable_corrector\": [200]")), RUNG_EFORMAT, "0..127");
    refused(ASK(.sampler = "edm_euler", BARE("{\"sigma_min\": 90}")), RUNG_EFORMAT, "not above");
}

static rung_status zeros(void *user, float *out, float *uncond, const float *x, float t, rung_err *err) {
    (void)uncond, (void)x, (void)t;
    if (*(int *)user) return rung_fail(err, RUNG_ECANCELLED, "stopped");
    memset(out, 0, 16 * sizeof *out);
    return RUNG_OK;
}

static void steps_come_in_order(void) {
    float x[16] = {0};
    rung_sampler_params p = ASK(.sampler = "euler_a", .batch = 1, .n = 16, .steps = 2);
    rung_sampler *s = NULL;
    rung_err err = {0}, order = {0}, silent = {0}, stopped = {0};
    int stop = 0;
    CHECK(rung_sampler_open(&s, &p, &err) == RUNG_OK);
    CHECK(rung_sampler_step(s, 1, x, zeros, &stop, NULL, NULL, &order) == RUNG_EARG &&
          strstr(order.msg, "wanted step 0"));
    CHECK(rung_sampler_step(s, 0, x, zeros, &stop, NULL, NULL, &silent) == RUNG_EARG && strstr(silent.msg, "noise"));
    stop = 1;
    CHECK(rung_sampler_step(s, 0, x, zeros, &stop, NULL, NULL, &stopped) == RUNG_ECANCELLED);
    CHECK(strcmp(stopped.msg, "stopped") == 0);
    CHECK(rung_sampler_timestep(s, -1) == 0 && rung_sampler_sigma(s, 99) == 0);
    CHECK(strcmp(rung_sampler_describe(s)->name, "euler_a") == 0);
    rung_sampler_close(&s);
    rung_sampler_close(&s);
    rung_sampler_close(NULL);
}

int main(void) {
    beta_quantile_is_scipy();
    train_noise_is_torch();
    names_are_found();
    bad_numbers_are_refused();
    bad_sigmas_are_refused();
    combinations_are_refused();
    bad_configs_are_refused();
    steps_come_in_order();
    return check_result();
}
