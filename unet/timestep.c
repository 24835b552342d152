#include "unet/timestep.h"

float *timestep_sinusoids(const rung_exec *x, const float *t, size_t rows, size_t dim, bool flip, double shift) {
    float *y = exec_floats(x, rows, dim), *times = exec_floats(x, rows, 1);
    op_upload(x, times, t, rows * sizeof *times);
    op_sinusoids(x, y, times, rows, dim, flip, shift);
    return y;
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
