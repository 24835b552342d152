#define _GNU_SOURCE /* getopt_long, asprintf */
#include "diffusion/options.h"

#include <errno.h>
#include <float.h>
#include <getopt.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

typedef enum { TEXT, INTEGER, REAL, SEED, FLAG, CHOICE, INTEGERS, REALS, LORA, KEEP, COMMAND } value_kind;

typedef struct {
    const char *name;
    char letter; /* 0: long form only */
    value_kind kind;
    size_t at;         /* offset in cli_options */
    size_t set_at;     /* offset of the bool that says it was given; 0: none (`command` lies there) */
    double lo, hi;     /* range of numbers; COMMAND: lo is the command */
    const char *value; /* name of the value in --help; CHOICE: the words, separated by | */
    const char *help;  /* NULL: an alias, not listed */
} option_row;

#define AT(field) offsetof(cli_options, field)

static const option_row rows[] = {
    {"model", 'm', TEXT, AT(model), 0, 0, 0, "PATH",
     "directory in diffusers layout, or one .safetensors (SD1.x, SD2.x); default: the icon model"},
    {"prompt", 'p', TEXT, AT(prompt), 0, 0, 0, "TEXT", "what to draw; also the word after the options"},
    {"negative-prompt", 'n', TEXT, AT(negative_prompt), 0, 0, 0, "TEXT", "what to keep away from"},
    {"output", 'o', TEXT, AT(output), 0, 0, 0, "FILE", "PNG to write, %d is the picture's number (rung-SEED.png)"},
    {"width", 'W', INTEGER, AT(width), 0, 1, 16384, "N", "pixels (the model's own size)"},
    {"height", 'H', INTEGER, AT(height), 0, 1, 16384, "N", "pixels"},
    {"steps", 0, INTEGERS, AT(steps), 0, 1, 10000, "N", "sampler steps (20, or what the model says)"},
    {"cfg-scale", 0, REALS, AT(cfg_scale), 0, 0, 1000, "X", "guidance scale; 1 and less: none, half the work"},
    {"guidance-rescale", 0, REAL, AT(guidance_rescale), 0, 0, 1, "X",
     "pull strong guidance back to natural contrast (0)"},
    {"guidance", 0, REAL, AT(guidance), AT(guidance_set), 0, 1000, "X", "distilled guidance, for models that have it"},
    {"seed", 's', SEED, AT(seed), 0, 0, 0, "N", "seed (42); negative: a random one, which is printed"},
    {"batch-count", 'b', INTEGER, AT(batch_count), 0, 1, 100000, "N", "pictures, seeds N, N+1, ... (1)"},
    {"batch-size", 0, INTEGER, AT(batch_size), 0, 1, 64, "N", "batch: pictures drawn together (by free memory)"},
    {"resume", 0, FLAG, AT(resume), 0, 0, 0, NULL, "batch: leave the pictures that are there and whole"},
    {"sampler", 0, TEXT, AT(sampler), 0, 0, 0, "NAME", "the model's own, or one of the list below"},
    {"sampling-method", 0, TEXT, AT(sampler), 0, 0, 0, NULL, NULL},
    {"scheduler", 0, TEXT, AT(scheduler), 0, 0, 0, "NAME", "noise schedule: the model's own, or one of the list below"},
    {"sigmas", 0, REALS, AT(sigmas), 0, 0, FLT_MAX, "A,B,C", "a noise schedule of your own, falling"},
    {"prompts", 0, TEXT, AT(prompt_file), 0, 0, 0, "FILE", "compare: a prompt file, in the form of batch"},
    {"default", 0, FLAG, AT(preset), 0, 0, 0, NULL, "compare: over the prompt that comes with it"},
    {"reference", 0, TEXT, AT(reference), 0, 0, 0, "NAME:N",
     "compare: sampler and steps to measure against (dpm++2m:200)"},
    {"eta", 0, REAL, AT(eta), AT(eta_set), 0, 100, "X", "noise that a sampler adds back (the sampler's own)"},
    {"clip-skip", 0, INTEGER, AT(clip_skip), 0, 1, 64, "N", "CLIP layer to read, counted from the last (1)"},
    {"literal", 0, FLAG, AT(literal), 0, 0, 0, NULL, "take the prompt as it stands: no (weights), no chunks"},
    {"rng", 0, CHOICE, AT(rng), 0, 0, 0, "cpu|cuda",
     "whose random numbers a seed means: torch's CPU (default) or CUDA"},
    {"threads", 't', INTEGER, AT(threads), 0, 1, 512, "N", "threads (one for each processor)"},
    {"parallel", 0, TEXT, AT(parallel_text), 0, 0, 0, "HOW",
     "under mpirun: tp=N,cfg=2,batch (pictures shared out, else both halves)"},
    {"type", 0, CHOICE, AT(type), 0, 0, 0, "f32|bf16|f16|fp6|e2m3|fp5",
     "what the weights are kept as (as stored); e2m3, fp5: convert"},
    {"sparsity", 0, REAL, AT(sparsity), 0, 0, 0.99, "X", "convert: the share of the weights that goes (0)"},
    {"calibrate", 0, TEXT, AT(calibrate), 0, 0, 0, "FILE",
     "convert: a prompt file; prune by what these pictures need of each weight"},
    {"form", 0, CHOICE, AT(form), 0, 0, 0, "auto|measure|dense|bitmap|tiled-csl",
     "convert: how pruned tensors lie in the file (auto: by bytes)"},
    {"keep", 0, KEEP, AT(keep), 0, 0, 0, "PATTERN",
     "convert: part/tensors that stay in 16 bits, like 'unet/*.to_out.*'; several times"},
    {"backend", 0, CHOICE, AT(backend), 0, 0, 0, "cpu|cuda", "what computes (cpu)"},
    {"device", 0, INTEGER, AT(device), 0, 0, 1023, "N", "which GPU, with --backend cuda (0)"},
    {"devices", 0, FLAG, AT(devices), 0, 0, 0, NULL, "info: the processor and the GPUs in place of a model"},
    {"lora", 0, LORA, AT(loras), 0, 0, 0, "FILE:WEIGHT", "merge a LoRA at load; may be given several times"},
    {"exact", 0, FLAG, AT(exact), 0, 0, 0, NULL, "every convolution as it is defined: no Winograd; slower"},
    {"vae-tiling", 0, FLAG, AT(vae_tiling), 0, 0, 0, NULL, "decode in strips at any size: less memory, more time"},
    {"noise", 0, TEXT, AT(noise), 0, 0, 0, "F.npy", "initial standard normal latents, f32 [1, C, h, w]"},
    {"embeds", 0, TEXT, AT(embeds), 0, 0, 0, "F.npy", "embeddings f32 [1, n, d] in place of the prompt"},
    {"neg-embeds", 0, TEXT, AT(neg_embeds), 0, 0, 0, "F.npy", "the same for the negative prompt"},
    {"pooled-embeds", 0, TEXT, AT(pooled_embeds), 0, 0, 0, "F.npy",
     "pooled embeddings f32 [1, d], for models with them"},
    {"neg-pooled-embeds", 0, TEXT, AT(neg_pooled_embeds), 0, 0, 0, "F.npy", "the same for the negative prompt"},
    {"save-embeds", 0, TEXT, AT(save_embeds), 0, 0, 0, "F.npy", "write the prompt's embeddings"},
    {"save-latents", 0, TEXT, AT(save_latents), 0, 0, 0, "F.npy", "write the final latents, before the VAE"},
    {"verbose", 'v', FLAG, AT(verbose), 0, 0, 0, NULL, "say what is loaded and how long each stage took"},
    {"quiet", 'q', FLAG, AT(quiet), 0, 0, 0, NULL, "errors only"},
    {"json", 0, FLAG, AT(json), 0, 0, 0, NULL, "one JSON object a picture on standard output"},
    {"version", 0, COMMAND, AT(command), 0, CLI_VERSION, 0, NULL, "print the version"},
    {"help", 'h', COMMAND, AT(command), 0, CLI_HELP, 0, NULL, "print this"},
};
enum { ROWS = sizeof rows / sizeof *rows };

