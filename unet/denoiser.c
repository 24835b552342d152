#include "unet/denoiser.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/base/hash.h"
#include "kernels/base/size.h"
#include "unet/attn_layer.h"

/* With these every product of sizes below stays under 2^62: 2^16 pictures of 2^14 x 2^14 cells of 2^16 channels. */
enum { SIDE_MAX = 1 << 14, BATCH_MAX = 1 << 16, CTX_MAX = 1 << 20 };

struct rung_denoiser {
    const network_ops *ops;
    void *net;
    rung_denoiser_info info;
    rung_backend *be; /* borrowed, as is comm; NULL: one rank */
    rung_comm *comm;
    uint64_t config_hash;
    rung_weights *weights;
    rung_layers *layers;
};

struct rung_denoiser_run {
    const rung_denoiser *d;
    rung_backend *be; /* borrowed */
    rung_arena arena;
    rung_mark constant; /* what lies below is kept, what lies above is a step's */
    network_run state;
    rung_recording *recording; /* of a step, where the backend has such */
};

static const struct {
    const char *class_name;
    const network_ops *ops;
} classes[] = {
    {"UNet2DConditionModel", &unet2d_network},
    {"PixArtTransformer2DModel", &dit_network},
    {"Transformer2DModel", &dit_network}, /* what PixArt's checkpoints were written as at first */
    {"LadderTransformer2DModel", &dit_network},
};

static rung_status find_class(const network_ops **ops, const char *name, const char *path, rung_err *err) {
    for (size_t i = 0; name && i < sizeof classes / sizeof *classes; i++) {
        if (strcmp(classes[i].class_name, name) == 0) {
            *ops = classes[i].ops;
            return RUNG_OK;
        }
    }
    return rung_fail(err, RUNG_EFORMAT,
                     "%s: the denoiser's class is %.80s; UNet2DConditionModel, "
                     "PixArtTransformer2DModel and LadderTransformer2DModel are supported",
                     path, name ? name : "not given");
}

rung_status rung_denoiser_open(rung_denoiser **out, rung_model *m, rung_backend *be, rung_store store, rung_err *err) {
    return rung_denoiser_open_part(out, m, be, store, NULL, err);
}

/* The config as text: the order of its keys counts, its white space does not. */
static uint64_t hash_config(const rung_config *c) {
    char *text = cJSON_PrintUnformatted(c->root);
    const uint64_t h = rung_hash(0, text ? text : "", text ? strlen(text) : 0);
    cJSON_free(text);
    return h;
}

uint64_t rung_denoiser_hash(const rung_denoiser *d) {
    return rung_hash_word(d->config_hash, rung_weights_hash(d->weights));
}

rung_status rung_denoiser_open_part(rung_denoiser **out, rung_model *m, rung_backend *be, rung_store store,
                                    rung_comm *comm, rung_err *err) {
    *out = NULL;
    const char *part = NULL, *class_name = NULL;
    if (rung_model_has(m, "unet", &class_name))
        part = "unet";
    else if (rung_model_has(m, "transformer", &class_name))
        part = "transformer";
    else
        return rung_fail(err, RUNG_EFORMAT, "%s: neither a \"unet\" nor a \"transformer\"", rung_model_path(m));
    rung_config config;
    RUNG_TRY(rung_model_config(m, part, &config, err));
    if (!class_name) class_name = cfg_string(&config, "_class_name", NULL);

    rung_status st;
    rung_loader loader = {0};
    rung_denoiser *d = calloc(1, sizeof *d);
    if (!d) return rung_fail(err, RUNG_ENOMEM, "denoiser");
    d->be = be;
    d->comm = comm;
    d->config_hash = hash_config(&config);
    RUNG_TRY_GOTO(st, done, find_class(&d->ops, class_name, rung_model_path(m), err));
    RUNG_TRY_GOTO(st, done, rung_model_weights(m, part, &d->weights, err));
    RUNG_TRY_GOTO(st, done, loader_start(&loader, d->weights, be, store, err));
    if (comm) {
        loader.rank = comm->rank;
        loader.ranks = comm->size;
    }
    st = d->ops->open(&d->net, &d->info, &config, class_name, &loader);
    if (!loader.status) loader.status = st;
    st = loader_finish(&loader, &d->layers);
done:
    if (st) rung_denoiser_close(&d);
    *out = d;
    return st;
}

void rung_denoiser_close(rung_denoiser **d) {
    if (!d || !*d) return;
    if ((*d)->net) (*d)->ops->close((*d)->net);
    rung_layers_close(&(*d)->layers);
    rung_weights_close(&(*d)->weights);
    free(*d);
    *d = NULL;
}

const rung_denoiser_info *rung_denoiser_describe(const rung_denoiser *d) { return &d->info; }

