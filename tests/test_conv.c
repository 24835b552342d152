/* tests/test_conv.c - convolutions on every instruction set that the machine has, against plain f64 loops. */
#include "tests/guard.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/fp6.h"
#include "kernels/base/size.h"
#include "kernels/cpu/cpu_ops.h"
#include "tests/check.h"

typedef struct {
    size_t oc, ic, kh, kw;
    rung_conv_args a;
    rung_dtype dtype; /* of the weight: F32, F16 or BF16 */
    rung_store store;
    bool bias, add, residual;
    rung_act act;
    float tolerance;
} config;

typedef struct {
    guard w, bias, x, scale, shift, add, residual, y;
    uint16_t *half;
    rung_tensor weight, bias_tensor;
    float *ref;
    size_t uh, uw, oh, ow;
} setting;

static uint64_t seed = 7;

static size_t pick(size_t n) {
    rnd(&seed);
    return (size_t)(seed >> 33) % n;
}

static guard random_floats(size_t n, float size) {
    guard g = guard_floats(n);
    for (size_t i = 0; i < n; i++) g.p[i] = rnd(&seed) * size;
    return g;
}

static double input_at(const config *c, const setting *s, size_t b, size_t py, size_t px, size_t ch) {
    const rung_conv_args *a = &c->a;
    if (py < a->pad_top || px < a->pad_left || py - a->pad_top >= s->uh || px - a->pad_left >= s->uw) return 0;
    const size_t iy = (py - a->pad_top) * a->h / s->uh, ix = (px - a->pad_left) * a->w / s->uw;
    double v = s->x.p[((b * a->h + iy) * a->w + ix) * c->ic + ch];
    if (a->in_scale) v = v * s->scale.p[b * c->ic + ch] + s->shift.p[b * c->ic + ch];
    return a->in_act == RUNG_ACT_SILU ? v / (1 + exp(-v)) : v;
}

static size_t outputs(const config *c, const setting *s) { return c->a.batch * s->oh * s->ow * c->oc; }

/* What output pixel i sees, in the order of the weight: ic, ky, kx. */
static void patch_at(const config *c, const setting *s, size_t i, double *patch) {
    const size_t ox = i % s->ow, oy = i / s->ow % s->oh, b = i / s->ow / s->oh;
    for (size_t ic = 0; ic < c->ic; ic++)
        for (size_t ky = 0; ky < c->kh; ky++)
            for (size_t kx = 0; kx < c->kw; kx++)
                *patch++ = input_at(c, s, b, oy * c->a.stride + ky, ox * c->a.stride + kx, ic);
}

static void reference(const config *c, setting *s) {
    const size_t k = c->ic * c->kh * c->kw, pixels = c->a.batch * s->oh * s->ow;
    double *patch = malloc(k * sizeof *patch);
    for (size_t i = 0; i < pixels; i++) {
        patch_at(c, s, i, patch);
        for (size_t oc = 0; oc < c->oc; oc++) {
            double v = c->bias ? s->bias.p[oc] : 0;
            for (size_t j = 0; j < k; j++) v += patch[j] * s->w.p[oc * k + j];
            if (c->add) v += s->add.p[i / s->ow / s->oh * c->oc + oc];
            if (c->act == RUNG_ACT_SILU) v = v / (1 + exp(-v));
            s->ref[i * c->oc + oc] = (float)(c->residual ? v + s->residual.p[i * c->oc + oc] : v);
        }
    }
    free(patch);
}

/* Rows of six-bit codes and a scale; packing them again gives the same codes. */
static void to_six_bits(float *w, size_t rows, size_t k) {
    for (size_t r = 0; r < rows; r++, w += k) {
        float top = 0;
        for (size_t i = 0; i < k; i++) top = fmaxf(top, fabsf(w[i]));
        for (size_t i = 0; i < k; i++) w[i] = rung_e3m2_to_f32(rung_f32_to_e3m2(w[i] / (top / 28))) * (top / 28);
    }
}

