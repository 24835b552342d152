/* diffusion/cli_request.c - what the command line's options ask of the engine: files read, defaults found, nothing
 * printed. */
#define _GNU_SOURCE /* getrandom, readlink, asprintf */
#include "diffusion/cli_request.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "assets/json.h"
#include "diffusion/compare.h"
#include "kernels/cuda/cuda.h"

/* The model that ships: beside the installed program, else in the source tree that the program was built in. */
rung_status cli_default_model(char **path, rung_err *err) {
    static const char *const places[] = {"/../share/rung/icons", "/../assets/icons"};
    char exe[4096];
    const ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    exe[n > 0 ? n : 0] = 0;
    char *slash = strrchr(exe, '/');
    if (slash) *slash = 0;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        if (asprintf(path, "%s%s", exe, places[i]) < 0) break;
        char index[4200];
        snprintf(index, sizeof index, "%s/model_index.json", *path);
        if (access(index, R_OK) == 0) return RUNG_OK;
        free(*path);
    }
    *path = NULL;
    return rung_fail(err, RUNG_EIO, "the model that ships is not beside the program (%s%s): give one with -m", exe,
                     places[0]);
}

rung_status cli_random_seed(uint64_t *seed, rung_err *err) {
    if (getrandom(seed, sizeof *seed, 0) != (ssize_t)sizeof *seed)
        return rung_fail(err, RUNG_EIO, "no random seed: %s", strerror(errno));
    *seed >>= 32; /* torch's CPU generator looks at 32 bits, and short seeds can be typed again */
    return RUNG_OK;
}

/* A random seed is rank 0's for all. */
rung_status cli_choose_seed(const cli_options *o, rung_comm *world, uint64_t *seed, rung_err *err) {
    if (o->seed >= 0) return RUNG_OK;
    RUNG_TRY(cli_random_seed(seed, err));
    return world ? rung_comm_broadcast_now(world, seed, sizeof *seed, 0, err) : RUNG_OK;
}

rung_request cli_request(const cli_options *o) {
    return (rung_request){.prompt = o->prompt,
                          .negative_prompt = o->negative_prompt,
                          .width = (size_t)o->width,
                          .height = (size_t)o->height,
                          .steps = o->steps.n == 1 ? (int)o->steps.v[0] : 0,
                          .cfg_scale = o->cfg_scale.n == 1 ? fmaxf(1, o->cfg_scale.v[0]) : 0,
                          .guidance_rescale = (float)o->guidance_rescale,
                          .seed = (uint64_t)o->seed,
                          .rng = o->rng && strcmp(o->rng, "cuda") == 0 ? RUNG_RNG_CUDA : RUNG_RNG_CPU,
                          .sampler = o->sampler,
                          .scheduler = o->scheduler,
                          .eta = (float)o->eta,
                          .eta_set = o->eta_set,
                          .sigmas = o->sigmas.v,
                          .n_sigmas = o->sigmas.n,
                          .clip_skip = (int)o->clip_skip,
                          .literal = o->literal,
                          .vae_tiling = o->vae_tiling};
}

/* This process's number among those of the launch on this machine; 0 when nothing says. */
static int local_rank(void) {
    static const char *const names[] = {"OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *own = getenv(names[i]);
        if (own) return abs((int)strtol(own, NULL, 10));
    }
    return 0;
}

/* Ranks of one machine take its GPUs in turn, from --device on. */
static rung_status own_device(const cli_options *o, const rung_comm *world, int *device, rung_err *err) {
    int count = 0;
    *device = (int)o->device;
    if (!world || !o->backend || strcmp(o->backend, "cuda") != 0) return RUNG_OK;
    RUNG_TRY(rung_cuda_count(&count, err));
    if (*device < count) *device = (*device + local_rank() % count) % count;
    return RUNG_OK;
}

rung_status cli_engine_options(const cli_options *o, const char *model, rung_comm *world, rung_options *out,
                               rung_err *err) {
    const bool many = o->command == CLI_BATCH || o->batch_count > 1;
    const bool guided = o->cfg_scale.n != 1 || o->cfg_scale.v[0] > 1;
    parallel_layout l;
    int device;
    RUNG_TRY(own_device(o, world, &device, err));
    RUNG_TRY(parallel_choose(&l, &o->parallel, world ? world->size : 1, many, guided, err));
    *out = (rung_options){.model = model,
                          .comm = world,
                          .tp = l.tp,
                          .cfg = l.cfg,
                          .threads = (int)o->threads,
                          .type = o->type,
                          .backend = o->backend,
                          .device = device,
                          .rank_timeout = o->parallel.timeout,
                          .exact = o->exact,
                          .loras = o->loras,
                          .n_loras = o->n_loras};
    return RUNG_OK;
}

rung_status cli_inputs_read(cli_inputs *in, const cli_options *o, rung_err *err) {
    if (o->noise) RUNG_TRY(rung_npy_read(&in->noise, o->noise, err));
    if (o->embeds) RUNG_TRY(rung_npy_read(&in->embeds, o->embeds, err));
    if (o->neg_embeds) RUNG_TRY(rung_npy_read(&in->neg_embeds, o->neg_embeds, err));
    if (o->pooled_embeds) RUNG_TRY(rung_npy_read(&in->pooled, o->pooled_embeds, err));
    if (o->neg_pooled_embeds) RUNG_TRY(rung_npy_read(&in->neg_pooled, o->neg_pooled_embeds, err));
    return RUNG_OK;
}

