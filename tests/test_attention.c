/* tests/test_attention.c - attention: the specification against a softmax written out, every vector variant against the
 * specification, masks, large scores, threads, memory. */
#include "tests/guard.h"

#include <float.h>
#include <string.h>
#include <sys/resource.h>

#include "kernels/cpu/attention.h"
#include "tests/check.h"
#include "tests/cpu_levels.h"

/* One problem: q, k and v inside one projection of 3 * heads * d columns when lq == lk, apart otherwise. Every buffer
 * ends at a guard page. */
struct problem {
    rung_attention_args a;
    guard q, k, v, o, key_bias, pair_bias;
    size_t o_count;
};

static void fill(guard *g, size_t n, float size, uint64_t *seed) {
    *g = guard_floats(n);
    for (size_t i = 0; i < n; i++) g->p[i] = rnd(seed) * size;
}

static struct problem problem_open(size_t batch, size_t heads, size_t d, size_t lq, size_t lk) {
    struct problem p = {0};
    uint64_t seed = lq * 31 + lk * 7 + d;
    const size_t cols = heads * d;
    p.a = (rung_attention_args){.batch = batch, .heads = heads, .d = d, .lq = lq, .lk = lk};
    p.a.scale = (float)(1 / sqrt((double)(d ? d : 1)));
    if (lq == lk) {
        fill(&p.q, batch * lq * 3 * cols, 2, &seed);
        p.a.q = p.q.p, p.a.k = p.q.p + cols, p.a.v = p.q.p + 2 * cols;
        p.a.q_row = p.a.k_row = p.a.v_row = 3 * cols;
    } else {
        fill(&p.q, batch * lq * cols, 2, &seed);
        fill(&p.k, batch * lk * cols, 2, &seed);
        fill(&p.v, batch * lk * cols, 2, &seed);
        p.a.q = p.q.p, p.a.k = p.k.p, p.a.v = p.v.p;
        p.a.q_row = p.a.k_row = p.a.v_row = cols;
    }
    p.a.q_batch = lq * p.a.q_row, p.a.k_batch = lk * p.a.k_row, p.a.v_batch = lk * p.a.v_row;
    p.o_count = batch * lq * cols;
    p.o = guard_floats(p.o_count);
    p.a.o = p.o.p, p.a.o_row = cols, p.a.o_batch = lq * cols;
    fill(&p.key_bias, batch * lk, 1, &seed);
    fill(&p.pair_bias, heads * lq * lk, 1, &seed);
    return p;
}

static void problem_close(struct problem *p) {
    guard *all[] = {&p->q, &p->k, &p->v, &p->o, &p->key_bias, &p->pair_bias};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i]->map) guard_free(all[i]);
}

/* The result under these features, in a buffer of the caller's; p->o is used. */
static void run(struct problem *p, unsigned cpu, int threads, float *out) {
    struct cpu_level_run r = cpu_run_open(cpu, threads);
    for (size_t i = 0; i < p->o_count; i++) p->o.p[i] = NAN;
    r.be->ops->attention(r.be, &p->a);
    memcpy(out, p->o.p, p->o_count * sizeof *out);
    cpu_run_close(&r);
}

/* ---- the specification --------------------------------------------------------------------------------------------
 */

/* Softmax with the scores of one query in an array. */
static void written_out(const rung_attention_args *a, float *out) {
    double *s = malloc((a->lk + 1) * sizeof *s);
    for (size_t b = 0; b < a->batch; b++)
        for (size_t i = 0; i < a->lq; i++)
            for (size_t h = 0; h < a->heads; h++) {
                double max = -INFINITY, sum = 0;
                for (size_t j = 0; j < a->lk; j++) {
                    s[j] = 0;
                    for (size_t c = 0; c < a->d; c++)
                        s[j] += (double)a->q[b * a->q_batch + i * a->q_row + h * a->d + c] *
                                a->k[b * a->k_batch + j * a->k_row + h * a->d + c];
                    s[j] *= a->scale;
                    if (a->key_bias) s[j] += a->key_bias[b * a->lk + j];
                    if (a->pair_bias) s[j] += a->pair_bias[(h * a->lq + i) * a->lk + j];
                    if (a->causal && j > i) s[j] = -INFINITY;
                    if (s[j] > max) max = s[j];
                }
                for (size_t j = 0; j < a->lk; j++) sum += s[j] = s[j] > -INFINITY ? exp(s[j] - max) : 0;
                for (size_t c = 0; c < a->d; c++) {
                    double o = 0;
                    for (size_t j = 0; j < a->lk; j++)
                        if (s[j] > 0) o += s[j] / sum * a->v[b * a->v_batch + j * a->v_row + h * a->d + c];
                    out[b * a->o_batch + i * a->o_row + h * a->d + c] = (float)o;
                }
            }
    free(s);
}

