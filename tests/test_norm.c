/* tests/test_norm.c - the normalisations: the specification by hand, every vector variant against it, large means,
 * threads. */
#include "tests/guard.h"

#include <string.h>

#include "kernels/cpu/norm.h"
#include "tests/check.h"
#include "tests/cpu_levels.h"

static guard random_floats(size_t n, float mean, float size, uint64_t *seed) {
    guard g = guard_floats(n);
    for (size_t i = 0; i < n; i++) g.p[i] = mean + size * rnd(seed);
    return g;
}

static const size_t widths[] = {1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 64, 320, 333, 1280};
enum { WIDTHS = sizeof widths / sizeof *widths };

/* ---- rows ---------------------------------------------------------------------------------------------------------
 */

struct rows_case {
    size_t rows, n, rows_per_sample;
    unsigned with; /* bits: 1 w, 2 b, 4 mod_scale, 8 mod_shift */
    float mean, eps, tol;
    int in_place;
};

static void layer_norm_case(unsigned cpu, const struct rows_case *c) {
    uint64_t seed = c->n * 13 + c->with;
    const size_t total = c->rows * c->n, samples = (c->rows + c->rows_per_sample - 1) / c->rows_per_sample;
    const size_t stride = c->n + 3; /* modulation rows lie inside a wider table */
    guard x = random_floats(total, c->mean, 1.7f, &seed), y = guard_floats(total);
    guard w = random_floats(c->n, 1, 0.5f, &seed), b = random_floats(c->n, 0, 1, &seed);
    guard mod = random_floats(samples ? samples * stride - 3 : 0, 0, 1, &seed);
    float *ref = malloc((total + 1) * sizeof *ref);
    layer_norm_args a = {.y = ref, .x = x.p, .rows = c->rows, .n = c->n, .eps = c->eps, .mod_stride = stride};
    a.w = c->with & 1 ? w.p : NULL, a.b = c->with & 2 ? b.p : NULL;
    a.mod_scale = c->with & 4 ? mod.p : NULL, a.mod_shift = c->with & 8 ? mod.p : NULL;
    a.rows_per_sample = c->rows_per_sample;
    layer_norm_rows_ref(&a, 0, c->rows);
    struct cpu_level_run run = cpu_run_open(cpu, 2);
    float *out = c->in_place ? x.p : y.p;
    run.be->ops->layer_norm(run.be, out, x.p, c->rows, c->n, a.w, a.b, c->eps, a.mod_scale, a.mod_shift, stride,
                            c->rows_per_sample);
    if (!CHECK(close_all(out, ref, total, c->tol)))
        fprintf(stderr, "  cpu=%s layer_norm [%zu, %zu] with %u mean %g\n", rung_cpu_name(cpu), c->rows, c->n, c->with,
                c->mean);
    cpu_run_close(&run);
    guard_free(&x), guard_free(&y), guard_free(&w), guard_free(&b), guard_free(&mod);
    free(ref);
}

static void test_layer_norm(unsigned cpu) {
    for (size_t i = 0; i < WIDTHS; i++)
        for (unsigned with = 0; with < 16; with++)
            layer_norm_case(cpu, &(struct rows_case){.rows = 1 + i % 5 * 30,
                                                     .n = widths[i],
                                                     .rows_per_sample = 7,
                                                     .with = with,
                                                     .mean = 0.3f,
                                                     .eps = 1e-5f,
                                                     .tol = 1e-6f,
                                                     .in_place = with % 2});
    /* A large mean: the variance must not cancel, and neither must x - mean. */
    layer_norm_case(
        cpu, &(struct rows_case){
                 .rows = 40, .n = 320, .rows_per_sample = 40, .with = 3, .mean = 1e4f, .eps = 1e-6f, .tol = 2e-6f});
    layer_norm_case(
        cpu, &(struct rows_case){.rows = 3, .n = 77, .rows_per_sample = 3, .mean = -1e5f, .eps = 1e-12f, .tol = 1e-5f});
    for (size_t n = 2047; n < 5000; n += 1500) /* several blocks of a row */
        layer_norm_case(
            cpu, &(struct rows_case){
                     .rows = 3, .n = n, .rows_per_sample = 2, .with = 15, .mean = 100, .eps = 1e-5f, .tol = 2e-6f});
    layer_norm_case(cpu, &(struct rows_case){.rows = 0, .n = 16, .rows_per_sample = 1, .eps = 1e-5f});
    layer_norm_case(cpu, &(struct rows_case){.rows = 5, .n = 0, .rows_per_sample = 1, .eps = 1e-5f});
}

