/* tests/test_prune.c - which weights go, how sparsity is shared out, and what an observer sees: against torch
 * (tools/goldens/prune.py). */
#include <stdlib.h>
#include <string.h>

#include "assets/safetensors.h"
#include "diffusion/observe.h"
#include "diffusion/prune.h"
#include "kernels/base/cpu.h"
#include "tests/check.h"

static rung_safetensors *golden;

static const rung_tensor *g(const char *name) {
    const rung_tensor *t = rung_safetensors_find(golden, name);
    if (!CHECK(t != NULL)) exit(1);
    return t;
}

static float *floats(const char *name) {
    const rung_tensor *t = g(name);
    float *out = malloc(rung_tensor_count(t) * sizeof *out);
    rung_err e = {0};
    if (!out || rung_tensor_to_f32(t, 0, rung_tensor_count(t), out, &e)) exit(1);
    return out;
}

/* Are there n norms, each within 1e-6 of torch's f64 ones? `squared`: the square of what is compared. */
static bool same_norms(const double *got, const char *name, size_t n, bool squared) {
    const rung_tensor *t = g(name);
    if (rung_tensor_count(t) != n) return false;
    for (size_t i = 0; i < n; i++) {
        double want;
        memcpy(&want, (const char *)t->data + i * sizeof want, sizeof want);
        const double v = squared ? sqrt(got[i]) : got[i];
        if (!(fabs(v - want) <= 1e-6 * want)) {
            fprintf(stderr, "  %s[%zu]: got %.9g want %.9g\n", name, i, v, want);
            return false;
        }
    }
    return true;
}

static void masks(void) {
    const char *const kinds[] = {"magnitude", "wanda"};
    const int percents[] = {25, 50, 90};
    const size_t rows = 9, cols = 33;
    float *w = floats("linear_w"), scores[33], work[33], row[33];
    double norm[33];
    memcpy(norm, g("linear_norm")->data, sizeof norm);
    for (int k = 0; k < 2; k++) {
        for (int p = 0; p < 3; p++) {
            char name[40];
            snprintf(name, sizeof name, "%s_%d", kinds[k], percents[p]);
            const uint8_t *want = g(name)->data;
            for (size_t r = 0; r < rows; r++) {
                memcpy(row, w + r * cols, sizeof row);
                prune_scores(scores, row, k ? norm : NULL, cols);
                prune_row(row, scores, cols, prune_count(percents[p] / 100.0, cols), work);
                bool same = true;
                for (size_t c = 0; c < cols; c++) same &= row[c] == (want[r * cols + c] ? w[r * cols + c] : 0);
                if (!CHECK(same)) fprintf(stderr, "  %s row %zu\n", name, r);
            }
        }
    }
    free(w);
}