/* The weight as a tensor of its dtype; s->w becomes what that tensor says. */
static void make_weight(const config *c, setting *s) {
    const size_t count = c->oc * c->ic * c->kh * c->kw;
    s->w = random_floats(count, 1 / sqrtf((float)(c->ic * c->kh * c->kw)));
    if (c->store == RUNG_STORE_FP6) to_six_bits(s->w.p, c->oc, c->ic * c->kh * c->kw);
    s->half = malloc((count + 1) * sizeof *s->half);
    const bool f16 = c->dtype == RUNG_F16 || (c->dtype == RUNG_F32 && c->store == RUNG_STORE_F16);
    const bool bf16 = c->dtype == RUNG_BF16 || (c->dtype == RUNG_F32 && c->store == RUNG_STORE_BF16);
    for (size_t i = 0; i < count; i++) {
        s->half[i] = f16 ? rung_f32_to_f16(s->w.p[i]) : rung_f32_to_bf16(s->w.p[i]);
        if (f16) s->w.p[i] = rung_f16_to_f32(s->half[i]);
        if (bf16) s->w.p[i] = rung_bf16_to_f32(s->half[i]);
    }
    s->weight = (rung_tensor){.dtype = c->dtype, .ndim = 4, .shape = {c->oc, c->ic, c->kh, c->kw}};
    s->weight.data = c->dtype == RUNG_F32 ? (const void *)s->w.p : s->half;
}

static setting prepare(config *c) {
    setting s = {.uh = c->a.uh ? c->a.uh : c->a.h, .uw = c->a.uw ? c->a.uw : c->a.w};
    s.oh = (s.uh + c->a.pad_top + c->a.pad_bottom - c->kh) / c->a.stride + 1;
    s.ow = (s.uw + c->a.pad_left + c->a.pad_right - c->kw) / c->a.stride + 1;
    make_weight(c, &s);
    s.bias = random_floats(c->oc, 1);
    s.bias_tensor = (rung_tensor){.dtype = RUNG_F32, .ndim = 1, .shape = {c->oc}, .data = s.bias.p};
    s.x = random_floats(c->a.batch * c->a.h * c->a.w * c->ic, 1);
    s.scale = random_floats(c->a.batch * c->ic, 2);
    s.shift = random_floats(c->a.batch * c->ic, 1);
    s.add = random_floats(c->a.batch * c->oc, 1);
    s.residual = random_floats(outputs(c, &s), 1);
    s.y = guard_floats(outputs(c, &s));
    s.ref = malloc((outputs(c, &s) + 1) * sizeof *s.ref);
    if (c->a.in_scale) c->a.in_scale = s.scale.p, c->a.in_shift = s.shift.p;
    reference(c, &s);
    return s;
}

static void release(setting *s) {
    guard *const all[] = {&s->w, &s->bias, &s->x, &s->scale, &s->shift, &s->add, &s->residual, &s->y};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) guard_free(all[i]);
    free(s->half);
    free(s->ref);
}

static bool run(const config *c, setting *s, unsigned cpu, rung_pool *pool, bool exact) {
    rung_backend *be;
    rung_epilogue ep = {.act = c->act, .rows_per_sample = s->oh * s->ow};
    if (c->add) ep.sample_add = s->add.p, ep.sample_add_stride = c->oc;
    if (c->residual) ep.residual = s->residual.p;
    rung_err e = {0};
    rung_conv *conv;
    const rung_tensor *bias = c->bias ? &s->bias_tensor : NULL;
    if (!CHECK(rung_cpu_backend_open(&be, pool, cpu, &e) == RUNG_OK)) return false;
    rung_cpu_backend_exact(be, exact);
    const bool opened = CHECK(cpu_conv_open(be, &conv, &s->weight, bias, c->store, &e) == RUNG_OK);
    for (size_t i = 0; i < outputs(c, s); i++) s->y.p[i] = NAN;
    if (opened) cpu_conv(be, s->y.p, s->x.p, conv, &c->a, &ep);
    cpu_conv_close(be, &conv);
    rung_backend_close(&be);
    return CHECK(conv == NULL) && opened;
}

static void report(const config *c, unsigned cpu, int threads) {
    const rung_conv_args *a = &c->a;
    fprintf(stderr,
            "  %s threads=%d [%zu, %zu, %zu, %zu] on [%zu, %zu, %zu] to %zux%zu stride %zu pad %zu %zu %zu %zu\n",
            rung_cpu_name(cpu), threads, c->oc, c->ic, c->kh, c->kw, a->batch, a->h, a->w, a->uh, a->uw, a->stride,
            a->pad_top, a->pad_left, a->pad_bottom, a->pad_right);
}

static const unsigned levels[] = {0, RUNG_CPU_AVX2, RUNG_CPU_AVX2 | RUNG_CPU_AVX512};
enum { LEVELS = sizeof levels / sizeof *levels, POOLS = 3 };
static rung_pool *pools[POOLS];

