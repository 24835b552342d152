#include "unet/attn_layer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { NAME = 160 };

/* Whole heads for this rank, and the projection back from them. */
static rung_share load_common(attn_layer *a, rung_loader *l, size_t width, size_t heads) {
    a->width = width;
    a->head_dim = width / heads;
    const rung_share own = load_share(l, width, a->head_dim);
    a->own = own.count;
    return own;
}

static void load_out(attn_layer *a, rung_loader *l, rung_share own, const char *prefix) {
    char name[NAME + 16];
    snprintf(name, sizeof name, "%sto_out.0", prefix);
    a->out = load_linear_cols(l, a->width, a->width, own, name);
}

void attn_load_self(attn_layer *a, rung_loader *l, size_t width, size_t heads, load_bias bias, const char *name) {
    static const char *const names[] = {"to_q", "to_k", "to_v"};
    char prefix[NAME];
    snprintf(prefix, sizeof prefix, "%.140s.", name);
    const rung_share own = load_common(a, l, width, heads);
    a->qkv = load_linear_stack_rows(l, width, width, own, bias, prefix, names, 3);
    load_out(a, l, own, prefix);
}

void attn_load_cross(attn_layer *a, rung_loader *l, size_t width, size_t heads, size_t context, load_bias bias,
                     const char *name, size_t *kv_width) {
    static const char *const q_names[] = {"to_q"}, *const names[] = {"to_k", "to_v"};
    char prefix[NAME];
    snprintf(prefix, sizeof prefix, "%.140s.", name);
    const rung_share own = load_common(a, l, width, heads);
    a->q = load_linear_stack_rows(l, width, width, own, bias, prefix, q_names, 1);
    a->kv = load_linear_stack_rows(l, width, context, own, bias, prefix, names, 2);
    load_out(a, l, own, prefix);
    a->kv_at = *kv_width;
    *kv_width += 2 * a->own;
}

static float *text_kv(const attn_layer *a, const network_run *r) {
    return r->kv ? r->kv + a->kv_at * r->batch * r->n_ctx : NULL;
}

void attn_prepare(const rung_exec *x, const attn_layer *a, const network_run *r, const float *ctx, size_t context) {
    if (a->kv) op_linear(x, text_kv(a, r), ctx, context, r->batch * r->n_ctx, a->kv, NULL);
}

void attn_run(const rung_exec *x, const attn_layer *a, const network_run *r, const attn_io *io) {
    const rung_mark mark = arena_mark(x->arena);
    const size_t n = a->own, rows = r->batch * io->tokens;
    const bool cross = a->qkv == NULL;
    const size_t q_row = cross ? n : 3 * n, kv_row = cross ? 2 * n : 3 * n, lk = cross ? r->n_ctx : io->tokens;
    float *q = exec_floats(x, rows, q_row);
    float *o = exec_floats(x, rows, n);
    op_linear(x, q, io->in, a->width, rows, cross ? a->q : a->qkv, NULL);
    if (exec_live(x)) {
        const float *k = cross ? text_kv(a, r) : q + n;
        const rung_attention_args args = {
            .batch = r->batch,
            .heads = n / a->head_dim,
            .d = a->head_dim,
            .lq = io->tokens,
            .lk = lk,
            .q = q,
            .k = k,
            .v = k + n,
            .o = o,
            .q_row = q_row,
            .k_row = kv_row,
            .v_row = kv_row,
            .o_row = n,
            .q_batch = io->tokens * q_row,
            .k_batch = lk * kv_row,
            .v_batch = lk * kv_row,
            .o_batch = io->tokens * n,
            .scale = (float)(1 / sqrt((double)a->head_dim)),
            .key_bias = io->masked ? r->key_bias : NULL,
        };
        op_attention(x, &args);
    }
    op_linear(
        x, io->y, o, n, rows, a->out,
        &(rung_epilogue){
            .gate = io->gate, .gate_stride = io->gate_stride, .residual = io->residual, .rows_per_sample = io->tokens});
    arena_rewind(x->arena, mark);
}

rung_status attn_key_bias(const rung_exec *x, const rung_denoiser_cond *c, float **bias, rung_err *err) {
    *bias = NULL;
    if (!c->mask) return RUNG_OK;
    const size_t n = c->batch * c->n_ctx;
    *bias = exec_floats(x, c->batch, c->n_ctx);
    float *host = malloc(n * sizeof *host);
    if (!host) return rung_fail(err, RUNG_ENOMEM, "text mask of %zu rows", n);
    for (size_t i = 0; i < n; i++) host[i] = c->mask[i] ? 0.0f : -10000.0f;
    op_upload(x, *bias, host, n * sizeof *host);
    free(host);
    return RUNG_OK;
}
