/* diffusion/calibrate.h - the norms of every layer's inputs while a model draws the pictures of a prompt file. Internal
 * to diffusion/. */
#ifndef RUNG_CALIBRATE_H
#define RUNG_CALIBRATE_H
#include "diffusion/rung.h"

typedef struct {
    const char *model;
    int threads;
    const char *prompts;          /* text of a prompt file: prompt_file.h */
    const rung_request *defaults; /* of its lines; its progress callback can end the work */
} calibrate_options;

/**
 * Draws all pictures (not decoded to a file) and writes `path`: safetensors, for each weight that took part an F64
 * tensor of its name, [elements of a row]: the 2-norm of what went into that element, over all prompts, timesteps, both
 * halves of the guidance pair, tokens and pixels; each counts alike. The file appears whole or not at all.
 * RUNG_EFORMAT: a faulty line, no line, or two parts of the model with a tensor of the same name.
 */
rung_status calibrate(const char *path, const calibrate_options *o, rung_err *err);
#endif
