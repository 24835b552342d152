/* tests/test_cuda_pipeline.cpp - whole pictures by the CUDA backend, all stages of it, against the CPU backend's: 8-bit
 * samples within 2, on the models of tests/golden/pipelines (tools/goldens/pipelines.py makes them): CLIP, U-Net and
 * VAE; the same distilled; BERT, ladder transformer and VAE with alpha; SDXL's U-Net (text and sizes added to the time
 * embedding), its embeddings from files. Latents stay on the device, but for guidance rescale. */
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "diffusion/rung.h"
#include "tests/check.h"
extern "C" {
#include "assets/npy.h"
}

#define GOLDEN RUNG_TEST_DIR "/golden/pipelines/"

/* Largest difference of two pictures' samples; a colour counts as much as it is seen: times alpha. */
static double distance(const rung_image &a, const rung_image &b) {
    double worst = 0;
    for (size_t i = 0; i < a.width * a.height * a.channels; i++) {
        const size_t alpha = i - i % 4 + 3;
        const double seen = a.channels == 4 && i != alpha ? a.pixels[alpha] / 255.0 : 1;
        worst = std::max(worst, seen * std::abs((int)a.pixels[i] - (int)b.pixels[i]));
    }
    return worst;
}

static bool draw(rung_image *images, size_t count, const char *model, const char *type, const char *backend,
                 const std::vector<rung_request> &requests) {
    rung_engine *e = NULL;
    rung_err err = {};
    rung_options o = {};
    const std::string path = std::string(GOLDEN) + model;
    o.model = path.c_str();
    o.type = type;
    o.backend = backend;
    o.threads = 2;
    rung_status st = rung_open(&e, &o, &err);
    if (!st) st = rung_generate(e, requests.data(), count, images, &err);
    if (!CHECK(st == RUNG_OK)) fprintf(stderr, "  %s, %s: %s\n", model, backend, err.msg);
    rung_close(&e);
    return st == RUNG_OK;
}

static rung_request request_of(const char *prompt, uint64_t seed, const char *sampler, int steps) {
    rung_request r = {};
    r.prompt = prompt;
    r.seed = seed;
    r.sampler = sampler;
    r.steps = steps;
    r.width = r.height = 32;
    return r;
}

static void same_picture(const char *model, const char *type, int most, const std::vector<rung_request> &requests) {
    std::vector<rung_image> cpu(requests.size()), gpu(requests.size());
    const size_t n = requests.size();
    if (draw(cpu.data(), n, model, type, "cpu", requests) && draw(gpu.data(), n, model, type, "cuda", requests)) {
        for (size_t i = 0; i < n; i++) {
            const double d = distance(cpu[i], gpu[i]);
            fprintf(stderr, "%s %s, picture %zu: %.1f of 255\n", model, type ? type : "as stored", i, d);
            CHECK(d <= most);
        }
    }
    for (rung_image &i : cpu) rung_image_free(&i);
    for (rung_image &i : gpu) rung_image_free(&i);
}

static void sdxl() {
    rung_npy embeds = {}, pooled = {};
    if (!CHECK(rung_npy_read(&embeds, GOLDEN "sdxl_embeds.npy", NULL) == RUNG_OK &&
               rung_npy_read(&pooled, GOLDEN "sdxl_pooled.npy", NULL) == RUNG_OK))
        return;
    rung_request r = request_of("", 3, "euler", 4);
    r.width = 48;
    r.embeds = {embeds.data, embeds.shape[1], embeds.shape[2]};
    r.pooled = {pooled.data, pooled.shape[0], pooled.shape[1]};
    same_picture("sdxl", NULL, 2, {r});
    rung_npy_free(&embeds);
    rung_npy_free(&pooled);
}

int main() {
    same_picture("sd1", NULL, 2, {request_of("red apple", 1, "euler", 4)});
    same_picture("sd1", NULL, 2, {request_of("a cat, the blue house", 3, NULL, 3), request_of("red", 2, NULL, 3)});
    same_picture("sd1", "f16", 2, {request_of("red apple", 1, "dpm++2m", 4)});
    same_picture("sd1", "fp6", 2, {request_of("red apple", 1, "euler_a", 3)});
    same_picture("sd1", "bf16", 2, {request_of("red apple", 1, "euler", 4)});
    same_picture("icons", "bf16", 2, {request_of("red apple", 1, "ddim", 4)});
    same_picture("sd2", NULL, 2, {request_of("a red apple", 5, "ddim", 4)});
    same_picture("turbo", NULL, 2, {request_of("a red apple", 5, NULL, 1)});
    sdxl();
    rung_request r = request_of("red apple", 1, "euler_a", 3);
    r.rng = RUNG_RNG_CUDA; /* drawn on the device */
    same_picture("sd1", NULL, 2, {r});
    r = request_of("red apple", 1, "pndm", 4);
    r.guidance_rescale = 0.7f; /* the host's sampler */
    same_picture("sd1", NULL, 2, {r});
    same_picture("icons", NULL, 2, {request_of("red apple", 1, NULL, 4)});
    same_picture("icons", "fp6", 2, {request_of("a house", 7, "dpm++2m", 4), request_of("", 8, NULL, 4)});
    return check_result();
}
