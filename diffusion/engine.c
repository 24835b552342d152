#define _POSIX_C_SOURCE 200809L /* clock_gettime, strndup */
#include "diffusion/engine.h"
#include "diffusion/infotext.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/base/cpu.h"
#include "kernels/base/hash.h"
#include "kernels/cuda/cuda.h"
#include "kernels/nccl/comm_nccl.h"
#include "vae/spots.h"

const char *rung_version(void) { return RUNG_VERSION; }

double rung_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static rung_status store_from_name(rung_store *store, const char *type, rung_err *err) {
    static const struct {
        const char *name;
        rung_store store;
    } types[] = {{"f32", RUNG_STORE_F32}, {"f16", RUNG_STORE_F16}, {"bf16", RUNG_STORE_BF16}, {"fp6", RUNG_STORE_FP6}};
    *store = RUNG_STORE_STORED;
    if (!type) return RUNG_OK;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (strcmp(types[i].name, type) == 0) {
            *store = types[i].store;
            return RUNG_OK;
        }
    }
    return rung_fail(err, RUNG_EARG, "type is '%s', wanted f32, f16, bf16 or fp6", type);
}

static rung_status open_backend(rung_engine *e, const rung_options *o, rung_err *err) {
    unsigned mask;
    if (o->backend && strcmp(o->backend, "cuda") == 0) {
        RUNG_TRY(rung_cuda_backend_open(&e->be, o->device, err));
        if (!e->ranks.tp) return RUNG_OK;
        return rung_nccl_open(&e->gpus, e->ranks.tp, o->device, rung_cuda_stream(e->be), o->rank_timeout, err);
    }
    if (o->backend && strcmp(o->backend, "cpu") != 0)
        return rung_fail(err, RUNG_EARG, "backend is '%s', wanted cpu or cuda", o->backend);
    RUNG_TRY(rung_cpu_mask(&mask, err));
    RUNG_TRY(rung_pool_open(&e->pool, o->threads, err));
    if (e->ranks.world) rung_pool_poll(e->pool, rung_comm_progress, e->ranks.world);
    e->lanes_fit = !e->ranks.world;
    e->exact = o->exact;
    RUNG_TRY(rung_cpu_backend_open(&e->be, e->pool, rung_cpu_detect() & mask, err));
    rung_cpu_backend_exact(e->be, e->exact);
    return RUNG_OK;
}

/* "models/sd15.safetensors/" -> "sd15" */
static char *model_name(const char *path) {
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/') end--;
    size_t start = end;
    while (start > 0 && path[start - 1] != '/') start--;
    static const char ending[] = ".safetensors";
    const size_t n = sizeof ending - 1;
    if (end - start > n && strncmp(path + end - n, ending, n) == 0) end -= n;
    return strndup(path + start, end - start);
}

/* What a request gets when it says nothing. A model may bring its own in model_index.json. */
static rung_status read_defaults(rung_engine *e, rung_err *err) {
    const rung_denoiser_info *d = rung_denoiser_describe(e->denoiser);
    const rung_vae_info *v = rung_vae_describe(e->vae);
    rung_engine_info *i = &e->info;
    rung_config index = rung_model_index(e->model, err);
    if (d->in_channels != v->latent_channels)
        return rung_fail(err, RUNG_ESHAPE, "%s: the denoiser works on %zu latent channels, the VAE on %zu",
                         rung_model_path(e->model), d->in_channels, v->latent_channels);
    i->factor = v->factor;
    i->size_multiple = v->factor * d->size_multiple;
    i->width = i->height = (d->sample_size ? d->sample_size : 64) * v->factor;
    i->latent_channels = v->latent_channels;
    i->image_channels = v->image_channels;
    i->context_dim = d->context_dim;
    i->pooled_dim = d->pooled_dim;
    i->steps = (int)cfg_int(&index, "default_steps", 20, 1, 1000);
    i->cfg_scale =
        (float)cfg_real(&index, "default_cfg_scale", rung_model_has(e->model, "unet", NULL) ? 7 : 4.5, 0, 100);
    i->clear_spots = (size_t)cfg_int(&index, "clear_spots", 0, 0, RUNG_SPOT_LARGEST);
    return index.status;
}

/* The VAE's part of it comes from the rank that has one. */
static rung_status set_defaults(rung_engine *e, rung_err *err) {
    if (e->vae) RUNG_TRY(read_defaults(e, err));
    if (e->ranks.group) RUNG_TRY(rung_comm_broadcast_now(e->ranks.group, &e->info, sizeof e->info, 0, err));
    e->info.pipeline = rung_model_pipeline(e->model);
    return RUNG_OK;
}

/* Each group's leader has a text encoder and a VAE: pictures must not depend on which group draws them. The others
 * answer with what rank 0 has said. */
static rung_status compare_leaders(const rung_engine *e, rung_err *err) {
    static const char *const parts[] = {"text_encoder", "tokenizer", "vae"};
    rung_comm *world = e->ranks.world;
    uint64_t h = 0, first;
    for (size_t i = 0; ranks_lead(&e->ranks) && e->ranks.groups > 1 && i < sizeof parts / sizeof *parts; i++)
        if (rung_model_has(e->model, parts[i], NULL)) RUNG_TRY(rung_model_part_hash(e->model, parts[i], &h, err));
    first = h;
    RUNG_TRY(rung_comm_broadcast_now(world, &first, sizeof first, 0, err));
    return ranks_agree(world, ranks_lead(&e->ranks) ? h : first, "text encoder or VAE", err);
}

