/* tests/test_linear.c - linear layers on every instruction set that the machine has, against plain f64 loops. */
#include "tests/guard.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/fp6.h"
#include "kernels/cpu/cpu_ops.h"
#include "tests/check.h"

enum { MAX_PARTS = 3 };

typedef struct {
    size_t m, n[MAX_PARTS], k, parts;
    rung_dtype dtype[MAX_PARTS];
    rung_store store;
    rung_act act;
    bool bias, bias_hole, add, gate, residual, in_place;
    float out_scale;
    size_t x_gap, rows_per_sample;
} config;

typedef struct {
    rung_tensor t;
    void *data;
    float *scale;
    float *value; /* f32 [n, k]: what the layer should have kept */
} weight;

static uint64_t seed = 1;

static size_t pick(size_t n) {
    rnd(&seed);
    return (size_t)(seed >> 33) % n;
}

static void put_code(unsigned char *stream, size_t i, unsigned code) {
    for (int b = 0; b < 6; b++)
        if (code >> (5 - b) & 1) stream[(6 * i + (size_t)b) / 8] |= (unsigned char)(0x80 >> (6 * i + (size_t)b) % 8);
}

/* What `store` keeps of a row f32 [k]. Six-bit codes fit f16 and keep their scale apart: nothing is rounded. */
static void keep(float *row, size_t k, rung_store store, rung_dtype from) {
    float top = 1e-12f;
    for (size_t i = 0; i < k; i++) top = fmaxf(top, fabsf(row[i]));
    for (size_t i = 0; i < k; i++) {
        if (store == RUNG_STORE_F16 && rung_dtype_bits(from) != 6) row[i] = rung_f16_to_f32(rung_f32_to_f16(row[i]));
        if (store == RUNG_STORE_BF16) row[i] = rung_bf16_to_f32(rung_f32_to_bf16(row[i]));
        if (store == RUNG_STORE_FP6 && from != RUNG_F6_E3M2)
            row[i] = rung_e3m2_to_f32(rung_f32_to_e3m2(row[i] / (top / 28))) * (top / 28);
    }
}

static weight make_weight(size_t n, size_t k, rung_dtype dtype, rung_store store) {
    weight w = {.t = {.dtype = dtype, .ndim = 2, .shape = {n, k}}};
    const size_t count = n * k;
    w.data = calloc(count + 8, 8);
    w.value = malloc((count + 1) * sizeof(float));
    const bool six = rung_dtype_bits(dtype) == 6, eight = rung_dtype_bits(dtype) == 8;
    if (six) w.t.scale = w.scale = malloc(n * sizeof(float));
    for (size_t r = 0; six && r < n; r++) w.scale[r] = 0.01f + 0.02f * fabsf(rnd(&seed));
    const float size = 1 / sqrtf((float)k);
    for (size_t i = 0; i < count; i++) {
        const float v = rnd(&seed) * size;
        if (dtype == RUNG_F32) ((float *)w.data)[i] = v;
        if (dtype == RUNG_F64) ((double *)w.data)[i] = v;
        if (dtype == RUNG_F16) ((uint16_t *)w.data)[i] = rung_f32_to_f16(v);
        if (dtype == RUNG_BF16) ((uint16_t *)w.data)[i] = rung_f32_to_bf16(v);
        if (eight) ((uint8_t *)w.data)[i] = (uint8_t)(pick(0x38) | pick(2) << 7);
        if (six) put_code(w.data, i, (unsigned)pick(64));
    }
    w.t.data = w.data;
    rung_err e = {0};
    CHECK(rung_tensor_to_f32(&w.t, 0, count, w.value, &e) == RUNG_OK);
    for (size_t r = 0; r < n; r++) keep(w.value + r * k, k, store, dtype);
    return w;
}

static void free_weight(weight *w) {
    free(w->data);
    free(w->scale);
    free(w->value);
}

static guard random_floats(size_t n) {
    guard g = guard_floats(n);
    for (size_t i = 0; i < n; i++) g.p[i] = rnd(&seed);
    return g;
}

static double act_of(double v, rung_act act) {
    if (act == RUNG_ACT_RELU) return v > 0 ? v : 0;
    if (act == RUNG_ACT_SILU) return v / (1 + exp(-v));
    if (act == RUNG_ACT_GELU) return 0.5 * v * (1 + erf(v / sqrt(2)));
    if (act == RUNG_ACT_GELU_TANH) return 0.5 * v * (1 + tanh(sqrt(2 / acos(-1)) * (v + 0.044715 * v * v * v)));
    if (act == RUNG_ACT_QUICK_GELU) return v / (1 + exp(-1.702 * v));
    return v;
}

