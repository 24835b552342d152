/* diffusion/engine.h - what an open engine holds. Internal to diffusion/. */
#ifndef RUNG_ENGINE_H
#define RUNG_ENGINE_H
#include "assets/model.h"
#include "diffusion/embed_cache.h"
#include "diffusion/ranks.h"
#include "diffusion/rung.h"
#include "kernels/backend.h"
#include "textenc/textenc.h"
#include "unet/denoiser.h"
#include "vae/vae.h"

/* One thread's way through a batch: what it computes with, apart from the others. */
typedef struct {
    rung_pool *pool; /* of one thread */
    rung_backend *be;
    rung_vae *vae;
} engine_lane;

struct rung_engine {
    ranks ranks;
    rung_comm *gpus; /* ranks.tp with the GPU backend, whose sums stay on the devices; else NULL */
    rung_pool *pool;
    rung_backend *be;
    rung_model *model;
    rung_textenc *text; /* NULL: every request brings its embeddings, or another rank leads */
    embed_cache embeds;
    bool lanes_fit;     /* the backend is the CPU */
    bool exact;         /* no Winograd, in the lanes too */
    rung_store store;   /* what weights are kept as */
    engine_lane *lanes; /* [pool's threads], made when first wanted; NULL: not yet */
    rung_denoiser *denoiser;
    rung_vae *vae;        /* NULL: another rank leads */
    char *scheduler_json; /* text of scheduler_config.json; NULL: none */
    char *name;           /* the model's name for the infotext: last part of its path, without ending */
    char *weights;        /* rung_infotext_weights's text */
    rung_engine_info info;
};

/** Called once the backend is there and no layer is opened yet. */
typedef rung_status engine_watch_fn(void *user, rung_backend *be, rung_err *err);

/** rung_open with a look at the backend; watch may be NULL. */
rung_status engine_open(rung_engine **out, const rung_options *o, engine_watch_fn *watch, void *user, rung_err *err);

/** Fills e->lanes. RUNG_ENOMEM; a second call does nothing. */
rung_status engine_open_lanes(rung_engine *e, rung_err *err);

/** Seconds on a clock that only goes forward. */
double rung_now(void);
#endif