/* What ranks must have in common: the network and the sampler. Only a leader reads the text encoder and the VAE. */
static rung_status compare_models(const rung_engine *e, rung_err *err) {
    if (!e->ranks.world) return RUNG_OK;
    const char *scheduler = e->scheduler_json ? e->scheduler_json : "";
    uint64_t h = rung_hash(e->store, scheduler, strlen(scheduler));
    h = rung_hash_word(h, rung_denoiser_hash(e->denoiser));
    h = rung_hash_word(h, rung_model_lora_hash(e->model));
    RUNG_TRY(ranks_agree(e->ranks.world, h, "model", err));
    return compare_leaders(e, err);
}

/* The parts of the model that this rank works with. */
static rung_status open_networks(rung_engine *e, const rung_options *o, rung_err *err) {
    const bool leads = ranks_lead(&e->ranks);
    if (leads && !o->no_text_encoder && rung_model_has(e->model, "text_encoder", NULL))
        RUNG_TRY(rung_textenc_open(&e->text, e->model, e->be, e->store, err));
    rung_comm *tp = e->gpus ? e->gpus : e->ranks.tp;
    RUNG_TRY(rung_denoiser_open_part(&e->denoiser, e->model, e->be, e->store, tp, err));
    if (leads) RUNG_TRY(rung_vae_open(&e->vae, e->model, e->be, e->store, err));
    return leads ? rung_model_check_loras(e->model, err) : RUNG_OK;
}

rung_status rung_open(rung_engine **out, const rung_options *o, rung_err *err) {
    return engine_open(out, o, NULL, NULL, err);
}

rung_status engine_open(rung_engine **out, const rung_options *o, engine_watch_fn *watch, void *user, rung_err *err) {
    const double start = rung_now();
    rung_status st;
    size_t bytes;
    *out = NULL;
    rung_engine *e = calloc(1, sizeof *e);
    if (!e) return rung_fail(err, RUNG_ENOMEM, "engine: out of memory");
    RUNG_TRY_GOTO(st, done, ranks_open(&e->ranks, o->comm, o->tp ? o->tp : 1, o->cfg ? o->cfg : 1, err));
    RUNG_TRY_GOTO(st, done, store_from_name(&e->store, o->type, err));
    RUNG_TRY_GOTO(st, done, open_backend(e, o, err));
    if (watch) {
        e->lanes_fit = false; /* lanes have backends of their own, which nobody would watch */
        RUNG_TRY_GOTO(st, done, watch(user, e->be, err));
    }
    RUNG_TRY_GOTO(st, done, rung_model_open(&e->model, o->model, err));
    for (size_t i = 0; i < o->n_loras; i++)
        RUNG_TRY_GOTO(st, done, rung_model_add_lora(e->model, o->loras[i].path, o->loras[i].weight, err));
    RUNG_TRY_GOTO(st, done, open_networks(e, o, err));
    RUNG_TRY_GOTO(st, done,
                  rung_model_text(e->model, "scheduler", "scheduler_config.json", &e->scheduler_json, &bytes, err));
    RUNG_TRY_GOTO(st, done, compare_models(e, err));
    RUNG_TRY_GOTO(st, done, set_defaults(e, err));
    e->name = model_name(o->model);
    e->weights = rung_infotext_weights(o);
    if (!e->name || !e->weights) RUNG_TRY_GOTO(st, done, rung_fail(err, RUNG_ENOMEM, "engine: out of memory"));
    e->info.load_seconds = rung_now() - start;
    *out = e;
    return RUNG_OK;
done:
    rung_close(&e);
    return st;
}

static void close_lanes(rung_engine *e) {
    for (int i = 0; e->lanes && i < rung_pool_threads(e->pool); i++) {
        rung_vae_close(&e->lanes[i].vae);
        rung_backend_close(&e->lanes[i].be);
        rung_pool_close(&e->lanes[i].pool);
    }
    free(e->lanes);
    e->lanes = NULL;
}

rung_status engine_open_lanes(rung_engine *e, rung_err *err) {
    const int n = rung_pool_threads(e->pool);
    rung_status st = RUNG_OK;
    unsigned mask;
    if (e->lanes) return RUNG_OK;
    RUNG_TRY(rung_cpu_mask(&mask, err));
    e->lanes = calloc((size_t)n, sizeof *e->lanes);
    if (!e->lanes) return rung_fail(err, RUNG_ENOMEM, "engine: no memory for %d lanes", n);
    for (int i = 0; !st && i < n; i++) {
        engine_lane *l = &e->lanes[i];
        st = rung_pool_open(&l->pool, 1, err);
        if (!st) st = rung_cpu_backend_open(&l->be, l->pool, rung_cpu_detect() & mask, err);
        if (!st) rung_cpu_backend_exact(l->be, e->exact);
        if (!st) st = rung_vae_share(&l->vae, e->vae, l->be, err);
    }
    if (st) close_lanes(e);
    return st;
}

void rung_close(rung_engine **ep) {
    rung_engine *e = *ep;
    *ep = NULL;
    if (!e) return;
    close_lanes(e);
    rung_vae_close(&e->vae);
    rung_denoiser_close(&e->denoiser);
    embed_cache_clear(&e->embeds);
    rung_textenc_close(&e->text);
    rung_model_close(&e->model);
    rung_comm_close(&e->gpus);
    rung_backend_close(&e->be);
    rung_pool_close(&e->pool);
    ranks_close(&e->ranks);
    free(e->scheduler_json);
    free(e->name);
    free(e->weights);
    free(e);
}

const rung_engine_info *rung_describe(const rung_engine *e) { return &e->info; }
