/* tests/test_ops_golden.c - operations against torch (golden: tools/goldens/ops.py), at every CPU level. */
#include <stdio.h>
#include <stdlib.h>

#include "assets/safetensors.h"
#include "tests/check.h"
#include "tests/cpu_levels.h"

static rung_safetensors *file;

/* The file's tensor "<group>.<name>"; without one *data is NULL. The caller frees. */
static rung_tensor load(const char *group, const char *name, float **data) {
    char full[96];
    snprintf(full, sizeof full, "%s.%s", group, name);
    const rung_tensor *t = rung_safetensors_find(file, full);
    *data = NULL;
    if (!t) return (rung_tensor){0};
    const size_t n = rung_tensor_count(t);
    *data = malloc(n * sizeof **data);
    CHECK(rung_tensor_to_f32(t, 0, n, *data, NULL) == RUNG_OK);
    return *t;
}

static void check_close(const char *what, unsigned cpu, const float *got, const float *want, size_t n) {
    if (!CHECK(want && n > 0 && close_all(got, want, n, 2e-6f)))
        fprintf(stderr, "  %s cpu=%s\n", what, rung_cpu_name(cpu));
}

static void test_attention(rung_backend *be, unsigned cpu, const char *group, bool causal) {
    float *q, *k, *v, *want, *scale, *key_bias, *pair_bias;
    const rung_tensor tq = load(group, "q", &q), tk = load(group, "k", &k);
    load(group, "v", &v);
    load(group, "o", &want);
    load(group, "scale", &scale);
    load(group, "key_bias", &key_bias);
    load(group, "pair_bias", &pair_bias);
    if (CHECK(q && k && v && want && scale)) {
        const size_t lq = tq.shape[1], lk = tk.shape[1], row = tq.shape[2] * tq.shape[3], n = tq.shape[0] * lq * row;
        float *o = malloc(n * sizeof *o);
        const rung_attention_args a = {.batch = tq.shape[0],
                                       .heads = tq.shape[2],
                                       .d = tq.shape[3],
                                       .lq = lq,
                                       .lk = lk,
                                       .q = q,
                                       .k = k,
                                       .v = v,
                                       .o = o,
                                       .q_row = row,
                                       .k_row = row,
                                       .v_row = row,
                                       .o_row = row,
                                       .q_batch = lq * row,
                                       .k_batch = lk * row,
                                       .v_batch = lk * row,
                                       .o_batch = lq * row,
                                       .scale = *scale,
                                       .key_bias = key_bias,
                                       .pair_bias = pair_bias,
                                       .causal = causal};
        be->ops->attention(be, &a);
        check_close(group, cpu, o, want, n);
        free(o);
    }
    free(q), free(k), free(v), free(want), free(scale), free(key_bias), free(pair_bias);
}

static void test_layer_norm(rung_backend *be, unsigned cpu) {
    float *x, *w, *b, *scale, *shift, *want, *modulated, *rms;
    const rung_tensor t = load("layer_norm", "x", &x);
    load("layer_norm", "w", &w), load("layer_norm", "b", &b);
    load("layer_norm", "scale", &scale), load("layer_norm", "shift", &shift);
    load("layer_norm", "y", &want), load("layer_norm", "modulated", &modulated), load("layer_norm", "rms", &rms);
    const size_t n = t.shape[2], rows = t.shape[0] * t.shape[1];
    float *y = malloc(rows * n * sizeof *y);
    be->ops->layer_norm(be, y, x, rows, n, w, b, 1e-6f, NULL, NULL, 0, 0);
    check_close("layer_norm", cpu, y, want, rows * n);
    be->ops->layer_norm(be, y, x, rows, n, NULL, NULL, 1e-6f, scale, shift, n, t.shape[1]);
    check_close("layer_norm, modulated", cpu, y, modulated, rows * n);
    be->ops->rms_norm(be, y, x, rows, n, w, 1e-6f);
    check_close("rms_norm", cpu, y, rms, rows * n);
    free(x), free(w), free(b), free(scale), free(shift), free(want), free(modulated), free(rms), free(y);
}

static void test_group_norm(rung_backend *be, unsigned cpu) {
    enum { GROUPS = 4 };
    float *x, *w, *b, *want, *silu;
    const rung_tensor t = load("group_norm", "x", &x);
    load("group_norm", "w", &w), load("group_norm", "b", &b);
    load("group_norm", "y", &want), load("group_norm", "silu", &silu);
    const size_t batch = t.shape[0], pixels = t.shape[1] * t.shape[2], ch = t.shape[3], n = batch * pixels * ch;
    float *y = malloc(n * sizeof *y), *scale = malloc(2 * batch * ch * sizeof *scale), *shift = scale + batch * ch;
    be->ops->group_norm(be, y, x, batch, pixels, ch, GROUPS, w, b, 1e-5f, RUNG_ACT_NONE);
    check_close("group_norm", cpu, y, want, n);
    be->ops->group_norm(be, y, x, batch, pixels, ch, GROUPS, w, b, 1e-5f, RUNG_ACT_SILU);
    check_close("group_norm, SiLU", cpu, y, silu, n);
    be->ops->group_norm_affine(be, scale, shift, x, batch, pixels, ch, GROUPS, w, b, 1e-5f);
    for (size_t i = 0; i < n; i++) {
        const size_t c = i / (pixels * ch) * ch + i % ch;
        y[i] = x[i] * scale[c] + shift[c];
    }
    check_close("group_norm_affine", cpu, y, want, n);
    free(x), free(w), free(b), free(want), free(silu), free(y), free(scale);
}

static void test_act(rung_backend *be, unsigned cpu, const char *name, rung_act act) {
    float *x, *want;
    const rung_tensor t = load("act", "x", &x);
    load("act", name, &want);
    be->ops->act(be, x, x, t.shape[0], act);
    check_close(name, cpu, x, want, t.shape[0]);
    free(x), free(want);
}

int main(void) {
    rung_err err = {0};
    if (!CHECK(rung_safetensors_open(&file, RUNG_TEST_DIR "/golden/ops/ops.safetensors", &err) == RUNG_OK)) {
        fprintf(stderr, "%s\n", err.msg);
        return check_result();
    }
    for (size_t i = 0; i < CPU_LEVELS; i++) {
        unsigned cpu;
        if (!cpu_level(i, &cpu)) continue;
        struct cpu_level_run r = cpu_run_open(cpu, 2);
        test_attention(r.be, cpu, "attention.plain", false);
        test_attention(r.be, cpu, "attention.causal", true);
        test_attention(r.be, cpu, "attention.long", false);
        test_attention(r.be, cpu, "attention.key_mask", false);
        test_attention(r.be, cpu, "attention.pair_bias", false);
        test_layer_norm(r.be, cpu);
        test_group_norm(r.be, cpu);
        test_act(r.be, cpu, "relu", RUNG_ACT_RELU);
        test_act(r.be, cpu, "silu", RUNG_ACT_SILU);
        test_act(r.be, cpu, "gelu", RUNG_ACT_GELU);
        test_act(r.be, cpu, "gelu_tanh", RUNG_ACT_GELU_TANH);
        test_act(r.be, cpu, "quick_gelu", RUNG_ACT_QUICK_GELU);
        cpu_run_close(&r);
    }
    rung_safetensors_close(&file);
    return check_result();
}
