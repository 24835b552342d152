/* diffusion/cli_request.h - from the command line's options to what the engine is asked. Nothing here prints. */
#ifndef RUNG_DIFFUSION_CLI_REQUEST_H
#define RUNG_DIFFUSION_CLI_REQUEST_H

#include "assets/npy.h"
#include "diffusion/engine.h"
#include "diffusion/options.h"
#include "diffusion/prompt_file.h"

/* The model that ships: beside the installed program, else in the source tree that the program was built in.
 * *path is the caller's to free; RUNG_EIO where there is none. */
rung_status cli_default_model(char **path, rung_err *err);

/* The options as a request; what they leave open is 0 or NULL. Its strings and lists are o's. The seed is o's, even
 * where it is -1. */
rung_request cli_request(const cli_options *o);

/* How the engine is opened for `model`; world: the ranks, or NULL. RUNG_EARG: --parallel does not fit them. */
rung_status cli_engine_options(const cli_options *o, const char *model, rung_comm *world, rung_options *out,
                               rung_err *err);

/* 32 random bits. */
rung_status cli_random_seed(uint64_t *seed, rung_err *err);

/* Where --seed is not given: a random seed, rank 0's for all ranks. */
rung_status cli_choose_seed(const cli_options *o, rung_comm *world, uint64_t *seed, rung_err *err);

/* The .npy files of the hooks, read before the model so that a wrong name is told at once. */
typedef struct {
    rung_npy noise, embeds, neg_embeds, pooled, neg_pooled;
} cli_inputs;

rung_status cli_inputs_read(cli_inputs *in, const cli_options *o, rung_err *err);

/* What they give a request: embeddings [1, n, d] or [n, d]; noise [1, C, h, w] of the model, which decides the size
 * where -W and -H do not. RUNG_ESHAPE with the file's name. in stays the owner. */
rung_status cli_inputs_embeds(rung_request *r, const cli_inputs *in, const cli_options *o, rung_err *err);
rung_status cli_inputs_noise(rung_request *r, const cli_inputs *in, const rung_engine_info *info, const char *file,
                             rung_err *err);
void cli_inputs_free(cli_inputs *in);

/* Writes --save-embeds and --save-latents. */
rung_status cli_save_hooks(const rung_image *image, const cli_options *o, rung_err *err);

/* A prompt file's text, of standard input where path is "-"; *text is the caller's to free. */
rung_status cli_read_prompts(const char *path, char **text, rung_err *err);

/* The prompts of `rung compare`: of the command line, of a file, or the preset's. file is the caller's to free. */
rung_status cli_comparison_prompts(prompt_file *file, const cli_options *o, uint64_t seed, rung_err *err);

#endif
