/* diffusion/options.h - the command line: one table of options, read into one struct. */
#ifndef RUNG_OPTIONS_H
#define RUNG_OPTIONS_H
#include "diffusion/parallel.h"
#include "diffusion/rung.h"

typedef enum {
    CLI_GENERATE,
    CLI_BATCH,
    CLI_COMPARE,
    CLI_CONVERT,
    CLI_INFO,
    CLI_BENCH,
    CLI_HELP,
    CLI_VERSION
} cli_command;

/* Numbers with commas between. n is 0 when the option was not given. */
typedef struct {
    float *v; /* owned */
    size_t n;
} cli_list;

/* Strings belong to argv. Numbers are checked against the ranges in the table of options.c; zero means "the model's
 * own" as in rung_request. */
typedef struct {
    cli_command command;
    const char *model, *prompt, *negative_prompt, *output;
    const char *prompt_file; /* of batch and compare; "-": standard input */
    char **prompts;          /* of compare: the words after the options, [n_prompts] */
    size_t n_prompts;
    const char *reference;    /* of compare: SAMPLER:STEPS */
    const char *bench_filter; /* of bench: shapes whose name holds it; NULL: all */
    bool bench_ladder;        /* bench ladder: what the ladder residual gains over ranks */
    const char *bench_link;   /* what its table calls the link between them; NULL: nothing */
    long width, height, batch_count, batch_size, clip_skip, threads, device;
    cli_list steps, cfg_scale; /* whole numbers; below 1 no guidance. Several for compare only */
    cli_list sigmas;
    double guidance_rescale, eta, guidance;
    bool eta_set, guidance_set;
    long long seed;                  /* negative: random */
    const char *sampler, *scheduler; /* compare: names with commas between */
    const char *type, *backend, *rng;
    rung_lora_option *loras; /* owned, paths too */
    size_t n_loras;
    const char *noise, *embeds, *neg_embeds, *pooled_embeds, *neg_pooled_embeds, *save_embeds, *save_latents;
    const char *convert_out, *calibrate, *form; /* of convert; calibrate: a prompt file */
    double sparsity;
    const char **keep; /* owned, the patterns are not */
    size_t n_keep;
    const char *parallel_text;
    parallel_spec parallel; /* of parallel_text */
    bool literal, exact, vae_tiling, resume, preset, devices, verbose, quiet, json;
} cli_options;

/** RUNG_EARG with what was found and what was wanted. cli_options_free in any case. */
rung_status cli_parse(cli_options *o, int argc, char **argv, rung_err *err);
void cli_options_free(cli_options *o);

/** The text of --help, malloc'd; NULL when out of memory. */
char *cli_help(void);

/**
 * Output name of picture `i` (0, 1, ...) with seed `seed`: "%d" (also %03d) in the pattern is the picture's number from
 * 1, "%%" a percent sign. Without a number, pictures after the first get "_2", "_3" before the ending. NULL pattern:
 * "rung-SEED.png". malloc'd; NULL when out of memory. cli_parse has checked the pattern.
 */
char *cli_output_name(const char *pattern, uint64_t seed, size_t i);
#endif
