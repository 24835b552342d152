/* tests/test_sparse_gemm.c - layers from sparse weights on every instruction set that the machine has, expanding and
 * skipping, against the scalar specification over the same weights as dense f32; and the pieces they are made of. */
#include "tests/guard.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/base/fp6.h"
#include "kernels/cpu/sparse.h"
#include "kernels/sparse.h"
#include "tests/check.h"

static uint64_t seed = 17;

static size_t pick(size_t n) {
    rnd(&seed);
    return (size_t)(seed >> 33) % n;
}

/* A sparse tensor and the same numbers dense. */
typedef struct {
    rung_tensor sparse, dense;
    uint8_t *bitmap;
    unsigned char *values;
    size_t *row_at;
    float *scale, *numbers;
} weight;

static bool six_bit(rung_dtype t) { return rung_dtype_bits(t) == 6; }

/* A word of `dtype`, not +0: every code, -0 too; 16-bit ones up to 1/32 in size. */
static uint16_t random_word(rung_dtype dtype) {
    if (six_bit(dtype)) return (uint16_t)(1 + pick(63));
    const float v = (rnd(&seed) * 0.5f + (pick(2) ? 0.5f : -0.5f)) / 32;
    if (pick(100) == 0) return 0x8000;
    return dtype == RUNG_F16 ? rung_f32_to_f16(v) : rung_f32_to_bf16(v);
}

/* density < 0: every row has its own. */
static weight make(rung_dtype dtype, const size_t *shape, int ndim, double density) {
    weight w = {.sparse = {.dtype = dtype, .ndim = ndim}};
    for (int i = 0; i < ndim; i++) w.sparse.shape[i] = shape[i];
    const size_t rows = shape[0], cols = rung_tensor_row(&w.sparse), mask = rung_bitmap_bytes(cols);
    w.bitmap = calloc(rows, mask);
    w.values = calloc(rows * cols + 4, 2);
    w.row_at = calloc(rows + 1, sizeof *w.row_at);
    w.numbers = malloc(rows * cols * sizeof *w.numbers);
    w.scale = six_bit(dtype) ? malloc(rows * sizeof *w.scale) : NULL;
    size_t at = 0;
    for (size_t r = 0; r < rows; r++) {
        const double d = density < 0 ? (double)pick(101) / 100 : density;
        if (w.scale) w.scale[r] = (0.5f + fabsf(rnd(&seed))) / (8 * sqrtf((float)cols));
        for (size_t c = 0; c < cols; c++) {
            if ((rnd(&seed) + 1) / 2 >= d) continue;
            const uint16_t word = random_word(dtype);
            w.bitmap[r * mask + c / 8] |= (uint8_t)(1u << c % 8);
            if (six_bit(dtype))
                rung_fp6_put(w.values, at, (uint8_t)word);
            else
                memcpy(w.values + 2 * at, &word, 2);
            at++;
        }
        w.row_at[r + 1] = at;
    }
    w.sparse.data = w.values;
    w.sparse.scale = w.scale;
    w.sparse.bitmap = w.bitmap;
    w.sparse.row_at = w.row_at;
    rung_err e = {0};
    CHECK(rung_tensor_to_f32(&w.sparse, 0, rows * cols, w.numbers, &e) == RUNG_OK);
    w.dense = (rung_tensor){.dtype = RUNG_F32, .ndim = ndim, .data = w.numbers};
    memcpy(w.dense.shape, w.sparse.shape, sizeof w.dense.shape);
    return w;
}

static void release(weight *w) {
    free(w->bitmap);
    free(w->values);
    free(w->row_at);
    free(w->scale);
    free(w->numbers);
}

static guard random_floats(size_t n) {
    guard g = guard_floats(n);
    for (size_t i = 0; i < n; i++) g.p[i] = rnd(&seed);
    return g;
}

static const unsigned levels[] = {0, RUNG_CPU_AVX2, RUNG_CPU_AVX2 | RUNG_CPU_AVX512, RUNG_CPU_ALL};
enum { LEVELS = sizeof levels / sizeof *levels, POOLS = 3, MAX_PARTS = 3 };
static rung_pool *pools[POOLS];

/* ---- pieces ---- */