/* The worked example of the tiling's notes: scores 1, 3, 2, 5, values 10 .. 40. */
static void test_worked_example(unsigned cpu) {
    static const float one = 1, scores[] = {1, 3, 2, 5}, values[] = {10, 20, 30, 40};
    float o = NAN;
    struct cpu_level_run r = cpu_run_open(cpu, 1);
    r.be->ops->attention(r.be, &(rung_attention_args){.batch = 1,
                                                      .heads = 1,
                                                      .d = 1,
                                                      .lq = 1,
                                                      .lk = 4,
                                                      .q = &one,
                                                      .k = scores,
                                                      .v = values,
                                                      .o = &o,
                                                      .q_row = 1,
                                                      .k_row = 1,
                                                      .v_row = 1,
                                                      .o_row = 1,
                                                      .scale = 1});
    CHECK(fabsf(o - 36.8806f) < 1e-4f);
    cpu_run_close(&r);
}

/* ---- every variant against the specification ----------------------------------------------------------------------
 */

enum { KEY_BIAS = 1, PAIR_BIAS = 2, CAUSAL = 4 };

static void compare(struct problem *p, unsigned cpu, float tol, const char *what) {
    float *ref = malloc((p->o_count + 1) * sizeof *ref), *got = malloc((p->o_count + 1) * sizeof *got);
    if (cpu)
        run(p, 0, 1, ref);
    else
        written_out(&p->a, ref);
    run(p, cpu, 2, got);
    if (!CHECK(close_all(got, ref, p->o_count, tol)))
        fprintf(stderr, "  cpu=%s %s: batch %zu heads %zu d %zu lq %zu lk %zu\n", rung_cpu_name(cpu), what, p->a.batch,
                p->a.heads, p->a.d, p->a.lq, p->a.lk);
    free(ref);
    free(got);
}

static void test_shapes(unsigned cpu) {
    static const size_t d[] = {1, 7, 8, 13, 40, 64, 72, 80, 81, 160, 300};
    static const size_t l[] = {1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 77, 96, 97, 129, 200};
    enum { DS = sizeof d / sizeof *d, LS = sizeof l / sizeof *l };
    for (size_t i = 0; i < DS * LS; i++) {
        /* Every d with every lq; lk runs along another diagonal, and equals lq every third time. */
        const size_t lq = l[i % LS], lk = i % 3 ? l[(i * 5 + i / LS) % LS] : lq;
        struct problem p = problem_open(1 + i % 2, 1 + i % 3, d[i / LS], lq, lk);
        for (unsigned bias = 0; bias < 8; bias++) {
            if (bias && i % 4) continue;
            p.a.key_bias = bias & KEY_BIAS ? p.key_bias.p : NULL;
            p.a.pair_bias = bias & PAIR_BIAS ? p.pair_bias.p : NULL;
            p.a.causal = bias & CAUSAL;
            compare(&p, cpu, 2e-6f, "shapes");
        }
        problem_close(&p);
    }
}

static void test_empty(unsigned cpu) {
    struct problem no_keys = problem_open(2, 2, 24, 5, 0), no_queries = problem_open(2, 2, 24, 0, 5);
    float out[2 * 5 * 48];
    run(&no_keys, cpu, 1, out);
    for (size_t i = 0; i < no_keys.o_count; i++) CHECK(out[i] == 0);
    run(&no_queries, cpu, 1, out);
    no_keys.a.batch = 0;
    run(&no_keys, cpu, 1, out);
    problem_close(&no_keys);
    problem_close(&no_queries);
}