static void check_config(config c) {
    setting s = prepare(&c);
    const size_t count = outputs(&c, &s);
    float *first = malloc((count + 1) * sizeof *first);
    for (size_t i = 0; i < LEVELS; i++) {
        if (levels[i] & ~rung_cpu_detect()) continue;
        for (int t = 0; t < POOLS; t++) {
            if (!run(&c, &s, levels[i], pools[t], false)) break;
            if (!CHECK(close_all(s.y.p, s.ref, count, c.tolerance))) report(&c, levels[i], t + 1);
            if (t == 0) memcpy(first, s.y.p, count * sizeof *first);
            if (!CHECK(memcmp(first, s.y.p, count * sizeof *first) == 0)) report(&c, levels[i], t + 1);
        }
    }
    free(first);
    release(&s);
}

static config random_config(void) {
    static const rung_dtype dtypes[] = {RUNG_F32, RUNG_F16, RUNG_BF16};
    static const float marker[1] = {0};
    config c = {.oc = 1 + pick(40), .ic = 1 + pick(pick(4) ? 20 : 130), .kh = 1 + pick(4), .kw = 1 + pick(4)};
    if (pick(2)) c.kh = c.kw = pick(2) ? 3 : 1;
    c.a = (rung_conv_args){.batch = 1 + pick(2), .h = 1 + pick(9), .w = 1 + pick(20), .stride = 1 + pick(3)};
    if (pick(3) == 0) c.a.uh = c.a.h + pick(c.a.h + 1), c.a.uw = c.a.w + pick(c.a.w + 1);
    const size_t uh = c.a.uh ? c.a.uh : c.a.h, uw = c.a.uw ? c.a.uw : c.a.w;
    c.a.pad_top = pick(c.kh), c.a.pad_left = pick(c.kw);
    c.a.pad_bottom = pick(c.kh) + (c.kh > uh + c.a.pad_top ? c.kh - uh - c.a.pad_top : 0);
    c.a.pad_right = pick(c.kw) + (c.kw > uw + c.a.pad_left ? c.kw - uw - c.a.pad_left : 0);
    if (pick(3) == 0) {
        c.a.in_scale = c.a.in_shift = marker; /* prepare() puts numbers there */
        c.a.in_act = pick(2) ? RUNG_ACT_SILU : RUNG_ACT_NONE;
    }
    c.dtype = dtypes[pick(3)];
    c.store = c.dtype == RUNG_F32 ? (rung_store)pick(RUNG_STORE_FP6 + 1) : RUNG_STORE_STORED;
    c.bias = pick(3) > 0;
    c.add = pick(3) == 0;
    c.residual = pick(3) == 0;
    c.act = pick(2) ? RUNG_ACT_SILU : RUNG_ACT_NONE;
    c.tolerance = 1e-5f;
    return c;
}

/* Wide enough for Winograd: every remainder of 4x4 and 6x6 tiles and of the slices and panels, enlarged and fused
 * inputs; from 12 on F(2x2), so many tiles that tasks share weights, so many channels that neither these nor the tiles
 * fit at once, the most channels and one more. From 17 pixels a side F(6x6) is taken, whose single elements are off by
 * up to ten times as much as F(4x4)'s. */
static config winograd_config(size_t i) {
    static const size_t sides[] = {16, 17, 18, 8, 22, 12}, widths[] = {64, 65, 96, 132, 68, 200};
    config c = random_config();
    c.kh = c.kw = 3;
    c.ic = widths[i % 6];
    c.oc = widths[(i + i / 6 + 1) % 6];
    c.a.batch = 1 + i % 2;
    c.a.h = sides[i % 6], c.a.w = sides[(i + 3) % 6];
    c.a.uh = c.a.uw = 0;
    if (i % 3 == 0) c.a.h /= 2, c.a.w /= 2, c.a.uh = sides[i % 6], c.a.uw = sides[(i + 3) % 6];
    c.a.stride = 1;
    c.a.pad_top = c.a.pad_left = c.a.pad_bottom = c.a.pad_right = 1;
    if (i % 4 == 3) c.a.pad_top = 0, c.a.pad_right = 2;
    if (i % 5 == 4) c.dtype = RUNG_F32, c.store = RUNG_STORE_FP6;
    if (i >= 12) {
        static const size_t special[][4] = {{6, 6, 96, 68},      {2, 33, 65, 64},  {4, 4, 64, 100}, {40, 42, 324, 64},
                                            {61, 55, 1200, 100}, {8, 8, 3840, 64}, {8, 8, 3841, 64}};
        c.a.h = special[i - 12][0], c.a.w = special[i - 12][1], c.ic = special[i - 12][2], c.oc = special[i - 12][3];
        c.a.uh = c.a.uw = 0;
        c.a.batch = i >= 15 ? 1 : 3;
        c.a.pad_top = c.a.pad_right = 1;
    }
    const size_t side = size_min(c.a.uh ? c.a.uh : c.a.h, c.a.uw ? c.a.uw : c.a.w);
    if (side >= 17) c.tolerance = i == 16 ? 1e-4f : 4e-5f; /* the largest of 300,000 errors */
    return c;
}

