/* diffusion/batch.h - many pictures from a prompt file: one model load, real batches, resumable, shareable. */
#ifndef RUNG_BATCH_H
#define RUNG_BATCH_H
#include "diffusion/prompt_file.h"

typedef enum { BATCH_FAULT, BATCH_SKIPPED, BATCH_PICTURE } batch_event_kind;

/* Told as it happens: a line that could not be read or drawn, a picture that was there already, a picture made. */
typedef struct {
    batch_event_kind kind;
    size_t line;
    const char *message; /* of a fault */
    const char *output;
    uint64_t seed;
    size_t done, total;        /* pictures, the skipped ones among them */
    double seconds_each, left; /* of those made so far */
} batch_event;

/** Anything but 0 ends the run after the pictures under way. */
typedef int batch_event_fn(void *user, const batch_event *e);

typedef struct {
    /* Path of each picture: {line}, {index} (from 1, within the line), {seed} and {prompt} (made safe) may stand in the
     * file's name. manifest.jsonl lies in the same folder, which is made when missing. */
    const char *output;
    size_t batch_size;          /* pictures in one denoiser batch; 0: chosen from the memory that is free */
    bool resume;                /* leave pictures that are there and were made with the same parameters */
    rung_progress_fn *progress; /* of the steps of a batch; anything but 0 ends the run */
    batch_event_fn *event;
    void *user; /* of both callbacks */
} batch_options;

typedef struct {
    size_t made, skipped, faults;
} batch_result;

/**
 * Draws every line of `file`. Pictures of equal size and settings run together. Several processes may work on one
 * folder: each picture is claimed by a lock, which ends with its process. Without `resume`, a picture that is there is
 * drawn again; two pictures of one name are an error before the first is drawn.
 * RUNG_EARG (template), RUNG_EIO, RUNG_ENOMEM, RUNG_ECANCELLED. Lines that fail are counted, not returned.
 */
rung_status batch_run(rung_engine *e, const prompt_file *file, const batch_options *o, batch_result *out,
                      rung_err *err);
#endif
