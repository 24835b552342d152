/* diffusion/prompt_file.h - a file of prompts: the A1111 form, or JSON Lines with the same keys. */
#ifndef RUNG_PROMPT_FILE_H
#define RUNG_PROMPT_FILE_H
#include "diffusion/rung.h"

/* One line that asks for pictures. */
typedef struct {
    size_t line;          /* from 1 */
    char *text;           /* owned: the strings of `request` */
    rung_request request; /* the defaults with this line's keys over them */
    size_t pictures;      /* batch_size * n_iter: seeds request.seed, + 1, ... */
} prompt_line;

/* A line that could not be read. */
typedef struct {
    size_t line;
    char *message; /* owned: what was found and what was wanted */
} prompt_fault;

typedef struct {
    prompt_line *lines;
    size_t count;
    prompt_fault *faults;
    size_t fault_count;
} prompt_file;

/**
 * Reads `text` (UTF-8). Lines are trimmed; empty ones and those that start with # are skipped. Without "--" a line is a
 * prompt; with it, it is split as a shell would and read as --key value pairs, where prompt and negative_prompt take
 * all words up to the next --key; a line that starts with { is a JSON object with the same keys. Keys: prompt,
 * negative_prompt, seed, steps, cfg_scale, width, height, sampler_name, scheduler, clip_skip, eta, batch_size, n_iter.
 * A wrong line becomes a fault, the others go on. RUNG_ENOMEM. Source: A1111 scripts/prompts_from_file.py.
 */
rung_status prompt_file_parse(prompt_file *out, const char *text, const rung_request *defaults, rung_err *err);
/** A line for each of `n` prompts as they stand, numbered from 1. RUNG_ENOMEM. */
rung_status prompt_file_of(prompt_file *out, const char *const *prompts, size_t n, const rung_request *defaults,
                           rung_err *err);
void prompt_file_free(prompt_file *f);
#endif
