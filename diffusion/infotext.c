#define _POSIX_C_SOURCE 200809L /* open_memstream */
#include "diffusion/infotext.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "assets/json.h"

const char *rung_infotext_schedule(const char *schedule) {
    static const struct {
        const char *name, *label;
    } labels[] = {
        {"karras", "Karras"},
        {"exponential", "Exponential"},
        {"polyexponential", "Polyexponential"},
        {"sgm_uniform", "SGM Uniform"},
        {"kl_optimal", "KL Optimal"},
        {"ays", "Align Your Steps"},
        {"simple", "Simple"},
        {"normal", "Normal"},
        {"ddim_uniform", "DDIM"},
        {"beta", "Beta"},
    };
    if (!schedule || strcmp(schedule, "default") == 0) return NULL;
    for (size_t i = 0; i < sizeof labels / sizeof *labels; i++)
        if (strcmp(labels[i].name, schedule) == 0) return labels[i].label;
    return schedule; /* one that A1111 does not have keeps our name */
}

/* A value of the last line: bare, or a JSON string where the reader would split it. */
static void put_value(FILE *f, const char *key, const char *value) {
    if (!strpbrk(value, ",:\n\"")) {
        fprintf(f, ", %s: %s", key, value);
        return;
    }
    cJSON *s = cJSON_CreateString(value);
    char *quoted = s ? cJSON_PrintUnformatted(s) : NULL;
    if (quoted) fprintf(f, ", %s: %s", key, quoted);
    cJSON_free(quoted);
    cJSON_Delete(s);
}

/* The stream's text, or NULL when memory ran out. */
static char *closed_text(FILE *f, char **text) {
    if (fclose(f) == 0) return *text;
    free(*text);
    return NULL;
}

char *rung_infotext_weights(const rung_options *o) {
    char *text = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);
    if (!f) return NULL;
    if (o->type) put_value(f, "Weights", o->type);
    for (size_t i = 0; i < o->n_loras; i++) {
        const char *slash = strrchr(o->loras[i].path, '/');
        put_value(f, "LoRA", slash ? slash + 1 : o->loras[i].path);
        fprintf(f, ", LoRA weight: %.6g", (double)o->loras[i].weight);
    }
    if (o->exact) fputs(", Exact: True", f);
    return closed_text(f, &text);
}

char *rung_infotext_write(const rung_infotext *t) {
    char *text = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);
    if (!f) return NULL;
    if (t->prompt && *t->prompt) fprintf(f, "%s\n", t->prompt);
    if (t->negative_prompt && *t->negative_prompt) fprintf(f, "Negative prompt: %s\n", t->negative_prompt);
    fprintf(f, "Steps: %d", t->steps);
    put_value(f, "Sampler", t->sampler_label);
    if (t->schedule_label) put_value(f, "Schedule type", t->schedule_label);
    fprintf(f, ", CFG scale: %.6g, Seed: %" PRIu64 ", Size: %zux%zu", (double)t->cfg_scale, t->seed, t->width,
            t->height);
    if (t->model) put_value(f, "Model", t->model);
    if (t->clip_skip > 1) fprintf(f, ", Clip skip: %d", t->clip_skip);
    if (t->eta_set) fprintf(f, ", Eta: %.6g", (double)t->eta);
    if (t->guidance_rescale > 0) fprintf(f, ", CFG rescale: %.6g", (double)t->guidance_rescale);
    for (size_t i = 0; i < t->n_sigmas; i++) fprintf(f, "%s%.9g", i ? "," : ", Sigmas: \"", (double)t->sigmas[i]);
    if (t->n_sigmas) fputc('"', f);
    if (t->literal) fputs(", Literal: True", f);
    fprintf(f, ", RNG: %s", t->rng == RUNG_RNG_CPU ? "CPU" : "NV");
    if (t->weights) fputs(t->weights, f);
    fprintf(f, ", Version: rung %s", rung_version());
    return closed_text(f, &text);
}
