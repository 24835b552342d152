#include "unet/timestep.h"

#include <math.h>

void timestep_sinusoids(float *out, const float *t, size_t n, size_t dim, bool flip, double shift) {
    const size_t half = dim / 2;
    for (size_t i = 0; i < n; i++, out += dim) {
        float *sines = out + (flip ? half : 0), *cosines = out + (flip ? 0 : half);
        for (size_t j = 0; j < half; j++) {
            const float exponent = (float)-log(10000) * (float)j / (float)((double)half - shift);
            const float angle = t[i] * (float)exp((double)exponent);
            sines[j] = (float)sin((double)angle);
            cosines[j] = (float)cos((double)angle);
        }
        if (dim % 2) out[dim - 1] = 0;
    }
}

void time_mlp_load(time_mlp *m, rung_loader *l, size_t in, size_t out, const char *name) {
    m->in = in;
    m->out = out;
    m->linear_1 = load_linear(l, out, in, LOAD_BIAS, "%s.linear_1", name);
    m->linear_2 = load_linear(l, out, out, LOAD_BIAS, "%s.linear_2", name);
}

void time_mlp_run(const rung_exec *x, const time_mlp *m, float *y, const float *sinusoids, size_t rows,
                  const float *add, size_t add_stride) {
    const rung_mark mark = arena_mark(x->arena);
    float *hidden = exec_floats(x, rows, m->out);
    op_linear(x, hidden, sinusoids, m->in, rows, m->linear_1, &(rung_epilogue){.act = RUNG_ACT_SILU});
    op_linear(x, y, hidden, m->out, rows, m->linear_2,
              &(rung_epilogue){.sample_add = add, .sample_add_stride = add_stride, .rows_per_sample = 1});
    arena_rewind(x->arena, mark);
}

size_t timestep_rows(const float *t, size_t n) {
    if (!t) return n;
    for (size_t i = 1; i < n; i++)
        if (t[i] != t[0]) return n;
    return 1;
}
