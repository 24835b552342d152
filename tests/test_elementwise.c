/* tests/test_elementwise.c - activations, sums, copies and lookups: every variant against the specification or against
 * the loop that says what is meant. */
#include "tests/guard.h"

#include <string.h>

#include "kernels/cpu/elementwise.h"
#include "tests/check.h"
#include "tests/cpu_levels.h"

static const size_t lengths[] = {0, 1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 1000, 16383, 16384, 16385, 40000};
enum { LENGTHS = sizeof lengths / sizeof *lengths };

static guard random_floats(size_t n, float size, uint64_t *seed) {
    guard g = guard_floats(n);
    for (size_t i = 0; i < n; i++) g.p[i] = size * rnd(seed);
    return g;
}

static const rung_act acts[] = {RUNG_ACT_NONE, RUNG_ACT_RELU,      RUNG_ACT_SILU,
                                RUNG_ACT_GELU, RUNG_ACT_GELU_TANH, RUNG_ACT_QUICK_GELU};
enum { ACTS = sizeof acts / sizeof *acts };

static void test_act(unsigned cpu) {
    struct cpu_level_run r = cpu_run_open(cpu, 2);
    for (size_t i = 0; i < LENGTHS * ACTS; i++) {
        const size_t n = lengths[i / ACTS];
        uint64_t seed = i;
        guard x = random_floats(n, i % 2 ? 5 : 60, &seed), y = guard_floats(n);
        float *ref = malloc((n + 1) * sizeof *ref), *out = i % 3 ? y.p : x.p; /* or in place */
        elementwise_ref.act(ref, x.p, n, acts[i % ACTS]);
        r.be->ops->act(r.be, out, x.p, n, acts[i % ACTS]);
        if (!CHECK(close_all(out, ref, n, 1e-6f)))
            fprintf(stderr, "  cpu=%s act %d n %zu\n", rung_cpu_name(cpu), acts[i % ACTS], n);
        guard_free(&x), guard_free(&y);
        free(ref);
    }
    cpu_run_close(&r);
}

/* Known values, and the ends of the range: nothing overflows on the way, NaN stays. */
static void test_act_values(unsigned cpu) {
    static const float x[] = {1, -1, 3e38f, -3e38f, INFINITY, 0, NAN, 100, -100};
    static const struct {
        rung_act act;
        float one, minus_one;
    } at[] = {{RUNG_ACT_RELU, 1, 0},
              {RUNG_ACT_SILU, 0.73105858f, -0.26894142f},
              {RUNG_ACT_GELU, 0.84134475f, -0.15865525f},
              {RUNG_ACT_GELU_TANH, 0.84119199f, -0.15880801f},
              {RUNG_ACT_QUICK_GELU, 0.84579577f, -0.15420423f}};
    struct cpu_level_run r = cpu_run_open(cpu, 1);
    for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
        float y[9];
        r.be->ops->act(r.be, y, x, 9, at[i].act);
        const int ok = fabsf(y[0] - at[i].one) < 1e-6f && fabsf(y[1] - at[i].minus_one) < 1e-6f && y[2] == 3e38f &&
                       fabsf(y[3]) < 1e-6f && y[4] == INFINITY && y[5] == 0 && isnan(y[6]) && y[7] == 100 &&
                       fabsf(y[8]) < 1e-6f;
        if (!CHECK(ok))
            fprintf(stderr, "  cpu=%s act %d: %g %g %g %g %g %g %g %g %g\n", rung_cpu_name(cpu), at[i].act, y[0], y[1],
                    y[2], y[3], y[4], y[5], y[6], y[7], y[8]);
    }
    cpu_run_close(&r);
}

static void test_add(unsigned cpu) {
    struct cpu_level_run r = cpu_run_open(cpu, 2);
    for (size_t i = 0; i < LENGTHS; i++) {
        const size_t n = lengths[i];
        uint64_t seed = i;
        guard a = random_floats(n, 1, &seed), b = random_floats(n, 1, &seed), y = guard_floats(n);
        r.be->ops->add(r.be, y.p, a.p, b.p, n);
        for (size_t k = 0; k < n; k++) CHECK(y.p[k] == a.p[k] + b.p[k]);
        r.be->ops->add(r.be, a.p, a.p, b.p, n); /* y may be a, or b */
        CHECK(memcmp(a.p, y.p, n * sizeof *a.p) == 0);
        guard_free(&a), guard_free(&b), guard_free(&y);
    }
    cpu_run_close(&r);
}

