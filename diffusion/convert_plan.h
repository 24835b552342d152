/* diffusion/convert_plan.h - what rung convert makes of each tensor: the rule that docs/CONVERT.md writes down.
 * Internal to diffusion/. */
#ifndef RUNG_CONVERT_PLAN_H
#define RUNG_CONVERT_PLAN_H
#include "assets/model.h"
#include "kernels/sparse.h"

/* The role decides. VECTOR: norms, biases, modulation tables. END: a first or last layer of a network, a position
 * table. KEPT: the user said so. TABLE: embeddings to look up. TIME: layers that see the timestep. MATRIX: the rest. */
typedef enum {
    WEIGHT_VECTOR, /* stays as it is stored */
    WEIGHT_END,    /* 16 bits, dense */
    WEIGHT_KEPT,   /* 16 bits, dense */
    WEIGHT_TABLE,  /* few bits, never pruned */
    WEIGHT_TIME,   /* few bits, never pruned */
    WEIGHT_MATRIX, /* few bits, pruned */
} weight_role;

const char *weight_role_name(weight_role r);

/** The role of a float tensor of `part` ("unet", "vae", ...). keep: fnmatch patterns of "part/name", or of the name. */
weight_role weight_role_of(const char *part, const char *name, const rung_tensor *t, const char *const *keep,
                           size_t n_keep);

/* Sums over the weights of a tensor. */
typedef struct {
    double error, square;               /* sum of (stored - original)^2, of original^2 */
    double output_error, output_square; /* the same, each times the squared norm of the weight's input */
    uint64_t held;                      /* elements that are not +0 */
    uint64_t overflows;                 /* finite ones that became infinite */
} weight_sums;

/* One tensor on its way. */
typedef struct {
    const char *part, *name; /* borrowed; the name is the one in the new file */
    rung_weights *from;
    rung_tensor source; /* shape as in the new file */
    weight_role role;
    rung_dtype to;
    double sparsity;    /* of each row; 0: nothing is taken away */
    const double *norm; /* [row length] of the inputs, borrowed; NULL: not observed */
    rung_form form;
    size_t held; /* what the form was chosen for; elements for DENSE; items, with those that fill up, for TILED_CSL */
    /* Ids in the writer of the part's file; those it does not need: (size_t)-1. map: the bitmap, or the tiles. */
    size_t values, scale, map, positions, shape;
    bool done;
    weight_sums sums;
} convert_item;

typedef struct {
    convert_item *items; /* part by part, in name order */
    size_t count, cap;
    rung_weights **files; /* one for each part with weights */
    const char **parts;
    size_t n_files;
} convert_plan;

/* What a type's name asks for. */
typedef struct {
    const char *name; /* "fp6" */
    rung_dtype dtype;
    bool few_bits; /* five or six bits and a scale for each row */
} convert_type;

/** NULL when there is no type of that name. */
const convert_type *convert_type_find(const char *name);

/** Opens every part's weights and decides on every tensor; sparsity and form are still open. RUNG_EARG: a pattern
 *  that fits nothing; RUNG_EIO, RUNG_EFORMAT, RUNG_ENOMEM. */
rung_status convert_plan_open(convert_plan *p, rung_model *m, const convert_type *type, const char *const *keep,
                              size_t n_keep, rung_err *err);
void convert_plan_close(convert_plan *p); /* a zeroed struct is fine */

/** Are its numbers taken over as they are stored, bit by bit? (Its form may still change.) */
bool convert_is_copy(const convert_item *it);
#endif
