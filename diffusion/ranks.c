#include "diffusion/ranks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/hash.h"
#include "kernels/base/size.h"

rung_status ranks_agree(rung_comm *c, uint64_t hash, const char *what, rung_err *err) {
    if (!c) return RUNG_OK;
    uint64_t *all = calloc((size_t)c->size, sizeof *all);
    if (!all) return rung_fail(err, RUNG_ENOMEM, "%d ranks: out of memory", c->size);
    all[c->rank] = hash;
    rung_status st = rung_comm_gather_now(c, all, sizeof *all, err);
    for (int i = 1; !st && i < c->size; i++)
        if (all[i] != all[0])
            st = rung_fail(err, RUNG_EPEER, "rank %d has another %s than rank 0 (hash %016llx, wanted %016llx)", i,
                           what, (unsigned long long)all[i], (unsigned long long)all[0]);
    free(all);
    return st;
}

rung_status ranks_open(ranks *r, rung_comm *world, int tp, int cfg, rung_err *err) {
    *r = (ranks){.groups = 1};
    if (!world || world->size == 1) return RUNG_OK;
    const int each = tp * cfg;
    const char *version = rung_version();
    RUNG_TRY(ranks_agree(world, rung_hash(0, version, strlen(version)), "version of rung", err));
    RUNG_TRY(ranks_agree(world, rung_hash_word((uint64_t)tp, (uint64_t)cfg), "--parallel layout", err));
    if (tp < 1 || cfg < 1 || cfg > 2 || world->size % each)
        return rung_fail(err, RUNG_EARG, "tp %d times cfg %d over %d ranks", tp, cfg, world->size);
    r->world = world;
    r->groups = world->size / each;
    r->group_number = world->rank / each;
    const int half = world->rank / tp, part = r->group_number * tp + world->rank % tp;
    if (each > 1) RUNG_TRY(rung_comm_split(world, &r->group, r->group_number, err));
    if (tp > 1) RUNG_TRY(rung_comm_split(world, &r->tp, half, err));
    if (cfg > 1) RUNG_TRY(rung_comm_split(world, &r->cfg, part, err));
    return RUNG_OK;
}

void ranks_close(ranks *r) {
    rung_comm_close(&r->cfg);
    rung_comm_close(&r->tp);
    rung_comm_close(&r->group);
}

/* `bytes` at *p from rank `from`: malloc'd where it was not there yet. NULL stays NULL for 0 bytes. */
static rung_status share(rung_comm *c, void **p, size_t bytes, int from, rung_err *err) {
    if (!bytes) return RUNG_OK;
    if (c->rank != from) {
        free(*p);
        *p = malloc(bytes);
    }
    if (!*p) return rung_fail(err, RUNG_ENOMEM, "no memory for %zu bytes of another rank", bytes);
    return rung_comm_broadcast_now(c, *p, bytes, from, err);
}

rung_status ranks_share_text(rung_comm *c, char **text, rung_err *err) {
    if (!c) return RUNG_OK;
    uint64_t bytes = *text ? strlen(*text) + 1 : 0;
    void *p = *text;
    RUNG_TRY(rung_comm_broadcast_now(c, &bytes, sizeof bytes, 0, err));
    const rung_status st = share(c, &p, (size_t)bytes, 0, err);
    *text = p;
    return st;
}

rung_status ranks_share_embeds(rung_comm *c, rung_embeds *e, size_t n, rung_err *err) {
    if (!c) return RUNG_OK;
    for (size_t i = 0; i < n; i++) {
        uint64_t head[3] = {e[i].n, e[i].d, e[i].mask != NULL};
        void *data = e[i].data, *mask = e[i].mask;
        RUNG_TRY(rung_comm_broadcast_now(c, head, sizeof head, 0, err));
        rung_status st = share(c, &data, (size_t)(head[0] * head[1]) * sizeof(float), 0, err);
        e[i].data = data;
        if (!st && head[2]) st = share(c, &mask, (size_t)head[0], 0, err);
        e[i].mask = mask;
        e[i].n = (size_t)head[0];
        e[i].d = (size_t)head[1];
        RUNG_TRY(st);
    }
    return RUNG_OK;
}

/* A sampler's name as the table has it: the sender's pointer means nothing here. */
static const char *known_name(const char *name) {
    for (size_t i = 0; i < rung_sampler_count(); i++)
        if (strcmp(rung_sampler_get(i)->name, name) == 0) return rung_sampler_get(i)->name;
    return "";
}

/* What goes ahead of a picture: everything of fixed size. */
struct picture_head {
    rung_image image; /* its pointers mean nothing here */
    char sampler[32];
    size_t parameters; /* bytes, with the end */
};

rung_status ranks_bring(const ranks *r, rung_image *image, int from, rung_err *err) {
    rung_comm *c = r->world;
    if (!c || from == 0) return RUNG_OK;
    struct picture_head head = {.image = *image};
    void *parts[4] = {NULL};
    if (c->rank == from) {
        head.parameters = image->parameters ? strlen(image->parameters) + 1 : 0;
        snprintf(head.sampler, sizeof head.sampler, "%s", image->sampler);
        memcpy(parts, (void *[]){image->pixels, image->latents, image->embeds, image->parameters}, sizeof parts);
    }
    RUNG_TRY(rung_comm_broadcast_now(c, &head, sizeof head, from, err));
    const rung_image *got = &head.image;
    const size_t bytes[] = {got->width * got->height * got->channels,
                            got->latent_channels * got->latent_h * got->latent_w * sizeof(float),
                            got->embed_rows * got->context_dim * sizeof(float), head.parameters};
    rung_status st = RUNG_OK;
    for (size_t i = 0; !st && i < 4; i++) st = share(c, &parts[i], bytes[i], from, err);
    if (c->rank == 0) {
        *image = *got;
        image->pixels = parts[0];
        image->latents = parts[1];
        image->embeds = parts[2];
        image->parameters = parts[3];
        image->sampler = known_name(head.sampler);
    } else if (c->rank != from) {
        for (size_t i = 0; i < 4; i++) free(parts[i]);
    }
    return st;
}