/* What is read and, by k, expanded, from any k on, are the numbers to the bit. */
static void pieces(const sparse_kernels *sk, size_t nr, rung_dtype dtype, double density, bool by_columns) {
    const size_t n = nr + 3, k = 100 + pick(200);
    weight w = make(dtype, (const size_t[]){n, k}, 2, density);
    w.sparse.scale = NULL;
    rung_err e = {0};
    CHECK(rung_tensor_to_f32(&w.sparse, 0, n * k, w.numbers, &e) == RUNG_OK);
    weight_stack stack = {.n = n, .k = k, .sparse = true, .values = dtype, .held = w.row_at[n]};
    sparse_panels *s;
    if (!CHECK(sparse_panels_open(&s, &stack, nr, by_columns, &e) == RUNG_OK)) return;
    for (size_t r = 0; r < n; r++) sparse_panels_put(s, r, w.numbers + r * k);
    size_t wrong = 0;
    for (size_t i = 0; i < 8; i++) {
        const size_t k0 = pick(k), kn = 1 + pick(k - k0), panel = i % 2;
        guard out = guard_floats(kn * nr);
        float *row = malloc(kn * sizeof *row);
        if (!by_columns) sk->expand(s, panel, k0, kn, out.p);
        for (size_t j = 0; j < nr; j++) {
            const size_t col = panel * nr + j;
            sparse_panels_row(s, col < n ? col : n - 1, k0, kn, row);
            for (size_t c = 0; c < kn; c++) {
                const float want = col < n ? w.numbers[col * k + k0 + c] : 0;
                wrong += !by_columns && memcmp(&want, &out.p[c * nr + j], 4) != 0;
                wrong += col < n && memcmp(&want, &row[c], 4) != 0;
            }
        }
        guard_free(&out);
        free(row);
    }
    if (!CHECK(wrong == 0))
        fprintf(stderr, "  %s density %g nr %zu by columns %d: %zu wrong\n", rung_dtype_name(dtype), density, nr,
                by_columns, wrong);
    CHECK(sparse_panels_bytes(s) <= n * k * 4 + 100000);
    sparse_panels_close(&s);
    release(&w);
}

static void transposes(const sparse_kernels *sk) {
    guard src = random_floats(16 * 24), dst = guard_floats(24 * 16);
    sk->transpose(dst.p, 16, src.p, 24, 16, 24);
    for (size_t i = 0; i < 16 * 24; i++) CHECK(dst.p[i % 24 * 16 + i / 24] == src.p[i]);
    guard_free(&src);
    guard_free(&dst);
}

/* ---- layers ---- */

typedef struct {
    size_t m, n[MAX_PARTS], k, parts, x_gap;
    rung_dtype dtype;
    rung_store store;
    double density;
    rung_act act;
    bool bias, extras;
} config;

typedef struct {
    weight w[MAX_PARTS];
    rung_tensor bias[MAX_PARTS];
    guard bias_data[MAX_PARTS], x, residual, gate, y;
    size_t y_cols;
    rung_epilogue ep;
} setting;

static void run(const config *c, setting *s, bool sparse, unsigned cpu, rung_pool *pool) {
    cpu_backend be = {.pool = pool, .cpu = cpu};
    const rung_tensor *w[MAX_PARTS], *bias[MAX_PARTS];
    for (size_t p = 0; p < c->parts; p++) {
        w[p] = sparse ? &s->w[p].sparse : &s->w[p].dense;
        bias[p] = &s->bias[p];
    }
    rung_err e = {0};
    rung_linear *l;
    for (size_t i = 0; i < c->m * s->y_cols; i++) s->y.p[i] = NAN;
    if (!CHECK(cpu_linear_open(&be.base, &l, w, c->bias ? bias : NULL, c->parts, sparse ? c->store : RUNG_STORE_F32,
                               &e) == RUNG_OK))
        return;
    cpu_linear(&be.base, s->y.p, s->x.p, c->k + c->x_gap, c->m, l, &s->ep);
    cpu_linear_close(&be.base, &l);
}