static bool takes_value(const option_row *r) { return r->kind != FLAG && r->kind != COMMAND; }

static rung_status parse_real(const option_row *r, const char *s, double *out, rung_err *err) {
    char *end;
    errno = 0;
    const double v = strtod(s, &end);
    if (end == s || *end || errno || !(v >= r->lo && v <= r->hi))
        return rung_fail(err, RUNG_EARG, "--%s is '%s', wanted a number from %g to %g", r->name, s, r->lo, r->hi);
    *out = v;
    return RUNG_OK;
}

static rung_status parse_integer(const option_row *r, const char *s, long *out, rung_err *err) {
    char *end;
    errno = 0;
    const long v = strtol(s, &end, 10);
    if (end == s || *end || errno || v < (long)r->lo || v > (long)r->hi)
        return rung_fail(err, RUNG_EARG, "--%s is '%s', wanted a whole number from %ld to %ld", r->name, s, (long)r->lo,
                         (long)r->hi);
    *out = v;
    return RUNG_OK;
}

static rung_status parse_seed(const char *s, long long *out, rung_err *err) {
    char *end;
    errno = 0;
    const long long v = strtoll(s, &end, 10);
    if (end == s || *end || errno)
        return rung_fail(err, RUNG_EARG, "--seed is '%s', wanted a whole number below 2^63", s);
    *out = v;
    return RUNG_OK;
}

