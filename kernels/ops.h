/* kernels/ops.h - the backend's operations as the networks call them: each does nothing in a dry run, or once the
 * arena is full, so that a network is one straight list of calls that also sizes its own scratch. Ask exec_check()
 * at the end. Meanings and shapes: kernels/backend.h. */
#ifndef RUNG_OPS_H
#define RUNG_OPS_H
#include "kernels/backend.h"

static inline bool exec_live(const rung_exec *x) { return x->arena->base && !x->arena->failed; }

static inline float *exec_floats(const rung_exec *x, size_t rows, size_t cols) {
    return arena_floats(x->arena, rows, cols);
}

/** RUNG_ENOMEM when the arena was too small; `what` says whose. */
static inline rung_status exec_check(const rung_exec *x, const char *what, rung_err *err) {
    if (!x->arena->failed) return RUNG_OK;
    return rung_fail(err, RUNG_ENOMEM, "%s: scratch holds %zu bytes, %zu were not enough", what, x->arena->cap,
                     x->arena->peak);
}

#define RUNG_OP(x, call)                                                                                               \
    do {                                                                                                               \
        if (exec_live(x)) (x)->be->ops->call;                                                                          \
    } while (0)

static inline void op_linear(const rung_exec *x, float *y, const float *in, size_t in_row, size_t m,
                             const rung_linear *l, const rung_epilogue *ep) {
    RUNG_OP(x, linear(x->be, y, in, in_row, m, l, ep));
}
static inline void op_conv(const rung_exec *x, float *y, const float *in, const rung_conv *c, const rung_conv_args *a,
                           const rung_epilogue *ep) {
    RUNG_OP(x, conv(x->be, y, in, c, a, ep));
}
static inline void op_attention(const rung_exec *x, const rung_attention_args *a) { RUNG_OP(x, attention(x->be, a)); }
static inline void op_layer_norm(const rung_exec *x, float *y, const float *in, size_t rows, size_t n, const float *w,
                                 const float *b, float eps, const float *mod_scale, const float *mod_shift,
                                 size_t mod_stride, size_t rows_per_sample) {
    RUNG_OP(x, layer_norm(x->be, y, in, rows, n, w, b, eps, mod_scale, mod_shift, mod_stride, rows_per_sample));
}
static inline void op_rms_norm(const rung_exec *x, float *y, const float *in, size_t rows, size_t n, const float *w,
                               float eps) {
    RUNG_OP(x, rms_norm(x->be, y, in, rows, n, w, eps));
}
static inline void op_group_norm(const rung_exec *x, float *y, const float *in, size_t batch, size_t pixels, size_t ch,
                                 size_t groups, const float *w, const float *b, float eps, rung_act act) {
    RUNG_OP(x, group_norm(x->be, y, in, batch, pixels, ch, groups, w, b, eps, act));
}
static inline void op_group_norm_affine(const rung_exec *x, float *scale, float *shift, const float *in, size_t batch,
                                        size_t pixels, size_t ch, size_t groups, const float *w, const float *b,
                                        float eps) {
    RUNG_OP(x, group_norm_affine(x->be, scale, shift, in, batch, pixels, ch, groups, w, b, eps));
}
static inline void op_act(const rung_exec *x, float *y, const float *in, size_t n, rung_act act) {
    RUNG_OP(x, act(x->be, y, in, n, act));
}
static inline void op_add(const rung_exec *x, float *y, const float *a, const float *b, size_t n) {
    RUNG_OP(x, add(x->be, y, a, b, n));
}
static inline void op_add_rows(const rung_exec *x, float *y, const float *in, const float *row, size_t rows,
                               size_t rows_row, size_t n) {
    RUNG_OP(x, add_rows(x->be, y, in, row, rows, rows_row, n));
}
static inline void op_copy2d(const rung_exec *x, float *dst, size_t dst_row, const float *src, size_t src_row,
                             size_t rows, size_t n) {
    RUNG_OP(x, copy2d(x->be, dst, dst_row, src, src_row, rows, n));
}
static inline void op_lookup(const rung_exec *x, float *y, const rung_table *t, const int32_t *ids, size_t rows) {
    RUNG_OP(x, lookup(x->be, y, t, ids, rows));
}
static inline void op_unpatchify(const rung_exec *x, float *y, const float *in, size_t batch, size_t gh, size_t gw,
                                 size_t p, size_t ch) {
    RUNG_OP(x, unpatchify(x->be, y, in, batch, gh, gw, p, ch));
}
static inline void op_sinusoids(const rung_exec *x, float *y, const float *t, size_t rows, size_t dim, bool flip,
                                double shift) {
    RUNG_OP(x, sinusoids(x->be, y, t, rows, dim, flip, shift));
}
/* Sums over ranks. A failure stays with the communicator: whoever runs the step asks for it at the end. */
static inline int exec_ranks(const rung_exec *x) { return x->comm ? x->comm->size : 1; }

static inline void op_reduce(const rung_exec *x, rung_transfer *t, float *buf, size_t n) {
    *t = 0;
    if (exec_live(x) && x->comm) (void)rung_comm_reduce(x->comm, t, buf, n, NULL);
}
static inline void op_wait(const rung_exec *x, rung_transfer *t) {
    if (exec_live(x) && x->comm) (void)rung_comm_wait(x->comm, t, NULL);
}
/* y += the sum that buf [n] becomes. What the communicator leaves to add is added block by block, while buf is at hand;
 * (buf + rest) first, which is the same on both ranks. */
static inline void op_wait_add(const rung_exec *x, float *y, rung_transfer *t, float *buf, size_t n) {
    enum { BLOCK = 1 << 16 };
    const float *rest = NULL;
    if (exec_live(x) && x->comm) (void)rung_comm_wait_rest(x->comm, t, &rest, NULL);
    const size_t block = rest ? (size_t)BLOCK : n;
    for (size_t i = 0; i < n; i += block) {
        const size_t k = n - i < block ? n - i : block;
        if (rest) op_add(x, buf + i, buf + i, rest + i, k);
        op_add(x, y + i, y + i, buf + i, k);
    }
}
static inline void op_upload(const rung_exec *x, void *dst, const void *src, size_t bytes) {
    RUNG_OP(x, upload(x->be, dst, src, bytes));
}
static inline void op_download(const rung_exec *x, void *dst, const void *src, size_t bytes) {
    RUNG_OP(x, download(x->be, dst, src, bytes));
}

/** A step between the two is made again while op_step_end gives true; *rec is the caller's (kernels/backend.h). */
static inline void op_step_begin(rung_backend *be, rung_recording **rec) {
    if (be->ops->step_begin) be->ops->step_begin(be, rec);
}
static inline bool op_step_end(rung_backend *be, rung_recording *rec) {
    return be->ops->step_end && be->ops->step_end(be, rec);
}
static inline void op_recording_close(rung_backend *be, rung_recording **rec) {
    if (be->ops->recording_close) be->ops->recording_close(be, rec);
}
#endif