/* All that one call reads and writes. */
typedef struct {
    weight w[MAX_PARTS];
    rung_tensor bias[MAX_PARTS];
    guard bias_data[MAX_PARTS], x, add, gate, residual, y;
    float *ref;
    size_t n, y_cols, x_row;
    rung_epilogue ep;
} setting;

static double sum_of(const config *c, const setting *s, size_t r, size_t col) {
    size_t p = 0, j = col;
    while (j >= c->n[p]) j -= c->n[p++];
    double v = s->bias[p].data ? s->bias_data[p].p[j] : 0;
    for (size_t k = 0; k < c->k; k++) v += (double)s->x.p[r * s->x_row + k] * s->w[p].value[j * c->k + k];
    return v + (c->add ? s->add.p[r / c->rows_per_sample * s->ep.sample_add_stride + col] : 0);
}

static void reference(const config *c, setting *s) {
    for (size_t r = 0; r < c->m; r++) {
        for (size_t col = 0; col < s->y_cols; col++) {
            double v = act_of(sum_of(c, s, r, col), c->act);
            if (c->act == RUNG_ACT_GEGLU) v *= act_of(sum_of(c, s, r, s->y_cols + col), RUNG_ACT_GELU);
            if (c->gate) v *= s->gate.p[r / c->rows_per_sample * s->ep.gate_stride + col];
            if (c->residual) v += s->residual.p[r * s->y_cols + col];
            s->ref[r * s->y_cols + col] = (float)(v * (c->out_scale != 0 ? c->out_scale : 1));
        }
    }
}

static setting prepare(const config *c) {
    setting s = {.x_row = c->k + c->x_gap};
    for (size_t p = 0; p < c->parts; p++) {
        s.w[p] = make_weight(c->n[p], c->k, c->dtype[p], c->store);
        s.n += c->n[p];
        if (!c->bias || (c->bias_hole && p == 1)) continue;
        s.bias_data[p] = random_floats(c->n[p]);
        s.bias[p] = (rung_tensor){.dtype = RUNG_F32, .ndim = 1, .shape = {c->n[p]}, .data = s.bias_data[p].p};
    }
    s.y_cols = c->act == RUNG_ACT_GEGLU ? s.n / 2 : s.n;
    const size_t samples = c->m / c->rows_per_sample + 1;
    s.x = random_floats(c->m ? (c->m - 1) * s.x_row + c->k : 0);
    s.add = random_floats((samples - 1) * (s.n + 3) + s.n);
    s.gate = random_floats((samples - 1) * (s.y_cols + 1) + s.y_cols);
    s.residual = random_floats(c->m * s.y_cols);
    s.y = guard_floats(c->m * s.y_cols);
    s.ref = calloc(c->m * s.y_cols + 1, sizeof *s.ref);
    s.ep = (rung_epilogue){.act = c->act, .out_scale = c->out_scale, .rows_per_sample = c->rows_per_sample};
    if (c->add) s.ep.sample_add = s.add.p, s.ep.sample_add_stride = s.n + 3;
    if (c->gate) s.ep.gate = s.gate.p, s.ep.gate_stride = s.y_cols + 1;
    if (c->residual) s.ep.residual = s.residual.p;
    reference(c, &s);
    return s;
}

static void release(const config *c, setting *s) {
    for (size_t p = 0; p < c->parts; p++) {
        free_weight(&s->w[p]);
        if (s->bias[p].data) guard_free(&s->bias_data[p]);
    }
    guard_free(&s->x);
    guard_free(&s->add);
    guard_free(&s->gate);
    guard_free(&s->residual);
    guard_free(&s->y);
    free(s->ref);
}

