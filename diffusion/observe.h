/* diffusion/observe.h - looks at what goes into a model's linear layers and convolutions while the engine draws: the
 * sum of squares of each input, which is what activation-aware pruning needs. The networks do not know of it: the
 * observer puts its own table of operations in front of the backend's. CPU backends only, for it reads the activations.
 */
#ifndef RUNG_OBSERVE_H
#define RUNG_OBSERVE_H
#include "kernels/backend.h"

typedef struct observer observer;

/** Watches `be`, whose layers are opened afterwards. RUNG_ENOMEM; RUNG_EDEVICE: not the CPU. */
rung_status observer_open(observer **out, rung_backend *be, rung_err *err);
/** Before or after the backend is closed. NULL and *o == NULL are fine. */
void observer_close(observer **o);

/** One weight tensor that was opened as a layer, or as a part of a stack. */
typedef struct {
    const char *name;  /* as in the file; observer_close frees it */
    size_t inputs;     /* elements of a row of the tensor, in its own order: [ic, kh, kw] for a convolution */
    const double *sum; /* f64 [inputs]: sum of squares over all rows that went in */
    uint64_t rows;     /* how many: tokens, or pixels of the output; 0: the layer never ran */
} observed_weight;

size_t observer_count(const observer *o);
observed_weight observer_get(const observer *o, size_t i);

/** RUNG_ENOMEM when an observation had to be left out. */
rung_status observer_check(const observer *o, rung_err *err);
#endif