static rung_status parse_choice(const option_row *r, const char *s, rung_err *err) {
    const size_t n = strlen(s);
    for (const char *w = r->value; w; w = strchr(w, '|') ? strchr(w, '|') + 1 : NULL)
        if (strncmp(w, s, n) == 0 && (w[n] == '|' || w[n] == 0) && n > 0) return RUNG_OK;
    return rung_fail(err, RUNG_EARG, "--%s is '%s', wanted %s", r->name, s, r->value);
}

/* "4,8,20" into *list. */
static rung_status parse_list(const option_row *r, const char *text, cli_list *list, rung_err *err) {
    size_t n = 1;
    for (const char *c = text; *c; c++) n += *c == ',';
    free(list->v);
    *list = (cli_list){.v = malloc(n * sizeof *list->v), .n = n};
    if (!list->v) return rung_fail(err, RUNG_ENOMEM, "--%s: out of memory", r->name);
    for (size_t i = 0; i < n; i++) {
        char *end;
        const float v = strtof(text, &end);
        const bool whole = r->kind == REALS || (v == floorf(v) && (size_t)(end - text) == strspn(text, "0123456789"));
        if (end == text || *end != (i + 1 < n ? ',' : 0) || !whole || !((double)v >= r->lo && (double)v <= r->hi))
            return rung_fail(err, RUNG_EARG, "--%s is '%s', wanted a %snumber from %g to %g%s", r->name, text,
                             r->kind == REALS ? "" : "whole ", r->lo, r->hi, n > 1 ? ", commas between" : "");
        list->v[i] = v;
        text = end + 1;
    }
    return RUNG_OK;
}

/* "style.safetensors:0.8"; without a weight, 1. */
static rung_status parse_lora(cli_options *o, const char *s, rung_err *err) {
    const char *colon = strrchr(s, ':');
    char *end = NULL;
    const float weight = colon ? strtof(colon + 1, &end) : 1;
    if ((colon && (end == colon + 1 || *end || !isfinite(weight))) || s == colon || !*s)
        return rung_fail(err, RUNG_EARG, "--lora is '%s', wanted FILE:WEIGHT, like style.safetensors:0.8", s);
    rung_lora_option *grown = realloc(o->loras, (o->n_loras + 1) * sizeof *grown);
    char *path = strndup(s, colon ? (size_t)(colon - s) : strlen(s));
    if (grown) o->loras = grown;
    if (!grown || !path) {
        free(path);
        return rung_fail(err, RUNG_ENOMEM, "--lora: out of memory");
    }
    o->loras[o->n_loras++] = (rung_lora_option){path, weight};
    return RUNG_OK;
}

