/* assets/outfile.h - files that appear whole or not at all: written beside, flushed, renamed. What is there already and
 * is no regular file (a pipe, /dev/null) is written directly. */
#ifndef RUNG_OUTFILE_H
#define RUNG_OUTFILE_H
#include <stdio.h>

#include "kernels/base/err.h"

typedef struct {
    FILE *f; /* write here */
    char *path, *temp;
} rung_outfile;

/** RUNG_EIO with the path and the reason (no such folder, a directory, not writable). */
rung_status rung_outfile_open(rung_outfile *o, const char *path, rung_err *err);
/** Flush, fsync, rename. On failure (disk full) the temporary file is gone and RUNG_EIO says why. */
rung_status rung_outfile_commit(rung_outfile *o, rung_err *err);
void rung_outfile_abort(rung_outfile *o); /* also fine after a commit, and on a zeroed struct */
#endif