static void check_config(const config *c) {
    setting s = {.ep = {.act = c->act}};
    size_t n = 0;
    for (size_t p = 0; p < c->parts; p++) {
        s.w[p] = make(c->dtype, (const size_t[]){c->n[p], c->k}, 2, c->density);
        s.bias_data[p] = random_floats(c->n[p]);
        s.bias[p] = (rung_tensor){.dtype = RUNG_F32, .ndim = 1, .shape = {c->n[p]}, .data = s.bias_data[p].p};
        n += c->n[p];
    }
    s.y_cols = c->act == RUNG_ACT_GEGLU ? n / 2 : n;
    s.x = random_floats(c->m ? (c->m - 1) * (c->k + c->x_gap) + c->k : 0);
    s.residual = random_floats(c->m * s.y_cols);
    s.gate = random_floats((c->m / 40 + 1) * s.y_cols);
    s.y = guard_floats(c->m * s.y_cols);
    if (c->extras) {
        s.ep.residual = s.residual.p;
        s.ep.gate = s.gate.p;
        s.ep.gate_stride = s.y_cols;
        s.ep.rows_per_sample = 40;
    }
    const size_t count = c->m * s.y_cols;
    float *want = malloc((count + 1) * sizeof *want), *first = malloc((count + 1) * sizeof *first);
    run(c, &s, false, 0, pools[0]);
    memcpy(want, s.y.p, count * sizeof *want);
    for (size_t i = 0; i < LEVELS; i++) {
        if (levels[i] & ~rung_cpu_detect()) continue;
        for (int t = 0; t < POOLS; t++) {
            run(c, &s, true, levels[i], pools[t]);
            if (t == 0) memcpy(first, s.y.p, count * sizeof *first);
            if (!CHECK(close_all(s.y.p, want, count, 1e-5f)) ||
                !CHECK(memcmp(first, s.y.p, count * sizeof *first) == 0))
                fprintf(stderr, "  %s threads=%d m=%zu n=%zu+%zu+%zu k=%zu %s density=%g store=%d act=%d extras=%d\n",
                        rung_cpu_name(levels[i]), t + 1, c->m, c->n[0], c->n[1], c->n[2], c->k,
                        rung_dtype_name(c->dtype), c->density, c->store, c->act, c->extras);
        }
    }
    free(want);
    free(first);
    for (size_t p = 0; p < c->parts; p++) {
        release(&s.w[p]);
        guard_free(&s.bias_data[p]);
    }
    guard_free(&s.x);
    guard_free(&s.residual);
    guard_free(&s.gate);
    guard_free(&s.y);
}

static const rung_dtype dtypes[] = {RUNG_F6_E3M2, RUNG_F6_E2M3, RUNG_F16, RUNG_BF16};
static const double densities[] = {0, 0.02, 0.1, 0.2, 0.3, 0.49, 0.51, 0.7, 1, -1};

static config random_config(void) {
    static const size_t rows[] = {0, 1, 2, 3, 4, 5, 8, 9, 16, 31, 32, 33, 47, 64, 65, 77, 129, 257, 300};
    config c = {.m = rows[pick(sizeof rows / sizeof *rows)], .parts = 1 + pick(MAX_PARTS), .k = 1 + pick(600)};
    for (size_t p = 0; p < c.parts; p++) c.n[p] = 1 + pick(pick(3) ? 90 : 700);
    c.x_gap = pick(3);
    c.dtype = dtypes[pick(4)];
    c.store = pick(4) ? RUNG_STORE_STORED : six_bit(c.dtype) ? RUNG_STORE_FP6 : RUNG_STORE_F32;
    if (c.dtype == RUNG_F6_E2M3) c.store = RUNG_STORE_STORED; /* dense, it would become E3M2 */
    c.density = densities[pick(sizeof densities / sizeof *densities)];
    c.act = pick(3) ? (rung_act)pick(RUNG_ACT_GEGLU + 1) : RUNG_ACT_GEGLU;
    if (c.act == RUNG_ACT_GEGLU) c.n[0] += (c.n[0] + c.n[1] + c.n[2]) % 2;
    c.bias = pick(2);
    c.extras = pick(2);
    return c;
}

/* ---- convolutions: implicit GEMM, Winograd, skipping ---- */

typedef struct {
    size_t batch, ic, oc, kernel, side, stride;
    double density;
    double tolerance; /* relative to the norm: Winograd rounds more */
} conv_case;

static void convolution(const conv_case *c) {
    weight w = make(RUNG_F6_E3M2, (const size_t[]){c->oc, c->ic, c->kernel, c->kernel}, 4, c->density);
    const size_t pad = c->kernel / 2, out = (c->side + 2 * pad - c->kernel) / c->stride + 1;
    const size_t count = c->batch * out * out * c->oc;
    guard x = random_floats(c->batch * c->side * c->side * c->ic), y = guard_floats(count);
    float *want = malloc(count * sizeof *want), *first = malloc(count * sizeof *first);
    rung_conv_args a = {.batch = c->batch, .h = c->side, .w = c->side, .stride = c->stride};
    a.pad_top = a.pad_left = a.pad_bottom = a.pad_right = pad;
    for (size_t i = 0; i <= LEVELS; i++) { /* first the dense specification */
        const unsigned cpu = i ? levels[i - 1] : 0;
        if (cpu & ~rung_cpu_detect()) continue;
        for (int t = 0; t < (i ? POOLS : 1); t++) {
            rung_backend *be;
            rung_err e = {0};
            rung_conv *l;
            if (!CHECK(rung_cpu_backend_open(&be, pools[t], cpu, &e) == RUNG_OK)) continue;
            const rung_tensor *tensor = i ? &w.sparse : &w.dense;
            if (CHECK(cpu_conv_open(be, &l, tensor, NULL, RUNG_STORE_STORED, &e) == RUNG_OK))
                cpu_conv(be, y.p, x.p, l, &a, NULL);
            cpu_conv_close(be, &l);
            rung_backend_close(&be);
            if (t == 0) memcpy(i ? first : want, y.p, count * sizeof *want);
            const double error = rel_l2(y.p, want, count);
            if (!CHECK(error <= c->tolerance) || !CHECK(!i || memcmp(first, y.p, count * sizeof *first) == 0))
                fprintf(stderr, "  %s conv %zux%zu %zu->%zu density %g: %g\n", rung_cpu_name(cpu), c->kernel, c->kernel,
                        c->ic, c->oc, c->density, error);
        }
    }
    free(want);
    free(first);
    guard_free(&x);
    guard_free(&y);
    release(&w);
}