static rung_status add_keep(cli_options *o, const char *s, rung_err *err) {
    const char **grown = realloc(o->keep, (o->n_keep + 1) * sizeof *grown);
    if (!grown) return rung_fail(err, RUNG_ENOMEM, "--keep: out of memory");
    o->keep = grown;
    o->keep[o->n_keep++] = s;
    return RUNG_OK;
}

static rung_status store_value(cli_options *o, const option_row *r, const char *s, rung_err *err) {
    char *base = (char *)o;
    void *field = base + r->at;
    if (r->set_at) *(bool *)(base + r->set_at) = true;
    switch (r->kind) {
    case INTEGER:
        return parse_integer(r, s, field, err);
    case REAL:
        return parse_real(r, s, field, err);
    case SEED:
        return parse_seed(s, field, err);
    case INTEGERS:
    case REALS:
        return parse_list(r, s, field, err);
    case LORA:
        return parse_lora(o, s, err);
    case KEEP:
        return add_keep(o, s, err);
    case CHOICE:
        RUNG_TRY(parse_choice(r, s, err));
        *(const char **)field = s;
        break;
    case TEXT:
        *(const char **)field = s;
        break;
    case FLAG:
        *(bool *)field = true;
        break;
    case COMMAND:
        *(cli_command *)field = (cli_command)r->lo;
        break;
    }
    return RUNG_OK;
}

/* The pattern of -o goes through our own eyes only, never through printf. Length of the number's field, 0: none here.
 */
static size_t number_field(const char *s) {
    if (*s != '%') return 0;
    size_t n = 1;
    while (s[n] >= '0' && s[n] <= '9' && n < 3) n++;
    return s[n] == 'd' ? n + 1 : 0;
}

static rung_status check_output(const char *pattern, rung_err *err) {
    for (const char *s = pattern; *s; s++) {
        if (*s != '%') continue;
        const size_t n = number_field(s);
        if (!n && s[1] != '%')
            return rung_fail(err, RUNG_EARG, "--output is '%s': after %% only d, like %%03d, or a second %% can stand",
                             pattern);
        s += n ? n - 1 : 1;
    }
    if (!*pattern) return rung_fail(err, RUNG_EARG, "--output is empty, wanted a file name");
    return RUNG_OK;
}

static rung_status check_utf8(const char *what, const char *text, rung_err *err) {
    const utf8proc_uint8_t *s = (const utf8proc_uint8_t *)text;
    const size_t n = text ? strlen(text) : 0;
    for (size_t i = 0; i < n;) {
        utf8proc_int32_t c;
        const utf8proc_ssize_t k = utf8proc_iterate(s + i, (utf8proc_ssize_t)(n - i), &c);
        if (k < 1) return rung_fail(err, RUNG_EARG, "%s: byte %zu (0x%02x) is not valid UTF-8", what, i + 1, s[i]);
        i += (size_t)k;
    }
    return RUNG_OK;
}

/* The hooks are files for one picture. */
static rung_status check_hooks(const cli_options *o, const char *who, rung_err *err) {
    const struct {
        const char *name;
        bool given;
    } others[] = {
        {"noise", o->noise},
        {"embeds", o->embeds},
        {"neg-embeds", o->neg_embeds},
        {"save-embeds", o->save_embeds},
        {"save-latents", o->save_latents},
        {"pooled-embeds", o->pooled_embeds},
        {"neg-pooled-embeds", o->neg_pooled_embeds},
    };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (others[i].given)
            return rung_fail(err, RUNG_EARG, "--%s is for one picture, %s draws many", others[i].name, who);
    return RUNG_OK;
}

