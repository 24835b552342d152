/* assets/weights_view.h - how the tensors of a file become the tensors of a network: under other names, cut apart, or
 * left out. Internal to assets/. */
#ifndef RUNG_WEIGHTS_VIEW_H
#define RUNG_WEIGHTS_VIEW_H
#include "assets/weights.h"

/** Called once for each tensor of the file; adds what the network shall see of it, nothing, one or several tensors. */
typedef rung_status weights_map_fn(rung_weights *w, const char *name, const rung_tensor *t, void *arg, rung_err *err);

typedef struct {
    weights_map_fn *map; /* NULL: every tensor under its own name */
    void *arg;
    const char *const *unused; /* fnmatch patterns of names that may go unused, up to a NULL; NULL: none */
} weights_view;

/** rung_weights_open through a view. RUNG_EFORMAT also when two tensors get the same name. */
rung_status weights_open_view(rung_weights **out, const char *path, const weights_view *view, rung_err *err);

/** For weights_map_fn: `t` is copied, its data borrowed from the file. */
rung_status weights_add(rung_weights *w, const char *name, const rung_tensor *t, rung_err *err);

/** Tensor `i` becomes `t`, whose data is `owned`, from malloc: freed with w. On error `owned` stays the caller's. */
rung_status weights_replace(rung_weights *w, size_t i, const rung_tensor *t, void *owned, rung_err *err);

/** A tensor as a file has it, pieces and all; NULL when there is none. */
const rung_tensor *weights_file_tensor(const rung_weights *w, const char *name);

/** `memory`, from malloc, is freed with w; false, and it stays the caller's, without memory to note it. */
bool weights_keep(rung_weights *w, void *memory);

/** Part `i` of `parts` equal cuts along the rows. RUNG_ESHAPE when they are not equal, or not whole bytes. */
rung_status weights_cut_rows(const rung_weights *w, const char *name, const rung_tensor *t, size_t i, size_t parts,
                             rung_tensor *out, rung_err *err);
#endif