/* [1, 3] has mean 2, variance 1 (over n, not n - 1). */
static void test_by_hand(unsigned cpu) {
    static const float x[] = {1, 3}, w[] = {2, 10}, b[] = {0.5f, -1}, scale[] = {1, 0}, shift[] = {0, 7};
    float y[2], s[2], h[2];
    struct cpu_level_run r = cpu_run_open(cpu, 1);
    r.be->ops->layer_norm(r.be, y, x, 1, 2, w, b, 0, scale, shift, 2, 1);
    CHECK(fabsf(y[0] - (-1 * 2 + 0.5f) * 2) < 1e-6f && fabsf(y[1] - (10 - 1 + 7)) < 1e-5f);
    r.be->ops->rms_norm(r.be, y, x, 1, 2, w, 4);
    CHECK(fabsf(y[0] - 2.0f / 3) < 1e-6f && fabsf(y[1] - 10.0f) < 1e-5f);
    r.be->ops->group_norm(r.be, y, x, 1, 2, 1, 1, w, b, 0, RUNG_ACT_NONE); /* two pixels of one channel */
    CHECK(fabsf(y[0] + 1.5f) < 1e-6f && fabsf(y[1] - 2.5f) < 1e-6f);
    r.be->ops->group_norm(r.be, y, x, 1, 1, 2, 2, w, b, 1, RUNG_ACT_NONE); /* groups of one value: only b is left */
    CHECK(fabsf(y[0] - 0.5f) < 1e-6f && fabsf(y[1] + 1) < 1e-6f);
    r.be->ops->group_norm_affine(r.be, s, h, x, 1, 1, 2, 1, w, b, 0);
    CHECK(fabsf(s[0] - 2) < 1e-6f && fabsf(s[1] - 10) < 1e-5f);
    CHECK(fabsf(h[0] + 3.5f) < 1e-6f && fabsf(h[1] + 21) < 1e-5f);
    cpu_run_close(&r);
}

static void test_rms_norm(unsigned cpu) {
    for (size_t i = 0; i < WIDTHS; i++) {
        const size_t rows = 1 + i * 40, n = widths[i];
        uint64_t seed = i;
        guard x = random_floats(rows * n, 0, 3, &seed), w = random_floats(n, 1, 1, &seed);
        float *ref = malloc(rows * n * sizeof *ref);
        for (size_t r = 0; r < rows; r++) rms_norm_row_ref(ref + r * n, x.p + r * n, n, w.p, 1e-6f);
        struct cpu_level_run run = cpu_run_open(cpu, 2);
        run.be->ops->rms_norm(run.be, x.p, x.p, rows, n, w.p, 1e-6f);
        if (!CHECK(close_all(x.p, ref, rows * n, 1e-6f)))
            fprintf(stderr, "  cpu=%s rms_norm [%zu, %zu]\n", rung_cpu_name(cpu), rows, n);
        cpu_run_close(&run);
        guard_free(&x), guard_free(&w);
        free(ref);
    }
}

/* ---- groups -------------------------------------------------------------------------------------------------------
 */

struct group_case {
    size_t batch, pixels, ch, groups;
    float mean, tol, spike; /* what x[spike_at] is multiplied by; 0: nothing */
    size_t spike_at;
    rung_act act;
    int in_place, plain; /* plain: without w and b */
};

static void group_norm_case(unsigned cpu, const struct group_case *c) {
    uint64_t seed = c->ch + c->pixels;
    const size_t total = c->batch * c->pixels * c->ch;
    guard x = random_floats(total, c->mean, 1.7f, &seed), y = guard_floats(total);
    guard w = random_floats(c->ch, 1, 0.5f, &seed), b = random_floats(c->ch, 0, 1, &seed);
    if (c->spike != 0) x.p[c->spike_at] *= c->spike;
    guard scale = guard_floats(c->batch * c->ch), shift = guard_floats(c->batch * c->ch);
    float *ref = malloc((total + 1) * sizeof *ref), *ref_scale = malloc((c->batch * c->ch + 1) * sizeof *ref_scale);
    float *ref_shift = malloc((c->batch * c->ch + 1) * sizeof *ref_shift);
    group_norm_args a = {.y = ref,
                         .scale = ref_scale,
                         .shift = ref_shift,
                         .x = x.p,
                         .batch = c->batch,
                         .eps = 1e-5f,
                         .pixels = c->pixels,
                         .ch = c->ch,
                         .groups = c->groups,
                         .act = c->act};
    if (!c->plain) a.w = w.p, a.b = b.p;
    for (size_t i = 0; i < c->batch * c->groups; i++) group_norm_ref(&a, i / c->groups, i % c->groups);
    struct cpu_level_run run = cpu_run_open(cpu, 2);
    float *out = c->in_place ? x.p : y.p;
    run.be->ops->group_norm_affine(run.be, scale.p, shift.p, x.p, c->batch, c->pixels, c->ch, c->groups, a.w, a.b,
                                   1e-5f);
    run.be->ops->group_norm(run.be, out, x.p, c->batch, c->pixels, c->ch, c->groups, a.w, a.b, 1e-5f, c->act);
    const int ok = CHECK(close_all(out, ref, total, c->tol)) &&
                   (c->pixels == 0 || (CHECK(close_all(scale.p, ref_scale, c->batch * c->ch, c->tol)) &&
                                       CHECK(close_all(shift.p, ref_shift, c->batch * c->ch, c->tol))));
    if (!ok)
        fprintf(stderr, "  cpu=%s group_norm [%zu, %zu, %zu] groups %zu mean %g\n", rung_cpu_name(cpu), c->batch,
                c->pixels, c->ch, c->groups, c->mean);
    cpu_run_close(&run);
    guard_free(&x), guard_free(&y), guard_free(&w), guard_free(&b), guard_free(&scale), guard_free(&shift);
    free(ref), free(ref_scale), free(ref_shift);
}

