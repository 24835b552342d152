/* diffusion/convert.h - rung convert: any checkpoint that rung reads becomes a directory in diffusers layout, its
 * weights in another type, pruned if wished. docs/CONVERT.md says which weights become what. */
#ifndef RUNG_CONVERT_H
#define RUNG_CONVERT_H
#include "diffusion/rung.h"

typedef struct {
    const char *model;            /* as for rung_open */
    const char *out;              /* a folder that is not there yet */
    const char *type;             /* "fp6", "e2m3", "fp5", "f16", "bf16", "f32" */
    double sparsity;              /* 0 <= s < 1: share of the matrices' weights that goes; 0: none */
    const char *prompts;          /* text of a prompt file: prune by activations (Wanda); NULL: by magnitude */
    const rung_request *defaults; /* of those prompts; may be NULL without prompts */
    const char *const *keep;      /* fnmatch patterns of "part/tensor" or "tensor" that stay in 16 bits and dense */
    size_t n_keep;
    /* How layers with zeros lie in the file. NULL or "auto": each in the smallest form, dense where that saves less than a
     * twentieth; "measure": by bytes times the time that this machine needs; "dense"; "bitmap": where that is smaller than
     * dense; "tiled-csl": from 70% zeros on, below as "auto". F32 is always dense. */
    const char *form;
    int threads; /* 0: one for each processor */
    /** Called often; `done` and `total` count tensors; what: "calibrate", "measure", "write". Anything but 0 ends it
     *  with RUNG_ECANCELLED. NULL: never. */
    int (*progress)(void *user, const char *what, size_t done, size_t total);
    void *user;
} convert_options;

/* What became of one tensor. */
typedef struct {
    char *name;            /* "unet/conv_in.weight"; owned */
    char shape[100];       /* "[320, 4, 3, 3]" */
    const char *role;      /* "matrix", "table", "time", "end", "kept", "vector" */
    const char *from, *to; /* dtypes */
    const char *form;      /* "dense", "bitmap", "tiled-csl" */
    size_t weights, held;  /* elements; those that are not zero */
    size_t bytes_before, bytes;
    double sparsity;     /* that was asked of it */
    double error;        /* relative 2-norm of what the weights lost; NaN: taken over as they were */
    double output_error; /* of the layer's output, by the calibration; NaN: not known */
} convert_row;

typedef struct {
    convert_row *rows; /* every tensor, part by part, in name order */
    size_t count;
    size_t bytes_before, bytes; /* of all tensors */
    char *left_out;             /* parts of the model that rung does not read, "a, b" */
} convert_report;

/**
 * Makes `out`. It appears whole, by a rename of <out>.partial. When it is cancelled or killed, that folder stays and
 * the same call goes on where it was; the result is the same, byte for byte. On any other error the folder is removed.
 * Memory: of the model's tensors no more than a part of one is held, while no calibration runs.
 * RUNG_EARG: type, sparsity, out; RUNG_EIO, RUNG_EFORMAT, RUNG_ESHAPE: the model; RUNG_EIO: the disk; RUNG_ENOMEM;
 * RUNG_ECANCELLED.
 */
rung_status rung_convert(const convert_options *o, convert_report *report, rung_err *err);
void convert_report_free(convert_report *r); /* zeroed is fine */

/** The report as a table for people, or one JSON object; malloc'd, NULL without memory. */
char *convert_report_text(const convert_report *r, bool json);
#endif