static void test_add_rows(unsigned cpu) {
    struct cpu_level_run r = cpu_run_open(cpu, 2);
    for (size_t i = 0; i < LENGTHS; i++) {
        const size_t n = lengths[i], rows = 1 + 5 * (i % 3), rows_row = 1 + i % 4;
        uint64_t seed = i;
        guard x = random_floats(rows * n, 1, &seed), t = random_floats(rows_row * n, 1, &seed);
        guard y = guard_floats(rows * n);
        r.be->ops->add_rows(r.be, y.p, x.p, t.p, rows, rows_row, n);
        for (size_t k = 0; k < rows * n; k++) CHECK(y.p[k] == x.p[k] + t.p[k / n % rows_row * n + k % n]);
        r.be->ops->add_rows(r.be, x.p, x.p, t.p, rows, rows_row, n);
        CHECK(memcmp(x.p, y.p, rows * n * sizeof *x.p) == 0);
        guard_free(&x), guard_free(&t), guard_free(&y);
    }
    cpu_run_close(&r);
}

static void test_copy2d(unsigned cpu) {
    struct cpu_level_run r = cpu_run_open(cpu, 2);
    for (size_t i = 0; i < LENGTHS; i++) {
        const size_t n = lengths[i], rows = 1 + 5 * (i % 3), dst_row = n + i, src_row = n + 2 * i;
        uint64_t seed = i;
        guard src = random_floats((rows - 1) * src_row + n, 1, &seed);
        guard dst = random_floats((rows - 1) * dst_row + n, 1, &seed);
        float *want = malloc(((rows - 1) * dst_row + n + 1) * sizeof *want);
        memcpy(want, dst.p, ((rows - 1) * dst_row + n) * sizeof *want);
        for (size_t k = 0; k < rows * n; k++) want[k / n * dst_row + k % n] = src.p[k / n * src_row + k % n];
        r.be->ops->copy2d(r.be, dst.p, dst_row, src.p, src_row, rows, n);
        CHECK(memcmp(dst.p, want, ((rows - 1) * dst_row + n) * sizeof *want) == 0); /* what lies between stays */
        guard_free(&src), guard_free(&dst);
        free(want);
    }
    cpu_run_close(&r);
}

static void test_unpatchify(unsigned cpu) {
    static const struct {
        size_t batch, gh, gw, p, ch;
    } shapes[] = {{1, 1, 1, 1, 1}, {2, 3, 5, 2, 4}, {1, 8, 8, 2, 8}, {3, 2, 1, 4, 3}, {1, 0, 4, 2, 4}, {2, 2, 2, 2, 0}};
    struct cpu_level_run r = cpu_run_open(cpu, 2);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const size_t gh = shapes[i].gh, gw = shapes[i].gw, p = shapes[i].p, ch = shapes[i].ch, w = gw * p;
        const size_t n = shapes[i].batch * gh * w * p * ch;
        uint64_t seed = i;
        guard x = random_floats(n, 1, &seed), y = guard_floats(n);
        r.be->ops->unpatchify(r.be, y.p, x.p, shapes[i].batch, gh, gw, p, ch);
        for (size_t k = 0; k < n; k++) {
            const size_t c = k % ch, px = k / ch % w, py = k / ch / w % (gh * p), b = k / ch / w / (gh * p);
            const size_t token = (b * gh + py / p) * gw + px / p;
            CHECK(y.p[k] == x.p[((token * p + py % p) * p + px % p) * ch + c]);
        }
        guard_free(&x), guard_free(&y);
    }
    cpu_run_close(&r);
}

int main(void) {
    for (size_t i = 0; i < CPU_LEVELS; i++) {
        unsigned cpu;
        if (!cpu_level(i, &cpu)) continue;
        test_act(cpu);
        test_act_values(cpu);
        test_add(cpu);
        test_add_rows(cpu);
        test_copy2d(cpu);
        test_unpatchify(cpu);
    }
    return check_result();
}
