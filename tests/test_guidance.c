/* tests/test_guidance.c - guidance against its definition, and against diffusers' rescale_noise_cfg. */
#include <string.h>

#include "samplers/guidance.h"
#include "tests/check.h"

enum { N = 6 };
static const float cond[2 * N] = {1, -2, 3, 0.5f, 0, 4, 0.1f, 0.2f, -0.3f, 0.4f, -0.5f, 0.6f};
static const float uncond[2 * N] = {0, 1, 1, -1, 2, 2, 1, 1, 1, -1, -1, -1};

static void scale_one_is_cond(void) {
    float out[2 * N];
    rung_guidance(out, cond, uncond, 1, 0, 2, N);
    CHECK(memcmp(out, cond, sizeof out) == 0);
    rung_guidance(out, cond, uncond, 0, 0, 2, N);
    CHECK(memcmp(out, uncond, sizeof out) == 0);
}

static void scale_extrapolates(void) {
    float out[2 * N], in_place[2 * N];
    rung_guidance(out, cond, uncond, 7.5f, 0, 2, N);
    for (int k = 0; k < 2 * N; k++) CHECK(fabsf(out[k] - (uncond[k] + 7.5f * (cond[k] - uncond[k]))) < 1e-5f);
    memcpy(in_place, uncond, sizeof in_place);
    rung_guidance(in_place, cond, in_place, 7.5f, 0, 2, N);
    CHECK(memcmp(in_place, out, sizeof out) == 0);
}

static double deviation(const float *x) {
    double mean = 0, sum = 0;
    for (int k = 0; k < N; k++) mean += (double)x[k] / N;
    for (int k = 0; k < N; k++) sum += ((double)x[k] - mean) * ((double)x[k] - mean);
    return sqrt(sum / (N - 1));
}

static void rescale_restores_the_deviation(void) {
    float plain[2 * N], full[2 * N], part[2 * N];
    rung_guidance(plain, cond, uncond, 5, 0, 2, N);
    rung_guidance(full, cond, uncond, 5, 1, 2, N);
    rung_guidance(part, cond, uncond, 5, 0.7f, 2, N);
    for (int p = 0; p < 2; p++) CHECK(fabs(deviation(full + p * N) - deviation(cond + p * N)) < 1e-5);
    for (int k = 0; k < 2 * N; k++) CHECK(fabsf(part[k] - (0.7f * full[k] + 0.3f * plain[k])) < 1e-5f);
    /* rescale_noise_cfg(torch.tensor(plain), torch.tensor(cond), 0.7), first picture, diffusers 0.42.1 */
    static const float diffusers[N] = {2.2086012f, -6.1840839f, 4.858923f, 2.8711815f, -3.533762f, 5.300643f};
    CHECK(close_all(part, diffusers, N, 1e-5f));
}

int main(void) {
    scale_one_is_cond();
    scale_extrapolates();
    rescale_restores_the_deviation();
    return check_result();
}
