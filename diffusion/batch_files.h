/* diffusion/batch_files.h - the folder that a batch fills: names, the lock of a run, claims of pictures, the manifest.
 */
#ifndef RUNG_BATCH_FILES_H
#define RUNG_BATCH_FILES_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "kernels/base/err.h"

/** Makes a folder and its parents; one that is there is fine. RUNG_EIO, RUNG_EARG (empty), RUNG_ENOMEM. */
rung_status batch_make_folder(const char *folder, rung_err *err);

/** Makes the folder of a template's pictures, and its parents. RUNG_EARG: a placeholder in the folder's name, or one
 * that does not exist; RUNG_EIO. *folder: malloc'd, "." when the template names none. */
rung_status batch_folder(const char *tmpl, char **folder, rung_err *err);

/** The path of one picture, malloc'd; NULL when out of memory. Of a prompt, letters and digits stay (UTF-8 too), the
 * rest becomes "_", cut at 80 bytes. */
char *batch_name(const char *tmpl, size_t line, size_t index, uint64_t seed, const char *prompt);

/* The processes that fill one folder now. The first one starts the run, others join it. The first one also removes what
 * a killed run left half-written. */
typedef struct {
    int fd;
    bool first;
    struct timespec start; /* of the run: what is newer was made by one of its processes */
} batch_run_lock;

rung_status batch_lock(batch_run_lock *l, const char *folder, rung_err *err);
void batch_unlock(batch_run_lock *l);

/** Is there a whole picture at `path` that was made with `parameters`? */
bool batch_picture_is_done(const char *path, const char *parameters);
/** Was it made by one of the run's processes? */
bool batch_picture_is_of_run(const char *path, const batch_run_lock *l);

/**
 * Takes the claim of a picture: *fd >= 0, or -1 when another process has it. The lock goes with the process that holds
 * it, so a killed one leaves an empty file at worst, which the next claim takes over. RUNG_EIO.
 */
rung_status batch_claim(const char *path, int *fd, rung_err *err);
void batch_release(const char *path, int fd);

/* manifest.jsonl: a line for each picture. Lines are told apart by their "output". */
typedef struct {
    char *path;
    char **outputs; /* sorted: what was listed when it was opened */
    size_t count;
} batch_manifest;

/** With `repair`, lines that a killed process left half-written and all but the last line of an output are dropped, and
 * so are the lines of `redo` (sorted): the file is replaced. RUNG_EIO, RUNG_ENOMEM. */
rung_status batch_manifest_open(batch_manifest *m, const char *folder, bool repair, char *const *redo,
                                size_t redo_count, rung_err *err);
bool batch_manifest_has(const batch_manifest *m, const char *output);
/** Appends one line in one write, so that processes do not mix theirs. RUNG_EIO. */
rung_status batch_manifest_append(const batch_manifest *m, const char *json, rung_err *err);
void batch_manifest_close(batch_manifest *m);
#endif
