/* textenc/prompt_weights.h - A1111's prompt syntax: which words weigh how much, and which 75 tokens go together.
 * Source: stable-diffusion-webui 1.10, modules/prompt_parser.py parse_prompt_attention, modules/sd_hijack_clip.py
 * tokenize_line and process_tokens, modules/sd_emphasis.py EmphasisOriginal. */
#ifndef RUNG_PROMPT_WEIGHTS_H
#define RUNG_PROMPT_WEIGHTS_H
#include "textenc/unicode.h"
#include "textenc/vocab.h"

/* One run of characters of equal weight, or a BREAK. */
typedef struct {
    size_t start, n; /* in rung_prompt's text */
    double weight;
    bool is_break;
} prompt_piece;

typedef struct {
    rung_text text; /* without brackets, weights and escapes */
    prompt_piece *piece;
    size_t pieces, cap;
} rung_prompt;

/**
 * (a) weighs 1.1, [a] 1/1.1, (a:1.3) 1.3, nested ones multiply; \( \) \[ \] \\ are plain characters; a bracket that is
 * never closed reaches to the end; BREAK as a word of its own ends a chunk. As there, a BREAK inside weighted brackets
 * has lost its meaning and is a word. At least one piece. RUNG_EARG: a weight such as 1.2.3, which is no number, or one
 * that is not finite in f32. RUNG_ENOMEM.
 */
rung_status prompt_parse(rung_prompt *out, const char *utf8, size_t bytes, rung_err *err);
void prompt_free(rung_prompt *p);

/* Tokens with their weights, `room` (75) at most in a chunk: chunk i has id[i * room], ..., used[i] of them. */
typedef struct {
    size_t room;
    int32_t comma; /* id of a comma; -1: none */
    int32_t *id;
    float *weight;
    size_t *used;
    size_t chunks, cap;
    size_t open_used, last_comma; /* the chunk being filled, and the place of its last comma */
} prompt_chunks;

void chunks_start(prompt_chunks *c, size_t room, int32_t comma);
void chunks_free(prompt_chunks *c);
/** Appends tokens. Where a chunk is full, the last comma is less than 20 tokens back and the next token is none, the
 *  chunk ends after the comma and what followed it opens the next one. RUNG_ENOMEM. */
rung_status chunks_add(prompt_chunks *c, const int32_t *id, size_t n, double weight, rung_err *err);
/** Ends the chunk, be it empty. RUNG_ENOMEM. */
rung_status chunks_break(prompt_chunks *c, rung_err *err);
/** Ends the last chunk; there is at least one. RUNG_ENOMEM. */
rung_status chunks_finish(prompt_chunks *c, rung_err *err);

/**
 * z f32 [n, d]: row i times weight[i], then all of it times mean before / mean after. Nothing happens when every weight
 * is 1. RUNG_EARG: the weights cancel out, so that the mean cannot be restored.
 */
rung_status prompt_apply_weights(float *z, const float *weight, size_t n, size_t d, rung_err *err);
#endif