static int by_value(const void *a, const void *b) {
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Every count of rows of every length, many ties: exactly `count` go, none that scores more than one that stays. */
static void counts(void) {
    uint64_t seed = 3;
    for (size_t n = 1; n <= 40; n++) {
        float w[40], orig[40], scores[40], sorted[40], work[40];
        for (size_t i = 0; i < n; i++) w[i] = floorf(rnd(&seed) * (n % 3 ? 4 : 100)) + 0.5f;
        memcpy(orig, w, sizeof orig);
        prune_scores(scores, orig, NULL, n);
        memcpy(sorted, scores, sizeof sorted);
        qsort(sorted, n, sizeof *sorted, by_value);
        for (size_t count = 0; count <= n; count++) {
            memcpy(w, orig, sizeof w);
            prune_row(w, scores, n, count, work);
            size_t gone = 0;
            double lost = 0, least = 0;
            for (size_t i = 0; i < n; i++) {
                gone += w[i] == 0;
                lost += w[i] == 0 ? scores[i] : 0;
                least += i < count ? sorted[i] : 0;
            }
            CHECK(gone == count && fabs(lost - least) < 1e-4);
        }
    }
}

static void sharing(void) {
    enum { N = 64, LAYERS = 3 };
    prune_curve c[LAYERS] = {{{0}, 0}};
    double share[LAYERS], all = 0, gone = 0;
    rung_err e = {0};
    for (size_t i = 0; i < 4 * N; i++) {
        float flat[N], steep[N];
        uint64_t seed = i + 1;
        for (size_t k = 0; k < N; k++) {
            flat[k] = 1 + 0.01f * rnd(&seed);
            steep[k] = powf(2, -(float)k / 3);
        }
        prune_curve_add(&c[0], flat, N);
        prune_curve_add(&c[1], steep, N);
        if (i < N) prune_curve_add(&c[2], flat, N);
    }
    CHECK(c[1].lost[0] == 0 && c[1].lost[PRUNE_LEVELS] > c[1].lost[PRUNE_LEVELS - 1]);
    for (int i = 1; i < PRUNE_LEVELS; i++)
        CHECK(c[0].lost[i + 1] - c[0].lost[i] >= (c[0].lost[i] - c[0].lost[i - 1]) * 0.999);
    for (double target = 0; target < 1; target += 0.1) {
        CHECK(prune_share(share, c, LAYERS, target, &e) == RUNG_OK);
        all = gone = 0;
        for (int l = 0; l < LAYERS; l++) {
            CHECK(share[l] >= 0 && share[l] <= 1 - (1 - target) / 4 + 1e-12);
            gone += share[l] * (double)c[l].weights;
            all += (double)c[l].weights;
        }
        CHECK(fabs(gone - target * all) < 1);
        /* what costs little goes first, up to the limit */
        if (target > 0.05 && target < 0.65) CHECK(share[1] >= share[0]);
    }
    /* a layer that is zero already costs nothing */
    prune_curve zero[2] = {{{0}, 1000}, c[0]};
    CHECK(prune_share(share, zero, 2, 0.03, &e) == RUNG_OK && share[0] > 0 && share[1] == 0);
}

/* ---- the observer ---- */

static observed_weight seen(const observer *o, const char *name) {
    size_t i = 0;
    while (i < observer_count(o) && strcmp(observer_get(o, i).name, name) != 0) i++;
    return CHECK(i < observer_count(o)) ? observer_get(o, i) : (observed_weight){0};
}

static void observe_linear(rung_backend *be) {
    rung_err e = {0};
    observer *o;
    if (!CHECK(observer_open(&o, be, &e) == RUNG_OK)) return;
    rung_tensor q = *g("linear_w"), k = q;
    q.name = "q.weight";
    k.name = "k.weight";
    const rung_tensor *parts[2] = {&q, &k};
    rung_linear *l = NULL, *unused = NULL;
    CHECK(be->ops->linear_open(be, &unused, parts, NULL, 1, RUNG_STORE_F32, &e) == RUNG_OK);
    CHECK(be->ops->linear_open(be, &l, parts, NULL, 2, RUNG_STORE_F32, &e) == RUNG_OK);
    float *x = floats("linear_x"), *y = malloc(70 * 18 * sizeof *y), *plain = malloc(70 * 18 * sizeof *y);
    be->ops->linear(be, y, x, 33, 40, l, NULL); /* in two calls */
    be->ops->linear(be, y + 40 * 18, x + 40 * 33, 33, 30, l, NULL);
    const observed_weight s = seen(o, "k.weight");
    CHECK(s.inputs == 33 && s.rows == 70 && same_norms(s.sum, "linear_norm", 33, true));
    CHECK(observer_count(o) == 3 && observer_get(o, 0).rows == 0 && observer_check(o, &e) == RUNG_OK);
    observer_close(&o);
    be->ops->linear(be, plain, x, 33, 70, l, NULL);
    CHECK(memcmp(y, plain, 70 * 18 * sizeof *y) == 0);
    be->ops->linear_close(be, &l);
    be->ops->linear_close(be, &unused);
    free(x);
    free(y);
    free(plain);
}

static void observe_conv(rung_backend *be, const char *name, const rung_conv_args *a) {
    rung_err e = {0};
    observer *o;
    if (!CHECK(observer_open(&o, be, &e) == RUNG_OK)) return;
    rung_tensor w = *g("conv_w");
    w.name = name;
    rung_conv *c = NULL;
    CHECK(be->ops->conv_open(be, &c, &w, NULL, RUNG_STORE_F32, &e) == RUNG_OK);
    float *x = floats("conv_x"), *y = malloc(2 * 20 * 20 * 6 * sizeof *y);
    be->ops->conv(be, y, x, c, a, NULL);
    const observed_weight s = seen(o, name);
    CHECK(s.inputs == 45 && same_norms(s.sum, name, 45, true));
    be->ops->conv_close(be, &c);
    observer_close(&o);
    free(x);
    free(y);
}

static void observing(void) {
    rung_err e = {0};
    rung_pool *pool;
    rung_backend *be;
    if (!CHECK(rung_pool_open(&pool, 2, &e) == RUNG_OK)) return;
    CHECK(rung_cpu_backend_open(&be, pool, rung_cpu_detect(), &e) == RUNG_OK);
    observe_linear(be);
    rung_conv_args a = {
        .batch = 2, .h = 9, .w = 7, .stride = 1, .pad_top = 1, .pad_left = 1, .pad_bottom = 1, .pad_right = 1};
    observe_conv(be, "conv_norm", &a);
    rung_conv_args up = a;
    up.uh = 18;
    up.uw = 14;
    observe_conv(be, "conv_up", &up);
    rung_conv_args fused = a;
    float *scale = floats("conv_scale"), *shift = floats("conv_shift");
    fused.in_scale = scale;
    fused.in_shift = shift;
    fused.in_act = RUNG_ACT_SILU;
    observe_conv(be, "conv_fused", &fused);
    const rung_conv_args strided = {.batch = 2, .h = 9, .w = 7, .stride = 2, .pad_bottom = 1, .pad_right = 1};
    observe_conv(be, "conv_strided", &strided);
    free(scale);
    free(shift);

    /* the backend may go first */
    observer *o;
    CHECK(observer_open(&o, be, &e) == RUNG_OK);
    rung_backend_close(&be);
    observer_close(&o);
    rung_pool_close(&pool);
}

int main(void) {
    rung_err e = {0};
    if (!CHECK(rung_safetensors_open(&golden, RUNG_TEST_DIR "/golden/prune/prune.safetensors", &e) == RUNG_OK)) {
        fprintf(stderr, "%s\n", e.msg);
        return 1;
    }
    masks();
    counts();
    sharing();
    observing();
    rung_safetensors_close(&golden);
    return check_result();
}
