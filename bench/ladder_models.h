/* bench/ladder_models.h - transformers to measure, as folders in diffusers layout under $TMPDIR: the shipped one with
 * its modules in another order, and large ones with random weights. */
#ifndef RUNG_LADDER_MODELS_H
#define RUNG_LADDER_MODELS_H
#include <stdbool.h>
#include <stddef.h>

#include "kernels/base/err.h"

typedef enum { ORDER_STANDARD, ORDER_LADDER, ORDER_PARALLEL, ORDERS } module_order;

/* Geometry of a random PixArt-shaped network. */
typedef struct {
    size_t heads, head_dim, layers, text;
} ladder_geometry;

/* A folder of folders, one for each order, over one file of weights. */
typedef struct {
    char folder[256];
} ladder_models;

/** `shipped`: the model whose transformer is taken; NULL: random weights (f16) of geometry g. RUNG_EIO, RUNG_ENOMEM. */
rung_status ladder_models_make(ladder_models *m, const char *shipped, const ladder_geometry *g, rung_err *err);
void ladder_models_path(const ladder_models *m, module_order order, char *path, size_t cap);
void ladder_models_remove(ladder_models *m); /* a zeroed one is fine */
#endif