static void convolutions(void) {
    static const conv_case cases[] = {
        {2, 64, 96, 3, 20, 1, 0.5, 3e-6},  {2, 64, 96, 3, 20, 1, 0.15, 1e-6}, {1, 100, 70, 3, 16, 1, 0.6, 3e-6},
        {2, 20, 33, 3, 9, 2, 0.5, 1e-6},   {2, 20, 33, 3, 9, 2, 0.1, 1e-6},   {1, 40, 50, 1, 13, 1, 0.4, 1e-6},
        {1, 40, 300, 1, 13, 1, 0.2, 1e-6},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) convolution(&cases[i]);
}

/* What keeps its bits, and how many bytes that is. */
static void memory(void) {
    weight w = make(RUNG_F6_E3M2, (const size_t[]){320, 1280}, 2, 0.5);
    const gemm_part part = {&w.sparse, NULL, 1}, dense = {&w.dense, NULL, 1};
    gemm_weights g;
    rung_err e = {0};
    for (size_t i = 0; i < LEVELS; i++) {
        CHECK(gemm_weights_open(&g, &part, 1, RUNG_STORE_STORED, levels[i], &e) == RUNG_OK && g.sparse && !g.panels);
        const double each = (double)(sparse_panels_bytes(g.sparse) + 320 * sizeof *g.scale) / (320 * 1280);
        if (!CHECK(each <= 0.52)) fprintf(stderr, "  %g bytes a weight with panels of %zu\n", each, g.nr);
        gemm_weights_close(&g);
    }
    CHECK(gemm_weights_open(&g, &part, 1, RUNG_STORE_F16, 0, &e) == RUNG_OK && !g.sparse && g.dtype == GEMM_F16);
    gemm_weights_close(&g);
    weight full = make(RUNG_F6_E2M3, (const size_t[]){320, 1280}, 2, 1); /* every element is there: a dense tensor */
    full.sparse.bitmap = NULL;
    const gemm_part e2m3 = {&full.sparse, NULL, 1};
    CHECK(gemm_weights_open(&g, &e2m3, 1, RUNG_STORE_STORED, 0, &e) == RUNG_OK && g.dtype == GEMM_E2M3);
    if (!CHECK(!g.sparse && g.panels && g.panel_bytes * (320 / g.nr) == 320 * 1280 / 4 * 3)) return;
    float row[1280];
    gemm_weights_row(&g, 5, 0, 1280, row);
    for (size_t i = 0; i < 1280; i++) CHECK(row[i] * g.scale[5] == full.numbers[5 * 1280 + i]);
    gemm_weights_close(&g);
    release(&full);
    const gemm_part mixed[2] = {part, dense};
    CHECK(gemm_weights_open(&g, mixed, 2, RUNG_STORE_STORED, 0, &e) == RUNG_OK && !g.sparse && g.n == 640);
    gemm_weights_close(&g);
    release(&w);
}

int main(void) {
    rung_err e = {0};
    for (int t = 0; t < POOLS; t++)
        if (!CHECK(rung_pool_open(&pools[t], t + 1, &e) == RUNG_OK)) return 1;
    for (size_t i = 0; i < LEVELS; i++) {
        const sparse_kernels *sk = sparse_kernels_for(levels[i]);
        if (levels[i] & ~rung_cpu_detect()) {
            fprintf(stderr, "SKIP %s: not on this machine\n", rung_cpu_name(levels[i]));
            continue;
        }
        if (!sk) continue;
        for (size_t d = 0; d < 4; d++)
            for (size_t f = 0; f < sizeof densities / sizeof *densities; f++)
                for (int by_columns = 0; by_columns <= 1; by_columns++)
                    pieces(sk, gemm_panel_width(levels[i]), dtypes[d], densities[f], by_columns);
        transposes(sk);
    }
    for (int i = 0; i < 120; i++) {
        const config c = random_config();
        check_config(&c);
    }
    convolutions();
    memory();
    for (int t = 0; t < POOLS; t++) rung_pool_close(&pools[t]);
    return check_result();
}