static rung_status check_compare(const cli_options *o, rung_err *err) {
    RUNG_TRY(check_hooks(o, "rung compare", err));
    if (o->sigmas.n) return rung_fail(err, RUNG_EARG, "--sigmas is for one picture, rung compare takes --scheduler");
    if (!o->n_prompts && !o->prompt && !o->prompt_file && !o->preset)
        return rung_fail(err, RUNG_EARG, "no prompt: rung compare \"a red apple\", --prompts FILE or --default");
    if (o->prompt_file && (o->n_prompts || o->prompt))
        return rung_fail(err, RUNG_EARG, "a prompt beside --prompts: put it into the file");
    for (size_t i = 0; i < o->n_prompts; i++) RUNG_TRY(check_utf8("prompt", o->prompts[i], err));
    return RUNG_OK;
}

static rung_status check_one_value(const cli_options *o, rung_err *err) {
    if (o->steps.n > 1 || o->cfg_scale.n > 1)
        return rung_fail(err, RUNG_EARG, "--%s: several numbers are for rung compare",
                         o->steps.n > 1 ? "steps" : "cfg-scale");
    if (o->preset || o->reference)
        return rung_fail(err, RUNG_EARG, "--%s belongs to rung compare", o->preset ? "default" : "reference");
    return RUNG_OK;
}

static rung_status check_convert(const cli_options *o, rung_err *err) {
    const bool few = o->type && (strcmp(o->type, "e2m3") == 0 || strcmp(o->type, "fp5") == 0);
    if (o->command == CLI_CONVERT) {
        if (!o->type) return rung_fail(err, RUNG_EARG, "convert: wanted --type fp6, e2m3, fp5, f16, bf16 or f32");
        if (o->n_loras) return rung_fail(err, RUNG_EARG, "--lora: a LoRA is merged when a picture is drawn");
        return RUNG_OK;
    }
    if (few) return rung_fail(err, RUNG_EARG, "--type is '%s', wanted f32|bf16|f16|fp6 outside of convert", o->type);
    if (o->sparsity == 0 && !o->calibrate && !o->n_keep && !o->form) return RUNG_OK;
    return rung_fail(err, RUNG_EARG, "--%s belongs to rung convert",
                     o->calibrate ? "calibrate"
                     : o->n_keep  ? "keep"
                     : o->form    ? "form"
                                  : "sparsity");
}

static rung_status check_together(cli_options *o, rung_err *err) {
    RUNG_TRY(check_convert(o, err));
    RUNG_TRY(parallel_parse(&o->parallel, o->parallel_text, err));
    if (o->devices && (o->command != CLI_INFO || o->model))
        return rung_fail(err, RUNG_EARG, "--devices belongs to rung info, without a model");
    if (o->command != CLI_COMPARE) RUNG_TRY(check_one_value(o, err));
    if (o->command == CLI_BATCH) return check_hooks(o, "rung batch", err);
    if (o->command != CLI_COMPARE && o->command != CLI_GENERATE) return RUNG_OK;
    if (o->resume || o->batch_size)
        return rung_fail(err, RUNG_EARG, "--%s belongs to rung batch", o->resume ? "resume" : "batch-size");
    if (o->verbose && o->quiet) return rung_fail(err, RUNG_EARG, "--verbose and --quiet exclude each other");
    RUNG_TRY(check_utf8("prompt", o->prompt, err));
    RUNG_TRY(check_utf8("negative prompt", o->negative_prompt, err));
    if (o->command == CLI_COMPARE) return check_compare(o, err);
    if (o->prompt_file) return rung_fail(err, RUNG_EARG, "--prompts belongs to rung compare");
    if (o->save_latents && o->batch_count > 1)
        return rung_fail(err, RUNG_EARG, "--save-latents is one file, --batch-count asks for %ld pictures",
                         o->batch_count);
    if (!o->prompt && !o->embeds)
        return rung_fail(err, RUNG_EARG, "no prompt: rung \"a red apple\" draws one; rung --help lists the options");
    return o->output ? check_output(o->output, err) : RUNG_OK;
}

