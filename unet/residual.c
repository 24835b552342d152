#include "unet/residual.h"

void residual_open(residual *s, const rung_exec *x, size_t rows, size_t width, bool any_stale, size_t parts) {
    *s = (residual){.x = x, .n = rows * width, .parts = parts, .any_stale = any_stale, .split = x->comm != NULL};
    s->newest = exec_floats(x, rows, width);
    if (s->split) {
        for (int i = 0; i < 2; i++) s->partial[i] = exec_floats(x, rows, width);
    } else if (any_stale || parts > 1) {
        s->other = exec_floats(x, rows, width);
    }
}

void residual_start(residual *s) {
    if (!s->split && s->any_stale) op_copy2d(s->x, s->other, s->n, s->newest, s->n, 1, s->n);
}

/* Adds the oldest partials to the stream until only `left` are under way. */
static void drain(residual *s, size_t left) {
    for (; s->pending > left; s->pending--) {
        const size_t oldest = (s->next + 2 - s->pending) % 2;
        op_wait_add(s->x, s->newest, &s->transfer[oldest], s->partial[oldest], s->n);
    }
}

residual_io residual_begin(residual *s, bool stale) {
    if (s->split) {
        float *y = s->partial[s->next];
        drain(s, stale ? 1 : 0);
        return (residual_io){.read = s->newest, .add = s->part ? y : NULL, .y = y};
    }
    if (s->parts > 1) return (residual_io){.read = s->newest, .add = s->part ? s->other : s->newest, .y = s->other};
    if (!s->any_stale) return (residual_io){.read = s->newest, .add = s->newest, .y = s->newest};
    /* x_i takes the place of x_{i-2}, which nobody reads again */
    return (residual_io){.read = stale ? s->other : s->newest, .add = s->newest, .y = s->other};
}

void residual_end(residual *s, bool summed) {
    if (++s->part < s->parts) return;
    s->part = 0;
    if (s->split) {
        s->transfer[s->next] = 0;
        if (summed) op_reduce(s->x, &s->transfer[s->next], s->partial[s->next], s->n);
        s->next = !s->next;
        s->pending++;
    } else if (s->other) {
        float *t = s->newest;
        s->newest = s->other;
        s->other = t;
    }
}

const float *residual_finish(residual *s) {
    drain(s, 0);
    return s->newest;
}