/* The widest head of the vector kernels and one that they leave to the specification; k, v shared by the batch. */
static void test_wide_and_shared(unsigned cpu) {
    static const size_t wide[] = {512, 1024, 1025};
    for (size_t i = 0; i < sizeof wide / sizeof *wide; i++) {
        struct problem p = problem_open(1, 1, wide[i], 3, 101);
        compare(&p, cpu, 4e-6f, "wide");
        problem_close(&p);
    }
    struct problem shared = problem_open(3, 2, 40, 20, 77);
    shared.a.k_batch = shared.a.v_batch = 0;
    compare(&shared, cpu, 2e-6f, "shared k, v");
    problem_close(&shared);
}

/* ---- masks and large numbers --------------------------------------------------------------------------------------
 */

/* Keys [from, to) of every picture are masked. */
static void test_masked_range(unsigned cpu, size_t from, size_t to) {
    struct problem p = problem_open(2, 2, 40, 50, 250);
    for (size_t i = 0; i < 2 * p.a.lk; i++) p.key_bias.p[i] = i % p.a.lk >= from && i % p.a.lk < to ? -INFINITY : 0;
    p.a.key_bias = p.key_bias.p;
    compare(&p, cpu, 2e-6f, "masked range");
    if (to - from == p.a.lk) {
        float *out = malloc(p.o_count * sizeof *out);
        run(&p, cpu, 1, out);
        for (size_t i = 0; i < p.o_count; i++) CHECK(out[i] == 0);
        free(out);
    }
    problem_close(&p);
}

/* Some queries have every key masked by the pair bias, their neighbours in the same vector do not. */
static void test_masked_queries(unsigned cpu) {
    struct problem p = problem_open(1, 2, 16, 37, 120);
    for (size_t i = 0; i < 2 * p.a.lq; i++)
        for (size_t j = 0; j < p.a.lk; j++)
            if (i % 3 == 1 || (i % 3 == 2 && j < 100)) p.pair_bias.p[i * p.a.lk + j] = -INFINITY;
    p.a.pair_bias = p.pair_bias.p;
    p.a.causal = true;
    compare(&p, cpu, 2e-6f, "masked queries");
    problem_close(&p);
}

/* Scores and biases around +-1e4: f32 holds them to 1e-3, so the weights are within 1e-3 of the specification's. */
static void test_large(unsigned cpu) {
    struct problem p = problem_open(1, 2, 40, 40, 200);
    for (size_t i = 0; i < p.a.lk * p.a.k_row; i++) p.k.p[i] *= 2000;
    compare(&p, cpu, 2e-2f, "large scores");
    for (size_t i = 0; i < p.a.lk; i++) p.key_bias.p[i] *= 1e4f;
    for (size_t i = 0; i < 2 * p.a.lq * p.a.lk; i++) p.pair_bias.p[i] *= 1e4f;
    p.a.key_bias = p.key_bias.p, p.a.pair_bias = p.pair_bias.p;
    compare(&p, cpu, 2e-2f, "large scores and biases");
    problem_close(&p);
}

static void test_nan(unsigned cpu) {
    struct problem p = problem_open(1, 1, 24, 40, 130);
    float out[40 * 24];
    p.q.p[3 * 24 + 5] = NAN; /* query 3 alone */
    run(&p, cpu, 1, out);
    for (size_t i = 0; i < p.o_count; i++) CHECK(isnan(out[i]) == (i / 24 == 3));
    p.q.p[3 * 24 + 5] = 0;
    p.v.p[7 * 24 + 2] = NAN; /* column 2 of everybody */
    run(&p, cpu, 1, out);
    for (size_t i = 0; i < p.o_count; i++) CHECK(isnan(out[i]) == (i % 24 == 2));
    problem_close(&p);
}

/* e^x / (1 + e^x) for x in [-87, 0] shows the relative error of the exponential. x log2 e is rounded once, which costs
 * |x| half ulps more. */