/* Opens the layer, runs it into s->y. */
static bool run(const config *c, setting *s, unsigned cpu, rung_pool *pool) {
    cpu_backend be = {.pool = pool, .cpu = cpu};
    const rung_tensor *w[MAX_PARTS], *bias[MAX_PARTS];
    for (size_t p = 0; p < c->parts; p++) {
        w[p] = &s->w[p].t;
        bias[p] = s->bias[p].data ? &s->bias[p] : NULL;
    }
    rung_err e = {0};
    rung_linear *l;
    if (!CHECK(cpu_linear_open(&be.base, &l, w, c->bias ? bias : NULL, c->parts, c->store, &e) == RUNG_OK)) {
        fprintf(stderr, "  %s\n", e.msg);
        return false;
    }
    rung_epilogue ep = s->ep;
    for (size_t i = 0; i < c->m * s->y_cols; i++) s->y.p[i] = c->in_place ? s->residual.p[i] : NAN;
    if (c->in_place && c->residual) ep.residual = s->y.p;
    cpu_linear(&be.base, s->y.p, s->x.p, s->x_row, c->m, l, &ep);
    cpu_linear_close(&be.base, &l);
    return CHECK(l == NULL);
}

static void report(const config *c, unsigned cpu, int threads) {
    fprintf(stderr, "  %s threads=%d m=%zu n=%zu+%zu+%zu k=%zu %s store=%d act=%d add=%d gate=%d res=%d scale=%g\n",
            rung_cpu_name(cpu), threads, c->m, c->n[0], c->n[1], c->n[2], c->k, rung_dtype_name(c->dtype[0]), c->store,
            c->act, c->add, c->gate, c->residual, c->out_scale);
}

static const unsigned levels[] = {0, RUNG_CPU_AVX2, RUNG_CPU_AVX2 | RUNG_CPU_AVX512};
enum { LEVELS = sizeof levels / sizeof *levels, POOLS = 3 };
static rung_pool *pools[POOLS];

/* Every level within 1e-5 of the f64 loops; every number of threads to the last bit the same. */
static void check_config(const config *c) {
    setting s = prepare(c);
    const size_t count = c->m * s.y_cols;
    float *first = malloc((count + 1) * sizeof *first);
    for (size_t i = 0; i < LEVELS; i++) {
        if (levels[i] & ~rung_cpu_detect()) continue;
        for (int t = 0; t < POOLS; t++) {
            if (!run(c, &s, levels[i], pools[t])) break;
            if (!CHECK(close_all(s.y.p, s.ref, count, 1e-5f))) report(c, levels[i], t + 1);
            if (t == 0) memcpy(first, s.y.p, count * sizeof *first);
            if (!CHECK(memcmp(first, s.y.p, count * sizeof *first) == 0)) report(c, levels[i], t + 1);
        }
    }
    free(first);
    release(c, &s);
}

static const rung_dtype dtypes[] = {RUNG_F32,     RUNG_F16,     RUNG_BF16,    RUNG_F6_E3M2,
                                    RUNG_F6_E2M3, RUNG_F8_E4M3, RUNG_F8_E5M2, RUNG_F64};

static config random_config(void) {
    static const size_t rows[] = {0, 1, 2, 3, 4, 5, 6, 7, 13, 14, 15, 16, 17, 33, 95, 97, 169, 200};
    static const size_t depths[] = {4, 8, 12, 16, 60, 252, 256, 260, 516};
    config c = {.m = rows[pick(sizeof rows / sizeof *rows)], .parts = 1 + pick(MAX_PARTS)};
    const bool mixed = pick(4) == 0;
    bool six = false;
    for (size_t p = 0; p < c.parts; p++) {
        c.dtype[p] = p == 0 || mixed ? dtypes[pick(sizeof dtypes / sizeof *dtypes)] : c.dtype[0];
        six |= rung_dtype_bits(c.dtype[p]) == 6;
    }
    c.store = (rung_store)pick(RUNG_STORE_FP6 + 1);
    c.k = depths[pick(sizeof depths / sizeof *depths)];
    if (!six) c.k = pick(2) ? c.k + 1 - pick(3) : 1 + pick(40);
    for (size_t p = 0; p < c.parts; p++) c.n[p] = 1 + pick(pick(4) ? 70 : 700);
    c.act = (rung_act)pick(RUNG_ACT_GEGLU + 1);
    if (c.act == RUNG_ACT_GEGLU) c.n[0] += (c.n[0] + c.n[1] + c.n[2]) % 2;
    c.bias = pick(4) > 0;
    c.bias_hole = pick(3) == 0;
    c.add = pick(3) == 0;
    c.gate = pick(3) == 0;
    c.residual = pick(3) == 0;
    c.in_place = pick(2);
    c.out_scale = pick(2) ? 0 : 0.5f + fabsf(rnd(&seed));
    c.x_gap = pick(3);
    c.rows_per_sample = 1 + pick(40);
    if (pick(5) == 0) { /* whole panels without an epilogue: the sums may be made in y itself */
        for (size_t p = 0; p < c.parts; p++) c.n[p] = 32 * (1 + pick(12));
        c.act = RUNG_ACT_NONE;
        c.bias = c.add = c.gate = c.residual = false;
        c.out_scale = (float)pick(2);
    }
    return c;
}

