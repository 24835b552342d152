#include <stdlib.h>

#include "kernels/cuda/cuda_packed.h"

enum { MAX_PARTS = 16 };

struct rung_linear {
    cuda_matrix w;
    cuda_packed packed;
};

static rung_status open_weights(cuda_backend *c, rung_linear *l, const gemm_part *parts, size_t count, rung_store type,
                                rung_err *err) {
    weight_stack s;
    RUNG_TRY(weight_stack_of(&s, parts, count, type, err));
    if (cuda_packed_choose(&s) != CUDA_PACKED_NONE)
        return cuda_packed_open(c, &l->packed, &l->w, &s, parts, count, err);
    return cuda_matrix_open(c, &l->w, parts, count, type, false, err);
}

rung_status cuda_linear_open(rung_backend *be, rung_linear **out, const rung_tensor *const *w,
                             const rung_tensor *const *bias, size_t parts, rung_store type, rung_err *err) {
    gemm_part stack[MAX_PARTS];
    *out = NULL;
    if (parts == 0 || parts > MAX_PARTS)
        return rung_fail(err, RUNG_EARG, "linear layer of %zu parts, wanted 1 to %d", parts, MAX_PARTS);
    for (size_t i = 0; i < parts; i++) stack[i] = (gemm_part){w[i], bias ? bias[i] : NULL, 1};
    rung_linear *l = calloc(1, sizeof *l);
    if (!l) return rung_fail(err, RUNG_ENOMEM, "linear layer: out of memory");
    const rung_status st = open_weights(cuda_of(be), l, stack, parts, type, err);
    if (st) {
        free(l);
        return st;
    }
    *out = l;
    return RUNG_OK;
}

void cuda_linear_close(rung_backend *be, rung_linear **l) {
    if (*l) {
        cuda_packed_close(cuda_of(be), &(*l)->packed);
        cuda_matrix_close(cuda_of(be), &(*l)->w);
    }
    free(*l);
    *l = NULL;
}

void cuda_linear(rung_backend *be, float *y, const float *x, size_t x_row, size_t m, const rung_linear *l,
                 const rung_epilogue *ep) {
    static const rung_epilogue none = {0};
    cuda_backend *c = cuda_of(be);
    const cuda_matrix *w = &l->w;
    uint64_t key[6 + EPILOGUE_KEYS] = {KEY_LINEAR, cuda_key_of(y), cuda_key_of(x), x_row, m, cuda_key_of(l)};
    if (!ep) ep = &none;
    cuda_epilogue_key(key + 6, ep);
    if (m == 0 || !cuda_begin(c, key, sizeof key / sizeof *key)) return;
    const cuda_x_kind kind = cuda_matrix_kind(w);
    if (kind == CUDA_X_F32 && w->kp == w->channels) {
        cuda_gemm(c, y, x, x_row, m, w, ep);
    } else {
        void *narrow = cuda_scratch(c, SCRATCH_X, m * w->kp * cuda_x_bytes(kind));
        if (narrow) {
            cuda_k_narrow(c->stream, narrow, kind, w->kp, x, x_row, m, w->channels, c->range);
            if (l->packed.form != CUDA_PACKED_NONE)
                cuda_packed_run(c, y, narrow, m, &l->packed, w, ep);
            else
                cuda_gemm(c, y, narrow, w->kp, m, w, ep);
        }
    }
    cuda_end(c, "linear");
}