static rung_status embeds_of(rung_rows *out, const rung_npy *a, const char *file, rung_err *err) {
    if (!a->data) return RUNG_OK;
    if (a->ndim < 2 || a->ndim > 3 || (a->ndim == 3 && a->shape[0] != 1))
        return rung_fail(err, RUNG_ESHAPE, "%s: %d dimensions, wanted [1, n, d] or [n, d]", file, a->ndim);
    *out = (rung_rows){a->data, a->shape[a->ndim - 2], a->shape[a->ndim - 1]};
    return RUNG_OK;
}

rung_status cli_inputs_embeds(rung_request *r, const cli_inputs *in, const cli_options *o, rung_err *err) {
    RUNG_TRY(embeds_of(&r->embeds, &in->embeds, o->embeds, err));
    RUNG_TRY(embeds_of(&r->neg_embeds, &in->neg_embeds, o->neg_embeds, err));
    RUNG_TRY(embeds_of(&r->pooled, &in->pooled, o->pooled_embeds, err));
    return embeds_of(&r->neg_pooled, &in->neg_pooled, o->neg_pooled_embeds, err);
}

/* Noise decides the size where -W and -H do not. */
rung_status cli_inputs_noise(rung_request *r, const cli_inputs *in, const rung_engine_info *info, const char *file,
                             rung_err *err) {
    const rung_npy *a = &in->noise;
    if (!a->data) return RUNG_OK;
    const size_t *s = a->shape;
    if (a->ndim == 4 && s[0] == 1 && s[1] == info->latent_channels && s[2] > 0 && s[3] > 0) {
        if (!r->height) r->height = s[2] * info->factor;
        if (!r->width) r->width = s[3] * info->factor;
        r->noise = a->data;
        if (r->height == s[2] * info->factor && r->width == s[3] * info->factor) return RUNG_OK;
    }
    const size_t h = (r->height ? r->height : info->height) / info->factor;
    const size_t w = (r->width ? r->width : info->width) / info->factor;
    return rung_fail(err, RUNG_ESHAPE, "%s: %d dimensions [%zu, %zu, %zu, %zu], wanted [1, %zu, %zu, %zu]", file,
                     a->ndim, a->ndim > 0 ? s[0] : 0, a->ndim > 1 ? s[1] : 0, a->ndim > 2 ? s[2] : 0,
                     a->ndim > 3 ? s[3] : 0, info->latent_channels, h, w);
}

void cli_inputs_free(cli_inputs *in) {
    rung_npy_free(&in->noise);
    rung_npy_free(&in->embeds);
    rung_npy_free(&in->neg_embeds);
    rung_npy_free(&in->pooled);
    rung_npy_free(&in->neg_pooled);
}

rung_status cli_save_hooks(const rung_image *image, const cli_options *o, rung_err *err) {
    if (o->save_embeds)
        RUNG_TRY(rung_npy_write(o->save_embeds, image->embeds, 3, (size_t[]){1, image->embed_rows, image->context_dim},
                                err));
    if (o->save_latents)
        RUNG_TRY(rung_npy_write(o->save_latents, image->latents, 4,
                                (size_t[]){1, image->latent_channels, image->latent_h, image->latent_w}, err));
    return RUNG_OK;
}

rung_status cli_read_prompts(const char *path, char **text, rung_err *err) {
    enum { FILE_MAX = 64 << 20 };
    size_t size = 0;
    if (strcmp(path, "-") != 0) return rung_file_read(path, FILE_MAX, text, &size, err);
    if (getdelim(text, &size, 0, stdin) >= 0) return RUNG_OK; /* to the end: no prompt holds a NUL */
    free(*text);
    *text = strdup("");
    if (!*text) return rung_fail(err, RUNG_ENOMEM, "out of memory");
    return ferror(stdin) ? rung_fail(err, RUNG_EIO, "standard input: %s", strerror(errno)) : RUNG_OK;
}

/* The prompts of the command line, of a file, or the preset's. */
rung_status cli_comparison_prompts(prompt_file *file, const cli_options *o, uint64_t seed, rung_err *err) {
    rung_request defaults = cli_request(o);
    defaults.sampler = defaults.scheduler = NULL; /* what is compared */
    defaults.steps = 0;
    defaults.cfg_scale = 0;
    defaults.seed = seed;
    if (o->prompt_file) {
        char *text = NULL;
        RUNG_TRY(cli_read_prompts(o->prompt_file, &text, err));
        const rung_status st = prompt_file_parse(file, text, &defaults, err);
        free(text);
        if (st || !file->fault_count) return st;
        return rung_fail(err, RUNG_EFORMAT, "%s:%zu: %s", o->prompt_file, file->faults[0].line,
                         file->faults[0].message);
    }
    size_t n = 0;
    const char **prompts = calloc(o->n_prompts + 16, sizeof *prompts);
    if (!prompts) return rung_fail(err, RUNG_ENOMEM, "out of memory");
    if (o->prompt) prompts[n++] = o->prompt;
    for (size_t i = 0; i < o->n_prompts; i++) prompts[n++] = o->prompts[i];
    for (size_t i = 0; o->preset && i < 15 && compare_preset_prompt(i); i++) prompts[n++] = compare_preset_prompt(i);
    const rung_status st = prompt_file_of(file, prompts, n, &defaults, err);
    free(prompts);
    return st;
}
