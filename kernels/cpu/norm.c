#include "kernels/cpu/norm.h"

#include "kernels/base/size.h"
#include "kernels/cpu/cpu_ops.h"

static void layer_norm_task(void *arg, size_t row, void *scratch) {
    (void)scratch;
    layer_norm_row_ref(arg, row);
}

void cpu_layer_norm(rung_backend *be, float *y, const float *x, size_t rows, size_t n, const float *w, const float *b,
                    float eps, const float *mod_scale, const float *mod_shift, size_t mod_stride,
                    size_t rows_per_sample) {
    layer_norm_args a = {y, x, w, b, rows, n, eps, mod_scale, mod_shift, mod_stride, rows_per_sample};
    rung_pool_run(cpu_of(be)->pool, layer_norm_task, &a, rows);
}

struct rms_job {
    float *y;
    const float *x, *w;
    size_t rows, n;
    float eps;
};

static void rms_norm_task(void *arg, size_t row, void *scratch) {
    const struct rms_job *j = arg;
    (void)scratch;
    rms_norm_row_ref(j->y + row * j->n, j->x + row * j->n, j->n, j->w, j->eps);
}

void cpu_rms_norm(rung_backend *be, float *y, const float *x, size_t rows, size_t n, const float *w, float eps) {
    struct rms_job j = {y, x, w, rows, n, eps};
    rung_pool_run(cpu_of(be)->pool, rms_norm_task, &j, rows);
}

static void group_norm_task(void *arg, size_t task, void *scratch) {
    const group_norm_args *a = arg;
    (void)scratch;
    group_norm_ref(a, task / a->groups, task % a->groups);
}

static void group_norm(rung_backend *be, group_norm_args *a) {
    rung_pool_run(cpu_of(be)->pool, group_norm_task, a, a->batch * a->groups);
}

void cpu_group_norm(rung_backend *be, float *y, const float *x, size_t batch, size_t pixels, size_t ch, size_t groups,
                    const float *w, const float *b, float eps, rung_act act) {
    group_norm_args a = {y, NULL, NULL, x, w, b, batch, pixels, ch, groups, eps, act};
    group_norm(be, &a);
}

void cpu_group_norm_affine(rung_backend *be, float *scale, float *shift, const float *x, size_t batch, size_t pixels,
                           size_t ch, size_t groups, const float *w, const float *b, float eps) {
    group_norm_args a = {NULL, scale, shift, x, w, b, batch, pixels, ch, groups, eps, RUNG_ACT_NONE};
    group_norm(be, &a);
}
