/* kernels/cuda/cuda_backend.c - the table, and the operations that are one kernel each. */
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/cuda_tc.h"

#define P(p) cuda_key_of(p)
#define F(f) cuda_key_bits(f)

static void device_layer_norm(rung_backend *be, float *y, const float *x, size_t rows, size_t n, const float *w,
                              const float *b, float eps, const float *mod_scale, const float *mod_shift,
                              size_t mod_stride, size_t rows_per_sample) {
    cuda_backend *c = cuda_of(be);
    const cuda_layer_norm_args a = {y, x, rows, n, w, b, eps, mod_scale, mod_shift, mod_stride, rows_per_sample};
    if (!CUDA_BEGIN(c, KEY_LAYER_NORM, P(y), P(x), rows, n, P(w), P(b), F(eps), P(mod_scale), P(mod_shift), mod_stride,
                    rows_per_sample))
        return;
    cuda_k_layer_norm(c->stream, &a);
    cuda_end(c, "layer_norm");
}

static void device_rms_norm(rung_backend *be, float *y, const float *x, size_t rows, size_t n, const float *w,
                            float eps) {
    cuda_backend *c = cuda_of(be);
    if (!CUDA_BEGIN(c, KEY_RMS_NORM, P(y), P(x), rows, n, P(w), F(eps))) return;
    cuda_k_rms_norm(c->stream, y, x, rows, n, w, eps);
    cuda_end(c, "rms_norm");
}

static bool group_stats(cuda_backend *c, cuda_group_args *a) {
    a->scratch = cuda_scratch(c, SCRATCH_STATS, cuda_k_group_scratch(a));
    if (a->scratch) cuda_k_group_stats(c->stream, a);
    return a->scratch != NULL;
}

static void device_group_norm(rung_backend *be, float *y, const float *x, size_t batch, size_t pixels, size_t ch,
                              size_t groups, const float *w, const float *b, float eps, rung_act act) {
    cuda_backend *c = cuda_of(be);
    cuda_group_args a = {x, batch, pixels, ch, groups, w, b, eps, NULL};
    if (!CUDA_BEGIN(c, KEY_GROUP_NORM, P(y), P(x), batch, pixels, ch, groups, P(w), P(b), F(eps), act)) return;
    if (group_stats(c, &a)) cuda_k_group_norm(c->stream, y, &a, act);
    cuda_end(c, "group_norm");
}

static void device_group_norm_affine(rung_backend *be, float *scale, float *shift, const float *x, size_t batch,
                                     size_t pixels, size_t ch, size_t groups, const float *w, const float *b,
                                     float eps) {
    cuda_backend *c = cuda_of(be);
    cuda_group_args a = {x, batch, pixels, ch, groups, w, b, eps, NULL};
    if (!CUDA_BEGIN(c, KEY_GROUP_AFFINE, P(scale), P(shift), P(x), batch, pixels, ch, groups, P(w), P(b), F(eps)))
        return;
    if (group_stats(c, &a)) cuda_k_group_affine(c->stream, scale, shift, &a);
    cuda_end(c, "group_norm_affine");
}

static void device_act(rung_backend *be, float *y, const float *x, size_t n, rung_act act) {
    cuda_backend *c = cuda_of(be);
    if (!CUDA_BEGIN(c, KEY_ACT, P(y), P(x), n, act)) return;
    cuda_k_act(c->stream, y, x, n, act);
    cuda_end(c, "act");
}

static void device_add(rung_backend *be, float *y, const float *a, const float *b, size_t n) {
    cuda_backend *c = cuda_of(be);
    if (!CUDA_BEGIN(c, KEY_ADD, P(y), P(a), P(b), n)) return;
    cuda_k_add(c->stream, y, a, b, n);
    cuda_end(c, "add");
}

static void device_add_rows(rung_backend *be, float *y, const float *x, const float *row, size_t rows, size_t rows_row,
                            size_t n) {
    cuda_backend *c = cuda_of(be);
    if (!CUDA_BEGIN(c, KEY_ADD_ROWS, P(y), P(x), P(row), rows, rows_row, n)) return;
    cuda_k_add_rows(c->stream, y, x, row, rows, rows_row, n);
    cuda_end(c, "add_rows");
}

