/* unet/residual.h - the stream of a transformer and the order in which its modules read it and add to it:
 *
 *     standard  x_i = x_{i-1} + h_i(x_{i-1})
 *     ladder    x_i = x_{i-1} + h_i(x_{i-2})            x_{-1} = x_{-2} = the embedding
 *     parallel  x_l = x_{l-1} + sum of layer l's h_i(x_{l-1})
 *
 * On one rank a module adds to the stream as it stores. Over ranks it leaves a partial sum whose reduce is started at
 * once; a standard module waits for it before it reads, a ladder module only for the one before, so that a reduce has a
 * whole module to run behind, and what follows a wait is one addition.
 * Source: arXiv 2501.06589, sec. 3.
 */
#ifndef RUNG_RESIDUAL_H
#define RUNG_RESIDUAL_H
#include "kernels/ops.h"

typedef struct {
    const rung_exec *x;
    size_t n;       /* floats of a stream */
    size_t parts;   /* modules that read and write as one: 1; parallel: those of a layer */
    size_t part;    /* how many of them have ended */
    bool any_stale; /* a module reads x_{i-2} */
    bool split;     /* partial sums and reduces */
    float *newest;  /* x_{i-1}; split: without what is still pending */
    float *other;   /* alone: x_{i-2}, or what a parallel layer adds up; NULL where nothing needs it */
    float *partial[2];
    rung_transfer transfer[2]; /* of partial[k] */
    size_t pending, next;      /* partials not added yet, newest last; where the next one goes */
} residual;

/* Where a module reads, and where it stores result + add (add NULL: the result alone). y may be `read` or `add`. */
typedef struct {
    const float *read, *add;
    float *y;
} residual_io;

/** Buffers f32 [rows, width] from x's arena. With x->comm the partial sums are taken even on one rank. */
void residual_open(residual *s, const rung_exec *x, size_t rows, size_t width, bool any_stale, size_t parts);
/** The embedding lies in s->newest: modules may begin. */
void residual_start(residual *s);
residual_io residual_begin(residual *s, bool stale);
/** summed: y holds this rank's part only. */
void residual_end(residual *s, bool summed);
/** The last stream, complete. */
const float *residual_finish(residual *s);
#endif
