#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/gemm.h"

enum { MAX_PARTS = 16 };

struct rung_linear {
    gemm_weights w;
};

rung_status cpu_linear_open(rung_backend *be, rung_linear **out, const rung_tensor *const *w,
                            const rung_tensor *const *bias, size_t parts, rung_store type, rung_err *err) {
    gemm_part stack[MAX_PARTS];
    *out = NULL;
    if (parts == 0 || parts > MAX_PARTS)
        return rung_fail(err, RUNG_EARG, "linear layer of %zu parts, wanted 1 to %d", parts, MAX_PARTS);
    for (size_t i = 0; i < parts; i++) stack[i] = (gemm_part){w[i], bias ? bias[i] : NULL, 1};
    rung_linear *l = calloc(1, sizeof *l);
    if (!l) return rung_fail(err, RUNG_ENOMEM, "linear layer: out of memory");
    const rung_status st = gemm_weights_open(&l->w, stack, parts, type, cpu_of(be)->cpu, err);
    if (st) {
        free(l);
        return st;
    }
    *out = l;
    return RUNG_OK;
}

void cpu_linear_close(rung_backend *be, rung_linear **l) {
    (void)be;
    if (*l) gemm_weights_close(&(*l)->w);
    free(*l);
    *l = NULL;
}

static void gather_row(const gemm_source *s, float *dst, size_t row, size_t k0, size_t kn) {
    const float *x = s->rows + row * s->stride + k0;
    for (size_t k = 0; k < kn; k += 16) __builtin_prefetch(x + s->stride + k); /* a piece of a row is no stream */
    memcpy(dst, x, kn * sizeof *dst);
}

void cpu_linear(rung_backend *be, float *y, const float *x, size_t x_row, size_t m, const rung_linear *l,
                const rung_epilogue *ep) {
    const gemm_source src = {gather_row, x, x_row};
    gemm_run(cpu_of(be), y, m, &l->w, &src, ep);
}