static void test_exponential(unsigned cpu) {
    enum { N = 20000 };
    static float x[N], o[N];
    static const float k[] = {0, 1}, v[] = {0, 1};
    for (size_t i = 0; i < N; i++) x[i] = -87.0f * (float)i / N;
    struct cpu_level_run r = cpu_run_open(cpu, 1);
    r.be->ops->attention(r.be, &(rung_attention_args){.batch = 1,
                                                      .heads = 1,
                                                      .d = 1,
                                                      .lq = N,
                                                      .lk = 2,
                                                      .q = x,
                                                      .k = k,
                                                      .v = v,
                                                      .o = o,
                                                      .q_row = 1,
                                                      .k_row = 1,
                                                      .v_row = 1,
                                                      .o_row = 1,
                                                      .scale = 1});
    double worst = 0;
    for (size_t i = 0; i < N; i++) {
        const double e = exp(x[i]), want = e / (1 + e);
        worst = fmax(worst, fabs(o[i] / want - 1) / (4e-7 + fabs(x[i]) * 1.8e-7));
    }
    if (!CHECK(worst < 1)) fprintf(stderr, "  cpu=%s: %g of what is allowed\n", rung_cpu_name(cpu), worst);
    cpu_run_close(&r);
}

/* ---- threads and memory -------------------------------------------------------------------------------------------
 */

static void test_threads(unsigned cpu) {
    struct problem p = problem_open(2, 3, 40, 600, 77);
    float *one = malloc(p.o_count * sizeof *one), *more = malloc(p.o_count * sizeof *more);
    p.a.key_bias = p.key_bias.p;
    run(&p, cpu, 1, one);
    for (int threads = 2; threads <= 3; threads++) {
        run(&p, cpu, threads, more);
        CHECK(memcmp(one, more, p.o_count * sizeof *one) == 0);
    }
    free(one);
    free(more);
    problem_close(&p);
}

/* 16,384 tokens: a buffer of [lq, lk] would be 1 GiB. A few queries are compared, the first and the last among them. */
static void test_memory(unsigned cpu) {
    enum { L = 16384, D = 8 };
    static float qkv[L * 3 * D], o[L * D], ref[L * D];
    uint64_t seed = 5;
    struct rusage before, after;
    for (size_t i = 0; i < L * 3 * D; i++) qkv[i] = rnd(&seed) * 3;
    rung_attention_args a = {.batch = 1,
                             .heads = 1,
                             .d = D,
                             .lq = L,
                             .lk = L,
                             .q = qkv,
                             .k = qkv + D,
                             .v = qkv + 2 * D,
                             .o = o,
                             .q_row = 3 * D,
                             .k_row = 3 * D,
                             .v_row = 3 * D,
                             .o_row = D,
                             .scale = 0.4f};
    memset(o, 0, sizeof o);
    struct cpu_level_run r = cpu_run_open(cpu, 2);
    getrusage(RUSAGE_SELF, &before);
    r.be->ops->attention(r.be, &a);
    getrusage(RUSAGE_SELF, &after);
    CHECK(after.ru_maxrss - before.ru_maxrss < 24 << 10); /* KiB: two workers' scratch, and the sanitizer's shadow */
    cpu_run_close(&r);
    a.o = ref;
    for (size_t i = 0; i < L; i += L / 7) {
        attention_ref.block(&a, 0, 0, i, 1, NULL);
        CHECK(close_all(o + i * D, ref + i * D, D, 2e-6f));
    }
}

int main(void) {
    for (size_t i = 0; i < CPU_LEVELS; i++) {
        unsigned cpu;
        if (!cpu_level(i, &cpu)) continue;
        test_worked_example(cpu);
        test_shapes(cpu);
        test_empty(cpu);
        test_wide_and_shared(cpu);
        test_masked_range(cpu, 0, 100);   /* the first tile */
        test_masked_range(cpu, 150, 250); /* the last */
        test_masked_range(cpu, 0, 250);
        test_masked_queries(cpu);
        test_large(cpu);
        test_nan(cpu);
        test_exponential(cpu);
        test_threads(cpu);
        if (cpu) test_memory(cpu); /* the specification would take minutes */
    }
    return check_result();
}
