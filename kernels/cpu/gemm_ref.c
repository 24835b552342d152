/* The specification of gemm_run: f64 sums in the order of k, never tuned. */
#include <math.h>

#include "kernels/base/size.h"
#include "kernels/cpu/gemm.h"

enum { ROWS = 16, COLS = 256, DEPTH = 1024 }; /* of a task; its scratch is well below RUNG_POOL_SCRATCH */

struct ref_scratch {
    double acc[2][ROWS * COLS]; /* GEGLU: values and gates */
    float a[ROWS][DEPTH];
    float w[DEPTH];
};
_Static_assert(sizeof(struct ref_scratch) <= RUNG_POOL_SCRATCH, "the reference's scratch");

double gemm_act_ref(double v, rung_act act) {
    switch (act) {
    case RUNG_ACT_RELU:
        return v < 0 ? 0 : v; /* NaN stays NaN */
    case RUNG_ACT_SILU:
        return v / (1 + exp(-v));
    case RUNG_ACT_GELU:
        return v * 0.5 * (1 + erf(v * 0.70710678118654752));
    case RUNG_ACT_GELU_TANH:
        return v * 0.5 * (1 + tanh(0.79788456080286536 * (v + 0.044715 * v * v * v)));
    case RUNG_ACT_QUICK_GELU:
        return v / (1 + exp(-1.702 * v));
    case RUNG_ACT_NONE:
    case RUNG_ACT_GEGLU:
        break;
    }
    return v;
}

static double biased(const gemm_out *o, double v, size_t row, size_t col) {
    const rung_epilogue *ep = o->ep;
    if (o->w->scale) v *= o->w->scale[col];
    if (o->w->bias) v += o->w->bias[col];
    if (ep->sample_add) v += ep->sample_add[row / ep->rows_per_sample * ep->sample_add_stride + col];
    return v;
}

void store(const gemm_out *o, const double *acc, const double *gate_acc, size_t row0, size_t rows, size_t col0,
           size_t cols) {
    const rung_epilogue *ep = o->ep;
    for (size_t r = row0; r < row0 + rows; r++) {
        for (size_t c = col0; c < col0 + cols; c++) {
            double v = biased(o, *acc++, r, c);
            if (ep->act == RUNG_ACT_GEGLU)
                v *= gemm_act_ref(biased(o, *gate_acc++, r, c + o->y_cols), RUNG_ACT_GELU);
            else
                v = gemm_act_ref(v, ep->act);
            if (ep->gate) v *= ep->gate[r / ep->rows_per_sample * ep->gate_stride + c];
            if (ep->residual) v += ep->residual[r * o->y_cols + c];
            if (ep->out_scale != 0) v *= ep->out_scale;
            o->y[r * o->y_cols + c] = (float)v;
        }
    }
}

struct ref_job {
    gemm_out out;
    const gemm_source *src;
    size_t m, col_blocks;
};

static void product(const struct ref_job *j, struct ref_scratch *s, double *acc, size_t row0, size_t rows, size_t col0,
                    size_t cols) {
    const gemm_weights *w = j->out.w;
    for (size_t i = 0; i < rows * cols; i++) acc[i] = 0;
    for (size_t k0 = 0; k0 < w->k; k0 += DEPTH) {
        const size_t kn = size_min(DEPTH, w->k - k0);
        for (size_t r = 0; r < rows; r++) j->src->gather(j->src, s->a[r], row0 + r, k0, kn);
        for (size_t c = 0; c < cols; c++) {
            gemm_weights_row(w, col0 + c, k0, kn, s->w);
            for (size_t r = 0; r < rows; r++)
                for (size_t k = 0; k < kn; k++) acc[r * cols + c] += (double)s->a[r][k] * s->w[k];
        }
    }
}

static void ref_task(void *arg, size_t task, void *scratch) {
    const struct ref_job *j = arg;
    struct ref_scratch *s = scratch;
    const size_t row0 = task / j->col_blocks * ROWS, col0 = task % j->col_blocks * COLS;
    const size_t rows = size_min(ROWS, j->m - row0), cols = size_min(COLS, j->out.y_cols - col0);
    product(j, s, s->acc[0], row0, rows, col0, cols);
    if (j->out.ep->act == RUNG_ACT_GEGLU) product(j, s, s->acc[1], row0, rows, j->out.y_cols + col0, cols);
    store(&j->out, s->acc[0], s->acc[1], row0, rows, col0, cols);
}

void gemm_run_ref(cpu_backend *be, const gemm_out *out, size_t m, const gemm_source *src) {
    struct ref_job j = {.out = *out, .src = src, .m = m, .col_blocks = size_div_up(out->y_cols, COLS)};
    rung_pool_run(be->pool, ref_task, &j, size_div_up(m, ROWS) * j.col_blocks);
}