/* The switch: sums as the definition has them, so other bits than Winograd's, and both are right. */
static void exact_is_direct(void) {
    config c = winograd_config(0);
    setting s = prepare(&c);
    const size_t count = outputs(&c, &s);
    float *fast = malloc(count * sizeof *fast);
    for (size_t i = 1; i < LEVELS; i++) {
        if (levels[i] & ~rung_cpu_detect() || !run(&c, &s, levels[i], pools[1], false)) continue;
        memcpy(fast, s.y.p, count * sizeof *fast);
        if (!run(&c, &s, levels[i], pools[1], true)) continue;
        CHECK(memcmp(fast, s.y.p, count * sizeof *fast) != 0 && close_all(s.y.p, s.ref, count, 1e-5f));
        CHECK(rel_l2(s.y.p, s.ref, count) < rel_l2(fast, s.ref, count));
    }
    free(fast);
    release(&s);
}

/* A U-Net's residual blocks, one after another: x += conv(silu(norm(x))). What rounding does to the end of a chain is
 * what a picture sees of it. */
enum { CHAIN_BLOCKS = 24, CHAIN_CH = 64 };

static bool run_chain(float *x, size_t side, const float *weights, unsigned cpu, bool exact) {
    const size_t count = side * side * CHAIN_CH;
    float scale[CHAIN_CH], shift[CHAIN_CH], gain[CHAIN_CH];
    rung_backend *be;
    rung_err e = {0};
    if (!CHECK(rung_cpu_backend_open(&be, pools[1], cpu, &e) == RUNG_OK)) return false;
    rung_cpu_backend_exact(be, exact);
    for (size_t i = 0; i < CHAIN_CH; i++) gain[i] = 1;
    float *y = malloc(count * sizeof *y);
    for (size_t b = 0; b < CHAIN_BLOCKS; b++) {
        const rung_tensor w = {.dtype = RUNG_F32,
                               .ndim = 4,
                               .shape = {CHAIN_CH, CHAIN_CH, 3, 3},
                               .data = weights + b * CHAIN_CH * CHAIN_CH * 9};
        rung_conv *conv;
        if (!CHECK(be->ops->conv_open(be, &conv, &w, NULL, RUNG_STORE_STORED, &e) == RUNG_OK)) break;
        be->ops->group_norm_affine(be, scale, shift, x, 1, side * side, CHAIN_CH, 32, gain, NULL, 1e-5f);
        const rung_conv_args a = {.batch = 1,
                                  .h = side,
                                  .w = side,
                                  .stride = 1,
                                  .pad_top = 1,
                                  .pad_left = 1,
                                  .pad_bottom = 1,
                                  .pad_right = 1,
                                  .in_scale = scale,
                                  .in_shift = shift,
                                  .in_act = RUNG_ACT_SILU};
        const rung_epilogue ep = {.residual = x};
        be->ops->conv(be, y, x, conv, &a, &ep);
        memcpy(x, y, count * sizeof *x);
        be->ops->conv_close(be, &conv);
    }
    free(y);
    rung_backend_close(&be);
    return true;
}

