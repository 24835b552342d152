/* tests/test_cuda_samplers.cpp - every sampler on the device, against the same sampler in the host's memory: the same
 * noise, a closed formula as the network, 12 steps of two pictures. dpm_adaptive takes one picture, and is the host's.
 */
#include <cstring>
#include <map>

#include "tests/cuda_bed.h"
extern "C" {
#include "kernels/base/rng.h"
#include "kernels/step_math.h"
#include "samplers/sampler.h"
}

enum { BATCH = 2, N = 4 * 13 * 11, TOTAL = BATCH * N };

/* A kernel on host threads can read the host's memory, one on a GPU cannot: what samplers hand to combine is looked up
 * in what the backend gave out. */
static const rung_backend_ops *unwatched;
static rung_backend_ops watched;
static std::map<uintptr_t, size_t> given;
static size_t strangers;

static rung_status watch_alloc(rung_backend *be, void **out, size_t bytes, rung_err *err) {
    const rung_status st = unwatched->mem_alloc(be, out, bytes, err);
    if (!st) given[(uintptr_t)*out] = bytes;
    return st;
}
static void watch_free(rung_backend *be, void *p) {
    given.erase((uintptr_t)p);
    unwatched->mem_free(be, p);
}
static bool is_given(const float *p, size_t n) {
    auto it = given.upper_bound((uintptr_t)p);
    if (it == given.begin()) return false;
    --it;
    return (uintptr_t)p + n * sizeof *p <= it->first + it->second;
}
static void watch_combine(rung_backend *be, float *y, const rung_term *terms, size_t count, float over, size_t n) {
    strangers += !is_given(y, n);
    for (size_t j = 0; j < count; j++) strangers += !is_given(terms[j].x, n);
    unwatched->combine(be, y, terms, count, over, n);
}

/* pred = a x + b sin of each number's place, both depending on t. `waves` is where x is. */
struct model {
    rung_backend *be; /* NULL: the host */
    const float *waves;
    uint64_t draws[BATCH];
};

static void add_up(const model *m, float *y, const rung_term *terms, size_t count) {
    if (m->be)
        m->be->ops->combine(m->be, y, terms, count, 1, TOTAL);
    else
        rung_combine(y, terms, count, 1, TOTAL);
}

static rung_status denoise(void *user, float *out, float *uncond, const float *x, float t, rung_err *) {
    const model *m = (const model *)user;
    const rung_term terms[] = {{0.3f + 0.0004f * t, x}, {0.5f - 0.0002f * t, m->waves}};
    add_up(m, out, terms, 2);
    if (uncond) add_up(m, uncond, terms, 1);
    return RUNG_OK;
}

static void noise(void *user, size_t picture, float *out, size_t n) {
    model *m = (model *)user;
    if (m->be)
        m->be->ops->normal(m->be, out, n, 7 + picture, m->draws[picture]++);
    else
        rung_philox_normal(out, n, 7 + picture, m->draws[picture]++);
}

/* The last latents; empty when the sampler cannot be opened. *went: it was where `device` says. */
static floats draw(const bed &b, const rung_sampler_row *row, const char *config, bool device, bool *went) {
    rung_sampler_params p = {};
    rung_sampler *s = nullptr;
    rung_err err = {};
    p.sampler = row->name;
    p.config_json = config;
    p.steps = 12;
    p.eta = NAN;
    p.batch = BATCH, p.n = N, p.image_tokens = 143;
    p.be = device ? b.gpu : nullptr;
    if (rung_sampler_open(&s, &p, &err)) return {};
    *went = device ? rung_sampler_memory(s) == b.gpu : rung_sampler_memory(s) == nullptr;
    floats x(TOTAL), waves(TOTAL);
    uint64_t seed = 3;
    for (size_t i = 0; i < TOTAL; i++) {
        x[i] = rnd(&seed) * rung_sampler_init_sigma(s);
        waves[i] = sinf((float)i);
    }
    if (*went) {
        memory far_x(device ? b.gpu : b.cpu, x), far_waves(device ? b.gpu : b.cpu, waves);
        model m = {device ? b.gpu : nullptr, far_waves.p, {}};
        rung_status st = RUNG_OK;
        for (int i = 0; !st && i < rung_sampler_steps(s); i++)
            st = rung_sampler_step(s, i, far_x.p, denoise, &m, noise, &m, &err);
        if (!CHECK(st == RUNG_OK)) fprintf(stderr, "  %s: %s\n", row->name, err.msg);
        x = far_x.read();
    }
    rung_sampler_close(&s);
    return x;
}

/* The samplers that take such a model, or the one named, all on the device; but cm clips unless its config says no. */
static size_t compare(const bed &b, const char *config, const char *only = nullptr) {
    size_t opened = 0;
    for (size_t i = 0; i < rung_sampler_count(); i++) {
        const rung_sampler_row *row = rung_sampler_get(i);
        bool host = false, device = false;
        const floats want = draw(b, row, config, false, &host), got = draw(b, row, config, true, &device);
        if (want.empty() || (only && strcmp(row->name, only) != 0)) continue;
        opened++;
        const bool stays = !only && strcmp(row->name, "cm") == 0;
        if (!CHECK(host && device != stays)) fprintf(stderr, "  %s\n", row->name);
        if (!device) continue;
        double size = 0;
        for (float v : want) size += v;
        CHECK(std::isfinite(size));
        if (!CHECK(rel_l2(got.data(), want.data(), want.size()) <= 1e-5)) fprintf(stderr, "  %s\n", row->name);
    }
    return opened;
}

int main() {
    bed b;
    if (!b.gpu) return check_result();
    unwatched = b.gpu->ops;
    watched = *unwatched;
    watched.mem_alloc = watch_alloc, watched.mem_free = watch_free, watched.combine = watch_combine;
    b.gpu->ops = &watched;
    const std::string plain =
        "\"beta_start\": 0.00085, \"beta_end\": 0.012, \"beta_schedule\": \"scaled_linear\", \"steps_offset\": 1, "
        "\"num_train_timesteps\": 1000, \"clip_sample\": false, \"skip_prk_steps\": true, \"set_alpha_to_one\": false";
    const std::string eps = "{\"_class_name\": \"PNDMScheduler\", " + plain + ", \"prediction_type\": \"epsilon\"}";
    const std::string v = "{\"_class_name\": \"DDIMScheduler\", " + plain + ", \"prediction_type\": \"v_prediction\"}";
    const std::string clips = "{\"_class_name\": \"DDIMScheduler\", \"clip_sample\": true}";
    CHECK(compare(b, eps.c_str()) == 31);
    CHECK(compare(b, v.c_str()) == 31);
    CHECK(compare(b, "{\"_class_name\": \"FlowMatchEulerDiscreteScheduler\", \"shift\": 3.0}") == 14);
    const char *const cm = "{\"_class_name\": \"CMStochasticIterativeScheduler\", \"clip_denoised\": false}";
    CHECK(compare(b, cm, "cm") == 1);
    bool went = true;
    draw(b, rung_sampler_find("ddim"), clips.c_str(), true, &went); /* what clips stays on the host */
    CHECK(!went);
    CHECK(strangers == 0 && given.empty());
    b.gpu->ops = unwatched;
    return check_result();
}