/* Words that are no options: a command and its model, or the prompt. */
static rung_status take_words(cli_options *o, int words, char **word, rung_err *err) {
    if (words > 0 && strcmp(word[0], "info") == 0 && !o->prompt) {
        o->command = CLI_INFO;
        if (words > 2) return rung_fail(err, RUNG_EARG, "info: one model at a time, found '%s' after it", word[2]);
        if (words == 2) o->model = word[1];
        return RUNG_OK;
    }
    if (words > 0 && strcmp(word[0], "batch") == 0 && !o->prompt) {
        o->command = CLI_BATCH;
        if (o->prompt_file) return rung_fail(err, RUNG_EARG, "--prompts belongs to rung compare");
        o->prompt_file = words > 1 ? word[1] : NULL;
        if (words == 2) return RUNG_OK;
        return rung_fail(err, RUNG_EARG, "batch: wanted one prompt file (- is standard input), found %d", words - 1);
    }
    if (words > 0 && strcmp(word[0], "compare") == 0) {
        o->command = CLI_COMPARE;
        o->prompts = word + 1;
        o->n_prompts = (size_t)words - 1;
        return RUNG_OK;
    }
    if (words > 1 && strcmp(word[0], "convert") == 0 && !o->prompt) {
        o->command = CLI_CONVERT;
        if (words != (o->model ? 2 : 3))
            return rung_fail(err, RUNG_EARG, "convert: wanted a model and a new folder, found %d words", words - 1);
        if (words == 3) o->model = word[1];
        o->convert_out = word[words - 1];
        return RUNG_OK;
    }
    if (words > 0 && strcmp(word[0], "bench") == 0 && !o->prompt) {
        o->command = CLI_BENCH;
        o->bench_filter = words > 1 ? word[1] : NULL;
        o->bench_ladder = words > 1 && strcmp(word[1], "ladder") == 0;
        o->bench_link = o->bench_ladder && words == 3 ? word[2] : NULL;
        if (words <= 2 || o->bench_link) return RUNG_OK;
        return rung_fail(err, RUNG_EARG, "bench: wanted one word of a shape's name, found '%s' after it", word[2]);
    }
    if (words > 1 || (words == 1 && o->prompt))
        return rung_fail(err, RUNG_EARG, "'%s' after the prompt: put a prompt of several words in quotes",
                         word[words > 1]);
    if (words == 1) o->prompt = word[0];
    return RUNG_OK;
}

rung_status cli_parse(cli_options *o, int argc, char **argv, rung_err *err) {
    struct option longs[ROWS + 1] = {0};
    char shorts[2 * ROWS + 2] = ":"; /* a missing value is ours to report */
    for (size_t i = 0, n = 1; i < ROWS; i++) {
        longs[i] = (struct option){rows[i].name, takes_value(&rows[i]), NULL, 256 + (int)i};
        if (!rows[i].letter) continue;
        shorts[n++] = rows[i].letter;
        if (takes_value(&rows[i])) shorts[n++] = ':';
    }
    *o = (cli_options){.seed = 42, .batch_count = 1};
    opterr = 0;
    optind = 0; /* start afresh, also when called twice */
    for (int c; (c = getopt_long(argc, argv, shorts, longs, NULL)) != -1;) {
        size_t i = c >= 256 ? (size_t)c - 256 : 0;
        if (c == ':') return rung_fail(err, RUNG_EARG, "%s wants a value", argv[optind - 1]);
        if (c == '?') return rung_fail(err, RUNG_EARG, "unknown option %s; rung --help lists them", argv[optind - 1]);
        while (c < 256 && rows[i].letter != c) i++;
        RUNG_TRY(store_value(o, &rows[i], optarg, err));
        if (rows[i].kind == COMMAND) return RUNG_OK;
    }
    RUNG_TRY(take_words(o, argc - optind, argv + optind, err));
    return check_together(o, err);
}