/* 12 pixels a side go to F(4x4), 18 to F(6x6). */
static void error_of_a_chain(size_t side) {
    const size_t count = side * side * CHAIN_CH;
    guard w = random_floats((size_t)CHAIN_BLOCKS * CHAIN_CH * CHAIN_CH * 9, 2 / sqrtf(CHAIN_CH * 9));
    guard start = random_floats(count, 1);
    float *ref = malloc(count * sizeof *ref), *got = malloc(count * sizeof *got);
    memcpy(ref, start.p, count * sizeof *ref);
    run_chain(ref, side, w.p, 0, true);
    for (size_t i = 1; i < LEVELS; i++) {
        if (levels[i] & ~rung_cpu_detect()) continue;
        for (int exact = 0; exact <= 1; exact++) {
            memcpy(got, start.p, count * sizeof *got);
            run_chain(got, side, w.p, levels[i], exact);
            const double error = rel_l2(got, ref, count);
            fprintf(stderr, "chain of %d blocks, side %zu, %s%s: %.2g\n", CHAIN_BLOCKS, side, rung_cpu_name(levels[i]),
                    exact ? ", exact" : "", error);
            CHECK(error < (exact ? 2e-6 : 1e-5));
        }
    }
    free(ref);
    free(got);
    guard_free(&w);
    guard_free(&start);
}

/* A NaN, or an infinity, in one pixel: the pixels around it see it, none out of its tiles' reach does, and where sums
 * are direct only those around it. */
static void one_bad_pixel(float bad, bool exact) {
    enum { SIDE = 24, CH = 64, AT = 13, REACH = 6 };
    config c = {.oc = 8, .ic = CH, .kh = 3, .kw = 3, .dtype = RUNG_F32};
    c.a = (rung_conv_args){.batch = 1, .h = SIDE, .w = SIDE, .stride = 1};
    c.a.pad_top = c.a.pad_left = c.a.pad_bottom = c.a.pad_right = 1;
    setting s = prepare(&c);
    s.x.p[(AT * SIDE + AT) * CH + 5] = bad;
    for (size_t i = 0; i < LEVELS; i++) {
        if (levels[i] & ~rung_cpu_detect() || !run(&c, &s, levels[i], pools[1], exact)) continue;
        const int reach = exact || levels[i] == 0 ? 1 : REACH;
        for (int y = 0; y < SIDE; y++) {
            for (int x = 0; x < SIDE; x++) {
                const int far = abs(y - AT) > abs(x - AT) ? abs(y - AT) : abs(x - AT);
                const bool finite = isfinite(s.y.p[(y * SIDE + x) * 8]);
                if (far <= 1 ? !CHECK(!finite) : far > reach && !CHECK(finite)) report(&c, levels[i], 2);
            }
        }
    }
    release(&s);
}

/* No pictures: nothing is read or written. */
static void empty_batch(void) {
    config c = winograd_config(1);
    c.a.batch = 0;
    check_config(c);
}

static void refuses(void) {
    cpu_backend be = {.pool = pools[0], .cpu = rung_cpu_detect()};
    const float data[4] = {0};
    const rung_tensor flat = {.dtype = RUNG_F32, .ndim = 2, .shape = {2, 2}, .data = data};
    const rung_tensor hollow = {.dtype = RUNG_F32, .ndim = 4, .shape = {2, 2, 0, 3}, .data = data};
    const rung_tensor no_input = {.dtype = RUNG_F32, .ndim = 4, .shape = {2, 0, 3, 3}, .data = data};
    const rung_tensor *const bad[] = {&flat, &hollow, &no_input};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        rung_err e = {0};
        rung_conv *c = (rung_conv *)&be;
        CHECK(cpu_conv_open(&be.base, &c, bad[i], NULL, RUNG_STORE_STORED, &e) == RUNG_ESHAPE && c == NULL);
    }
}

int main(void) {
    rung_err e = {0};
    for (int t = 0; t < POOLS; t++)
        if (!CHECK(rung_pool_open(&pools[t], t + 1, &e) == RUNG_OK)) return 1;
    for (size_t i = 0; i < LEVELS; i++)
        if (levels[i] & ~rung_cpu_detect()) fprintf(stderr, "SKIP %s: not on this machine\n", rung_cpu_name(levels[i]));
    for (int i = 0; i < 250; i++) check_config(random_config());
    for (size_t i = 0; i < 19; i++) check_config(winograd_config(i));
    exact_is_direct();
    error_of_a_chain(12);
    error_of_a_chain(18);
    for (int exact = 0; exact <= 1; exact++) {
        one_bad_pixel(NAN, exact);
        one_bad_pixel(INFINITY, exact);
    }
    empty_batch();
    refuses();
    for (int t = 0; t < POOLS; t++) rung_pool_close(&pools[t]);
    return check_result();
}
