#include "unet/resblock.h"

#include <stdio.h>
#include <stdlib.h>

enum { NAME = 128 };

static const float *load_one_zero(rung_loader *l, size_t n) {
    float *v = calloc(2 * n, sizeof *v);
    if (!v) {
        if (!l->status) l->status = rung_fail(l->err, RUNG_ENOMEM, "residual block: %zu floats", 2 * n);
        return NULL;
    }
    for (size_t i = 0; i < n; i++) v[i] = 1;
    const float *loaded = load_computed(l, v, 2 * n);
    free(v);
    return loaded;
}

/* The shortcut is a partial sum over its input's channels, or rank 0's alone where these cannot be cut. */
static void load_shortcut(resblock *b, rung_loader *l, bool cut, const char *name) {
    char stem[NAME];
    snprintf(stem, sizeof stem, "%.100s.conv_shortcut", name);
    b->own_in = cut ? load_share_free(l, b->in) : (rung_share){0, b->in};
    b->shortcut = load_linear_cols(l, b->out, b->in, b->own_in, stem);
    if (cut && b->own_in.count == b->in && l->rank) b->shortcut = NULL;
}

void resblock_load(resblock *b, rung_loader *l, const unet_config *u, size_t in, size_t out, const char *name) {
    char stem[NAME];
    b->in = in;
    b->out = out;
    b->own = load_share(l, out, out / u->groups);
    b->norm1_w = load_vector(l, in, "%s.norm1.weight", name);
    b->norm1_b = load_vector(l, in, "%s.norm1.bias", name);
    snprintf(stem, sizeof stem, "%.100s.conv1", name);
    b->conv1 = load_conv_rows(l, out, in, 3, 3, b->own, stem);
    snprintf(stem, sizeof stem, "%.100s.time_emb_proj", name);
    b->time = load_linear_rows(l, out, u->time_dim, u->scale_shift ? 2 : 1, b->own, stem);
    b->norm2_w = load_vector_part(l, out, b->own, "%s.norm2.weight", name);
    b->norm2_b = load_vector_part(l, out, b->own, "%s.norm2.bias", name);
    snprintf(stem, sizeof stem, "%.100s.conv2", name);
    b->conv2 = load_conv_cols(l, out, out, 3, 3, b->own, stem);
    if (in != out) load_shortcut(b, l, b->own.count != out, name);
    if (u->scale_shift) b->one_zero = load_one_zero(l, b->own.count);
}

void unet_sum(const unet_step *s, float *y, size_t n, bool cut) {
    rung_transfer t;
    if (!cut) return;
    op_reduce(s->x, &t, y, n);
    op_wait(s->x, &t);
}

/* This rank's share of the groups: cuts lie between them. */
static size_t own_groups(const unet_step *s, const resblock *b) { return s->cfg->groups * b->own.count / b->out; }

/* The affine that conv2 applies on load, "default": GroupNorm of what conv1 left, the time already added. */
static void norm2_default(const unet_step *s, const resblock *b, const float *mid, size_t pixels, float *scale,
                          float *shift) {
    op_group_norm_affine(s->x, scale, shift, mid, s->run->batch, pixels, b->own.count, own_groups(s, b), b->norm2_w,
                         b->norm2_b, s->cfg->eps);
}

/* "scale_shift": GroupNorm in place, then the affine is (1 + time scale, time shift) of each picture. */
static void norm2_scale_shift(const unet_step *s, const resblock *b, float *mid, size_t pixels, float *scale,
                              float *shift) {
    const rung_mark mark = arena_mark(s->x->arena);
    const size_t n = b->own.count, batch = s->run->batch;
    float *time = exec_floats(s->x, s->times, 2 * n);
    op_linear(s->x, time, s->time, s->cfg->time_dim, s->times, b->time, NULL);
    op_add_rows(s->x, time, time, b->one_zero, s->times, 1, 2 * n);
    const size_t row = s->times == 1 ? 0 : 2 * n;
    op_copy2d(s->x, scale, n, time, row, batch, n);
    if (exec_live(s->x)) op_copy2d(s->x, shift, n, time + n, row, batch, n);
    op_group_norm(s->x, mid, mid, batch, pixels, n, own_groups(s, b), b->norm2_w, b->norm2_b, s->cfg->eps,
                  RUNG_ACT_NONE);
    arena_rewind(s->x->arena, mark);
}

/* conv1 of silu(norm1(in)), with the time embedding added in the "default" form. */
static void first_half(const unet_step *s, const resblock *b, float *mid, const float *in, const rung_conv_args *a) {
    const rung_mark mark = arena_mark(s->x->arena);
    const size_t pixels = a->h * a->w;
    float *scale = exec_floats(s->x, a->batch, b->in), *shift = exec_floats(s->x, a->batch, b->in);
    rung_epilogue ep = {0};
    if (!s->cfg->scale_shift) {
        float *time = exec_floats(s->x, s->times, b->own.count);
        op_linear(s->x, time, s->time, s->cfg->time_dim, s->times, b->time, NULL);
        ep = (rung_epilogue){
            .sample_add = time, .sample_add_stride = s->times == 1 ? 0 : b->own.count, .rows_per_sample = pixels};
    }
    op_group_norm_affine(s->x, scale, shift, in, a->batch, pixels, b->in, s->cfg->groups, b->norm1_w, b->norm1_b,
                         s->cfg->eps);
    rung_conv_args args = *a;
    args.in_scale = scale;
    args.in_shift = shift;
    op_conv(s->x, mid, in, b->conv1, &args, &ep);
    arena_rewind(s->x->arena, mark);
}

void resblock_run(const unet_step *s, const resblock *b, float *y, const float *in, size_t h, size_t w, float divisor) {
    const rung_mark mark = arena_mark(s->x->arena);
    const size_t batch = s->run->batch, pixels = h * w;
    rung_conv_args a = {.batch = batch,
                        .h = h,
                        .w = w,
                        .stride = 1,
                        .in_act = RUNG_ACT_SILU,
                        .pad_top = 1,
                        .pad_left = 1,
                        .pad_bottom = 1,
                        .pad_right = 1};
    const bool cut = b->own.count != b->out;
    float *mid = exec_floats(s->x, batch * pixels, b->own.count);
    first_half(s, b, mid, in, &a);

    float *scale = exec_floats(s->x, batch, b->own.count), *shift = exec_floats(s->x, batch, b->own.count);
    if (s->cfg->scale_shift)
        norm2_scale_shift(s, b, mid, pixels, scale, shift);
    else
        norm2_default(s, b, mid, pixels, scale, shift);
    a.in_scale = scale;
    a.in_shift = shift;
    const float *residual = b->in == b->out ? unet_residual(s, in, cut) : b->shortcut ? y : NULL;
    if (b->shortcut && exec_live(s->x))
        op_linear(s->x, y, in + b->own_in.first, b->in, batch * pixels, b->shortcut, NULL);
    op_conv(s->x, y, mid, b->conv2, &a, &(rung_epilogue){.residual = residual, .out_scale = 1 / divisor});
    unet_sum(s, y, batch * pixels * b->out, cut);
    arena_rewind(s->x->arena, mark);
}