static void device_copy2d(rung_backend *be, float *dst, size_t dst_row, const float *src, size_t src_row, size_t rows,
                          size_t n) {
    cuda_backend *c = cuda_of(be);
    if (!CUDA_BEGIN(c, KEY_COPY, P(dst), dst_row, P(src), src_row, rows, n)) return;
    cuda_k_copy2d(c->stream, dst, dst_row, src, src_row, rows, n);
    cuda_end(c, "copy2d");
}

static void device_unpatchify(rung_backend *be, float *y, const float *x, size_t batch, size_t gh, size_t gw, size_t p,
                              size_t ch) {
    cuda_backend *c = cuda_of(be);
    if (!CUDA_BEGIN(c, KEY_UNPATCHIFY, P(y), P(x), batch, gh, gw, p, ch)) return;
    cuda_k_unpatchify(c->stream, y, x, batch, gh, gw, p, ch);
    cuda_end(c, "unpatchify");
}

static void device_sinusoids(rung_backend *be, float *y, const float *t, size_t rows, size_t dim, bool flip,
                             double shift) {
    cuda_backend *c = cuda_of(be);
    if (!CUDA_BEGIN(c, KEY_SINUSOIDS, P(y), P(t), rows, dim, flip, F((float)shift))) return;
    cuda_k_sinusoids(c->stream, y, t, rows, dim, flip, shift);
    cuda_end(c, "sinusoids");
}

static void device_combine(rung_backend *be, float *y, const rung_term *terms, size_t count, float over, size_t n) {
    cuda_backend *c = cuda_of(be);
    uint64_t key[5 + 2 * RUNG_MOST_TERMS] = {KEY_COMBINE, P(y), count, F(over), n};
    for (size_t j = 0; j < count; j++) {
        key[5 + 2 * j] = F(terms[j].w);
        key[6 + 2 * j] = P(terms[j].x);
    }
    if (!cuda_begin(c, key, 5 + 2 * count)) return;
    cuda_k_combine(c->stream, y, terms, count, over, n);
    cuda_end(c, "combine");
}

static void device_normal(rung_backend *be, float *y, size_t n, uint64_t seed, uint64_t offset) {
    cuda_backend *c = cuda_of(be);
    if (!CUDA_BEGIN(c, KEY_NORMAL, P(y), n, seed, offset)) return;
    cuda_k_normal(c->stream, y, n, seed, offset);
    cuda_end(c, "normal");
}

static void device_attention(rung_backend *be, const rung_attention_args *a) {
    cuda_backend *c = cuda_of(be);
    if (!CUDA_BEGIN(c, KEY_ATTENTION, a->batch, a->heads, a->d, a->lq, a->lk, P(a->q), P(a->k), P(a->v), P(a->o),
                    a->q_row, a->k_row, a->v_row, a->o_row, a->q_batch, a->k_batch, a->v_batch, a->o_batch, F(a->scale),
                    P(a->key_bias), P(a->pair_bias), a->causal))
        return;
    void *scratch = cuda_scratch(c, SCRATCH_X, cuda_k_attention_scratch(a));
    if (scratch && a->batch && a->heads && a->lq && a->d) cuda_k_attention(c->stream, a, scratch, c->range);
    cuda_end(c, "attention");
}

const rung_backend_ops cuda_operations = {
    .name = "cuda",
    .on_device = true,
    .close = cuda_close,
    .sync = cuda_sync,
    .mem_alloc = cuda_alloc,
    .mem_free = cuda_free,
    .upload = cuda_upload,
    .download = cuda_download_to,
    .step_begin = cuda_step_begin,
    .step_end = cuda_step_end,
    .recording_close = cuda_recording_close,
    .linear_open = cuda_linear_open,
    .linear_close = cuda_linear_close,
    .conv_open = cuda_conv_open,
    .conv_close = cuda_conv_close,
    .table_open = cuda_table_open,
    .table_close = cuda_table_close,
    .linear = cuda_linear,
    .conv = cuda_conv,
    .attention = device_attention,
    .layer_norm = device_layer_norm,
    .rms_norm = device_rms_norm,
    .group_norm = device_group_norm,
    .group_norm_affine = device_group_norm_affine,
    .act = device_act,
    .add = device_add,
    .add_rows = device_add_rows,
    .copy2d = device_copy2d,
    .lookup = cuda_lookup,
    .unpatchify = device_unpatchify,
    .sinusoids = device_sinusoids,
    .combine = device_combine,
    .normal = device_normal,
};