rung_status network_check_picture(const rung_denoiser_cond *c, rung_err *err) {
    if (c->image_h > 0 && c->image_w > 0 && c->image_h < 1e7f && c->image_w < 1e7f) return RUNG_OK;
    return rung_fail(err, RUNG_EARG, "this network reads the picture's size: %gx%g is none", c->image_w, c->image_h);
}

static rung_status check_cond(const rung_denoiser *d, const rung_denoiser_cond *c, rung_err *err) {
    if (c->h == 0 || c->w == 0 || c->h > SIDE_MAX || c->w > SIDE_MAX)
        return rung_fail(err, RUNG_ESHAPE, "latents of %zux%zu: sides must be 1 to %d", c->h, c->w, SIDE_MAX);
    if (c->batch == 0 || c->batch > BATCH_MAX)
        return rung_fail(err, RUNG_ESHAPE, "a batch of %zu: 1 to %d are possible", c->batch, BATCH_MAX);
    if (c->n_ctx == 0 || c->n_ctx > CTX_MAX || !c->ctx)
        return rung_fail(err, RUNG_ESHAPE, "%zu rows of text embeddings: 1 to %d are possible", c->n_ctx, CTX_MAX);
    return d->ops->check_size(d->net, c->h, c->w, err);
}

/* Everything of a run that the arena holds: first the constant part, then a step on top. Without memory behind the
 * arena this finds the size. */
static rung_status lay_out(rung_denoiser_run *r, const rung_denoiser_cond *c, rung_err *err) {
    const rung_denoiser *d = r->d;
    const rung_exec x = {r->be, &r->arena, d->comm};
    RUNG_TRY(attn_key_bias(&x, c, &r->state.key_bias, err));
    RUNG_TRY(d->ops->prepare(d->net, &x, &r->state, c, err));
    r->constant = arena_mark(&r->arena);
    if (!r->arena.base) d->ops->step(d->net, &x, &r->state, NULL, NULL, NULL);
    return exec_check(&x, "denoiser", err);
}

rung_status rung_denoiser_begin(rung_denoiser *d, rung_denoiser_run **out, const rung_denoiser_cond *c, rung_err *err) {
    *out = NULL;
    RUNG_TRY(check_cond(d, c, err));
    rung_status st;
    rung_denoiser_run *r = calloc(1, sizeof *r);
    if (!r) return rung_fail(err, RUNG_ENOMEM, "denoiser run");
    r->d = d;
    r->be = c->be ? c->be : d->be;
    r->state = (network_run){.batch = c->batch, .h = c->h, .w = c->w, .n_ctx = c->n_ctx};
    RUNG_TRY_GOTO(st, done, lay_out(r, c, err));
    const size_t bytes = r->arena.peak;
    r->arena = (rung_arena){0};
    RUNG_TRY_GOTO(st, done, rung_arena_open(&r->arena, r->be, bytes, err));
    RUNG_TRY_GOTO(st, done, lay_out(r, c, err));
    st = r->be->ops->sync(r->be, err);
done:
    if (st) rung_denoiser_end(&r);
    *out = r;
    return st;
}

void rung_denoiser_end(rung_denoiser_run **r) {
    if (!r || !*r) return;
    op_recording_close((*r)->be, &(*r)->recording);
    rung_arena_close(&(*r)->arena, (*r)->be);
    free(*r);
    *r = NULL;
}

size_t rung_denoiser_run_bytes(const rung_denoiser_run *r) { return r->arena.cap; }

static rung_status step(rung_denoiser_run *r, float *out, const float *x, const float *t, rung_err *err) {
    const rung_denoiser *d = r->d;
    const rung_exec e = {r->be, &r->arena, d->comm};
    const bool record = !d->comm; /* what ranks say to each other is no part of a recording */
    do {                          /* once, unless a recording has to be made anew */
        if (record) op_step_begin(r->be, &r->recording);
        arena_rewind(&r->arena, r->constant);
        d->ops->step(d->net, &e, &r->state, out, x, t);
    } while (record && op_step_end(r->be, r->recording));
    RUNG_TRY(exec_check(&e, "denoiser step", err));
    if (d->comm) RUNG_TRY(rung_comm_settle(d->comm, err));
    return r->be->ops->sync(r->be, err);
}

rung_status rung_denoiser_step(rung_denoiser_run *r, float *out, const float *x, const float *t, rung_err *err) {
    r->state.resident = false;
    return step(r, out, x, t, err);
}

rung_status rung_denoiser_step_resident(rung_denoiser_run *r, float *out, const float *x, const float *t,
                                        rung_err *err) {
    r->state.resident = true;
    return step(r, out, x, t, err);
}
