/* diffusion/infotext.h - generation parameters as A1111 writes them into a PNG. */
#ifndef RUNG_INFOTEXT_H
#define RUNG_INFOTEXT_H
#include "diffusion/rung.h"

typedef struct {
    const char *prompt, *negative_prompt; /* NULL or empty: left out */
    int steps;
    const char *sampler_label;  /* "Euler a" */
    const char *schedule_label; /* "Karras"; NULL: A1111's "Automatic", left out */
    float cfg_scale;
    uint64_t seed;
    size_t width, height;
    const char *model; /* name without folder; NULL: left out */
    int clip_skip;     /* 0 or 1: left out */
    rung_rng_kind rng;
    float eta; /* written where eta_set */
    bool eta_set;
    float guidance_rescale; /* 0: left out */
    const float *sigmas;    /* the request's own noise schedule */
    size_t n_sigmas;        /* 0: left out */
    bool literal;
    const char *weights; /* rung_infotext_weights's text; NULL or empty: left out */
} rung_infotext;

/** The text, UTF-8, malloc'd; NULL when out of memory. Values with a comma, colon, quote or newline become JSON
 *  strings, numbers are as short as possible. Source: A1111 modules/infotext_utils.py (the reader's rules). */
char *rung_infotext_write(const rung_infotext *t);

/** What the weights were changed by when the engine was opened (type, LoRAs), in the form of the last line; empty: by
 *  nothing. malloc'd; NULL when out of memory. */
char *rung_infotext_weights(const rung_options *o);

/** A1111's label for one of rung_schedule_name's names; NULL for NULL and "default". */
const char *rung_infotext_schedule(const char *schedule);
#endif
