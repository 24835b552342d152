/* diffusion/convert_folder.h - the new model's folder while it is made: everything is written to OUT.partial, which
 * becomes OUT by one rename. OUT.partial/.convert/ holds what a run needs to go on where another one was interrupted:
 *   request       what is converted, how, and the sizes and times of the model's files: the same or no going on
 *   plan          type, form and sparsity of each tensor, once all are measured
 *   journal       a line for each tensor that is written
 *   norms.safetensors  calibration, once it is done
 * Internal to diffusion/.
 */
#ifndef RUNG_CONVERT_FOLDER_H
#define RUNG_CONVERT_FOLDER_H
#include <stdio.h>

#include "assets/model.h"
#include "diffusion/convert_plan.h"

typedef struct {
    char *out, *partial;
    int lock; /* the request file, locked: one run at a time */
    FILE *journal;
    bool again; /* an interrupted run is continued */
} convert_folder;

/** `request`: one line that says everything the result depends on, the model's files apart. RUNG_EARG: OUT is empty, is
 *  there already, or lies in the model; OUT.partial is of another conversion, or no conversion's. RUNG_EIO. */
rung_status convert_folder_open(convert_folder *f, const char *out, const char *model, const char *request,
                                rung_err *err);
/** OUT.partial becomes OUT. */
rung_status convert_folder_finish(convert_folder *f, rung_err *err);
/** Removes OUT.partial and what is in it. */
void convert_folder_remove(convert_folder *f);
void convert_folder_close(convert_folder *f); /* leaves files as they are; a zeroed struct with lock -1 is fine */

/** Path in OUT.partial, folders made; malloc'd. */
rung_status convert_folder_path(const convert_folder *f, const char *part, const char *name, char **path,
                                rung_err *err);

/** Type, form, held and sparsity of every item, and whether they were there. */
rung_status convert_plan_save(const convert_folder *f, const convert_plan *p, rung_err *err);
rung_status convert_plan_load(const convert_folder *f, convert_plan *p, bool *found, rung_err *err);

/** Marks the items that the journal knows as done, with their sums; then, that `i` is. The tensor's bytes are on the
 *  disk before. */
rung_status convert_journal_read(convert_folder *f, convert_plan *p, rung_err *err);
rung_status convert_journal_add(convert_folder *f, const convert_plan *p, size_t i, rung_err *err);

/** Everything but weights: configs, tokenizer, scheduler, model_index.json without the parts that are left out,
 * licences. *left_out: their names, with ", " between, malloc'd; "" for none. */
rung_status convert_folder_texts(const convert_folder *f, rung_model *m, char **left_out, rung_err *err);
#endif