static void test_group_norm(unsigned cpu) {
    static const struct {
        size_t batch, pixels, ch, groups;
    } shapes[] = {
        {1, 1, 1, 1},     {2, 3, 4, 2},     {1, 17, 8, 8},      {3, 5, 15, 3},     {1, 4, 16, 4},    {2, 64, 17, 1},
        {2, 81, 33, 11},  {1, 300, 64, 32}, {2, 1024, 320, 32}, {2, 64, 1280, 32}, {1, 9, 2000, 5},  {2, 5, 5000, 5000},
        {1, 70000, 3, 1}, {1, 0, 32, 4},    {0, 4, 32, 4},      {5, 2500, 40, 10}, {1, 40, 1100, 2},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int plain = 0; plain < 2; plain++)
            group_norm_case(cpu, &(struct group_case){.batch = shapes[i].batch,
                                                      .pixels = shapes[i].pixels,
                                                      .ch = shapes[i].ch,
                                                      .groups = shapes[i].groups,
                                                      .mean = 0.3f,
                                                      .act = plain ? RUNG_ACT_NONE : RUNG_ACT_SILU,
                                                      .plain = plain,
                                                      .in_place = (i + plain) % 2,
                                                      .tol = 2e-6f});
    group_norm_case(
        cpu, &(struct group_case){.batch = 2, .pixels = 4096, .ch = 64, .groups = 8, .mean = 1e4f, .tol = 2e-6f});
    for (size_t at = 0; at < 20; at += 19)
        group_norm_case(
            cpu,
            &(struct group_case){
                .batch = 1, .pixels = 500, .ch = 48, .groups = 4, .spike = 1e6f, .spike_at = at * 48, .tol = 2e-6f});
}

static void test_nan_stays(unsigned cpu) {
    float x[2 * 40], y[2 * 40], w[40];
    for (size_t i = 0; i < 80; i++) x[i] = (float)i;
    for (size_t i = 0; i < 40; i++) w[i] = 1;
    x[41] = NAN;
    struct cpu_level_run r = cpu_run_open(cpu, 1);
    r.be->ops->layer_norm(r.be, y, x, 2, 40, NULL, NULL, 1e-5f, NULL, NULL, 0, 0);
    for (size_t i = 0; i < 80; i++) CHECK(isnan(y[i]) == (i >= 40));
    r.be->ops->rms_norm(r.be, y, x, 2, 40, w, 1e-5f);
    for (size_t i = 0; i < 80; i++) CHECK(isnan(y[i]) == (i >= 40));
    r.be->ops->group_norm(r.be, y, x, 1, 2, 40, 20, NULL, NULL, 1e-5f, RUNG_ACT_SILU);
    for (size_t i = 0; i < 80; i++) CHECK(isnan(y[i]) == (i % 40 < 2));
    cpu_run_close(&r);
}

static void test_threads(unsigned cpu) {
    enum { B = 2, P = 3000, C = 40, N = B * P * C };
    static float x[N], y[3][N];
    static float scale[3][B * C], shift[3][B * C];
    uint64_t seed = 9;
    for (size_t i = 0; i < N; i++) x[i] = rnd(&seed);
    for (int t = 0; t < 3; t++) {
        struct cpu_level_run r = cpu_run_open(cpu, t + 1);
        r.be->ops->group_norm(r.be, y[t], x, B, P, C, 10, NULL, NULL, 1e-5f, RUNG_ACT_SILU);
        r.be->ops->group_norm_affine(r.be, scale[t], shift[t], x, B, P, C, 10, NULL, NULL, 1e-5f);
        r.be->ops->layer_norm(r.be, y[t], y[t], B * P, C, NULL, NULL, 1e-5f, NULL, NULL, 0, 0);
        cpu_run_close(&r);
        CHECK(memcmp(y[0], y[t], sizeof y[0]) == 0);
        CHECK(memcmp(scale[0], scale[t], sizeof scale[0]) == 0 && memcmp(shift[0], shift[t], sizeof shift[0]) == 0);
    }
}

int main(void) {
    for (size_t i = 0; i < CPU_LEVELS; i++) {
        unsigned cpu;
        if (!cpu_level(i, &cpu)) continue;
        test_by_hand(cpu);
        test_layer_norm(cpu);
        test_rms_norm(cpu);
        test_group_norm(cpu);
        test_nan_stays(cpu);
        test_threads(cpu);
    }
    return check_result();
}