void cli_options_free(cli_options *o) {
    for (size_t i = 0; i < o->n_loras; i++) free((char *)o->loras[i].path);
    free(o->loras);
    free(o->steps.v);
    free(o->cfg_scale.v);
    free(o->sigmas.v);
    free(o->keep);
    *o = (cli_options){0};
}

static void help_options(FILE *f) {
    for (size_t i = 0; i < ROWS; i++) {
        const option_row *r = &rows[i];
        char head[64];
        if (!r->help) continue;
        snprintf(head, sizeof head, "%c%c%s--%s %s", r->letter ? '-' : ' ', r->letter ? r->letter : ' ',
                 r->letter ? ", " : "  ", r->name, r->value ? r->value : "");
        fprintf(f, "  %-31s %s\n", head, r->help);
    }
}

char *cli_help(void) {
    char *text = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);
    if (!f) return NULL;
    fputs("rung [options] PROMPT       draw a picture\n"
          "rung batch FILE [options]   a picture, or more, for each line of a prompt file\n"
          "rung compare PROMPT...      samplers x schedules x steps: pictures, figures, a page\n"
          "rung convert MODEL OUT      a model with smaller weights; --type says which\n"
          "rung info [MODEL]           what is in a model; with --devices: what can compute\n"
          "rung bench [WORD]           speed of the operations whose name holds WORD\n"
          "rung bench ladder [LINK]    what several ranks gain from the ladder residual, under mpirun\n\n",
          f);
    help_options(f);
    fputs("\nSamplers:", f);
    for (size_t i = 0; i < rung_sampler_count(); i++) fprintf(f, " %s", rung_sampler_get(i)->name);
    fputs("\nSchedules:", f);
    for (size_t i = 0; rung_schedule_name(i); i++) fprintf(f, " %s", rung_schedule_name(i));
    fputs(
        "\n\n(word:1.2) and [word] weigh words for CLIP models, \\( is a parenthesis.\n"
        "batch: -o may hold {line}, {index}, {seed}, {prompt} (batch/{line}-{seed}.png); options given are the lines'\n"
        "defaults; a line is a prompt, or --prompt \"...\" --negative_prompt \"...\" --seed 7 --steps 20 --cfg_scale "
        "5\n"
        "--width 128 --height 128 --sampler_name \"Euler a\" --batch_size 2, or a JSON object with these keys.\n"
        "compare: --sampler, --scheduler, --steps and --cfg-scale take lists: --sampler euler,heun --steps 4,8,20; "
        "each\n"
        "prompt is drawn with -b seeds; -o is the folder for compare.html, .png, .csv, .json and pictures/ (compare).\n"
        "Exit status: 0 done, 1 could not do it, 2 wrong usage, 130 interrupted.\n",
        f);
    if (fclose(f) == 0) return text;
    free(text);
    return NULL;
}

char *cli_output_name(const char *pattern, uint64_t seed, size_t i) {
    char *name = NULL;
    size_t size = 0, dot = 0;
    bool numbered = false;
    if (!pattern) return asprintf(&name, "rung-%llu.png", (unsigned long long)seed) < 0 ? NULL : name;
    FILE *f = open_memstream(&name, &size);
    if (!f) return NULL;
    for (const char *s = pattern; *s; s++) {
        const size_t n = number_field(s);
        if (n) {
            fprintf(f, s[1] == '0' ? "%0*zu" : "%*zu", atoi(s + 1), i + 1);
            s += n - 1;
            numbered = true;
        } else {
            fputc(*s, f);
            s += *s == '%'; /* %% */
        }
    }
    if (fclose(f) != 0) {
        free(name);
        return NULL;
    }
    if (numbered || i == 0) return name;
    const char *slash = strrchr(name, '/'), *ending = strrchr(name, '.');
    dot = ending && (!slash || ending > slash + 1) ? (size_t)(ending - name) : strlen(name);
    char *with_number = NULL;
    if (asprintf(&with_number, "%.*s_%zu%s", (int)dot, name, i + 1, name + dot) < 0) with_number = NULL;
    free(name);
    return with_number;
}