/* A NaN or an infinity in x reaches its row of y and no other. */
static void not_finite(unsigned cpu) {
    config c = {.m = 20, .n = {40}, .k = 50, .parts = 1, .dtype = {RUNG_F32}, .rows_per_sample = 1};
    for (c.act = RUNG_ACT_NONE; c.act <= RUNG_ACT_GEGLU; c.act++) {
        setting s = prepare(&c);
        s.x.p[3 * s.x_row + 7] = NAN;
        s.x.p[15 * s.x_row + 49] = INFINITY;
        if (run(&c, &s, cpu, pools[0])) {
            size_t wrong = 0;
            for (size_t i = 0; i < c.m * s.y_cols; i++) {
                const size_t r = i / s.y_cols;
                if (r == 3)
                    wrong += !isnan(s.y.p[i]);
                else if (r == 15 && c.act == RUNG_ACT_NONE)
                    wrong += !isinf(s.y.p[i]);
                else if (r != 15)
                    wrong += !isfinite(s.y.p[i]);
            }
            if (!CHECK(wrong == 0)) report(&c, cpu, 1);
        }
        release(&c, &s);
    }
}

static void refuses(void) {
    cpu_backend be = {.pool = pools[0], .cpu = rung_cpu_detect()};
    float bad[8] = {1, NAN, 3, 4, 5, 6, 7, 8};
    const rung_tensor w = {.dtype = RUNG_F32, .ndim = 2, .shape = {2, 4}, .data = bad};
    const rung_tensor flat = {.dtype = RUNG_F32, .ndim = 1, .shape = {8}, .data = bad};
    const rung_tensor wide = {.dtype = RUNG_F32, .ndim = 2, .shape = {1, 8}, .data = bad};
    const rung_tensor empty = {.dtype = RUNG_F32, .ndim = 2, .shape = {0, 4}, .data = bad};
    const rung_tensor whole = {.dtype = RUNG_I32, .ndim = 2, .shape = {2, 4}, .data = bad};
    const struct {
        const rung_tensor *part[2], *bias[2];
        size_t parts;
        rung_store store;
        rung_status want;
    } cases[] = {
        {{&w}, {NULL}, 1, RUNG_STORE_FP6, RUNG_EFORMAT},       {{&flat}, {NULL}, 1, RUNG_STORE_F32, RUNG_ESHAPE},
        {{&w, &wide}, {NULL}, 2, RUNG_STORE_F32, RUNG_ESHAPE}, {{&empty}, {NULL}, 1, RUNG_STORE_F32, RUNG_ESHAPE},
        {{&whole}, {NULL}, 1, RUNG_STORE_F32, RUNG_EFORMAT},   {{&w}, {&flat}, 1, RUNG_STORE_F32, RUNG_ESHAPE},
        {{&w}, {NULL}, 0, RUNG_STORE_F32, RUNG_EARG},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        rung_err e = {0};
        rung_linear *l = (rung_linear *)&be;
        const rung_status st =
            cpu_linear_open(&be.base, &l, cases[i].part, cases[i].bias, cases[i].parts, cases[i].store, &e);
        if (!CHECK(st == cases[i].want && l == NULL && e.msg[0])) fprintf(stderr, "  case %zu: %s\n", i, e.msg);
    }
}

int main(void) {
    rung_err e = {0};
    for (int t = 0; t < POOLS; t++)
        if (!CHECK(rung_pool_open(&pools[t], t + 1, &e) == RUNG_OK)) return 1;
    for (size_t i = 0; i < LEVELS; i++)
        if (levels[i] & ~rung_cpu_detect()) fprintf(stderr, "SKIP %s: not on this machine\n", rung_cpu_name(levels[i]));
    for (int i = 0; i < 250; i++) {
        const config c = random_config();
        check_config(&c);
    }
    for (size_t i = 0; i < LEVELS; i++)
        if (!(levels[i] & ~rung_cpu_detect())) not_finite(levels[i]);
    refuses();
    for (int t = 0; t < POOLS; t++) rung_pool_close(&pools[t]);
    return check_result();
}
