#define _GNU_SOURCE /* usleep */
#include "diffusion/batch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "assets/json.h"
#include "diffusion/batch_files.h"
#include "diffusion/engine.h"

enum { MOST_TOGETHER = 8 }; /* beyond it the networks' products are as fast as they get */

/* One picture to make. */
struct picture {
    rung_request request; /* strings belong to the prompt file */
    size_t line, index;
    char *name, *parameters; /* owned */
    int claim;               /* file descriptor while it is made, else -1 */
    bool settled;            /* made, skipped or given up */
};

struct batch {
    rung_engine *e;
    const batch_options *o;
    struct picture *pictures;
    size_t count, done, made;
    double start;
    batch_run_lock lock;
    batch_manifest manifest;
    batch_result result;
};

static rung_status tell(const struct batch *b, batch_event_kind kind, const struct picture *p, const char *message,
                        rung_err *err) {
    const double each = b->made ? (rung_now() - b->start) / (double)b->made : 0;
    const batch_event e = {.kind = kind,
                           .line = p->line,
                           .message = message,
                           .output = p->name,
                           .seed = p->request.seed,
                           .done = b->done,
                           .total = b->count,
                           .seconds_each = each,
                           .left = each * (double)(b->count - b->done)};
    if (ranks_first(&b->e->ranks) && b->o->event && b->o->event(b->o->user, &e))
        return rung_fail(err, RUNG_ECANCELLED, "cancelled after %zu of %zu pictures", b->done, b->count);
    return RUNG_OK;
}

static rung_status give_up(struct batch *b, struct picture *p, const char *message, rung_err *err) {
    p->settled = true;
    b->done++;
    b->result.faults++;
    return tell(b, BATCH_FAULT, p, message, err);
}

/* The pictures that the file asks for, with their names and the parameters that they will carry: a line whose request
 * the engine would refuse is told now and left out. */
static rung_status plan(struct batch *b, const prompt_file *file, rung_err *err) {
    for (size_t i = 0; i < file->count; i++) b->count += file->lines[i].pictures;
    b->pictures = calloc(b->count + 1, sizeof *b->pictures);
    if (!b->pictures) return rung_fail(err, RUNG_ENOMEM, "batch: no memory for %zu pictures", b->count);
    struct picture *p = b->pictures;
    for (size_t i = 0; i < file->count; i++) {
        const prompt_line *line = &file->lines[i];
        for (size_t k = 0; k < line->pictures; k++, p++) {
            rung_err fault = {0};
            *p = (struct picture){.request = line->request, .line = line->line, .index = k + 1, .claim = -1};
            p->request.seed += k;
            p->request.progress = b->o->progress;
            p->request.progress_user = b->o->user;
            p->name = batch_name(b->o->output, p->line, p->index, p->request.seed, p->request.prompt);
            if (!p->name) return rung_fail(err, RUNG_ENOMEM, "batch: out of memory");
            if (rung_parameters(b->e, &p->request, &p->parameters, &fault) != RUNG_OK)
                RUNG_TRY(give_up(b, p, fault.msg, err));
        }
    }
    return RUNG_OK;
}

static int by_name(const void *a, const void *b) {
    return strcmp((*(struct picture *const *)a)->name, (*(struct picture *const *)b)->name);
}

/* Sorted names into *names (malloc'd, the strings borrowed); two pictures of one name are an error. */
static rung_status distinct_names(const struct batch *b, char ***names, rung_err *err) {
    rung_status st = RUNG_OK;
    struct picture **order = calloc(b->count + 1, sizeof *order);
    *names = calloc(b->count + 1, sizeof **names);
    if (!order || !*names) st = rung_fail(err, RUNG_ENOMEM, "batch: out of memory");
    for (size_t i = 0; !st && i < b->count; i++) order[i] = &b->pictures[i];
    if (!st) qsort(order, b->count, sizeof *order, by_name);
    for (size_t i = 0; !st && i < b->count; i++) {
        (*names)[i] = order[i]->name;
        if (i && strcmp(order[i]->name, order[i - 1]->name) == 0)
            st = rung_fail(err, RUNG_EARG,
                           "lines %zu and %zu would both write %s: put {line} and {index} or {seed} into "
                           "--output",
                           order[i - 1]->line, order[i]->line, order[i]->name);
    }
    free(order);
    return st;
}

static rung_status add_to_manifest(const struct batch *b, const struct picture *p, rung_err *err) {
    const rung_request *r = &p->request;
    const rung_engine_info *info = rung_describe(b->e);
    char seed[32];
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)r->seed);
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "output", p->name);
    cJSON_AddNumberToObject(o, "line", (double)p->line);
    cJSON_AddNumberToObject(o, "index", (double)p->index);
    cJSON_AddStringToObject(o, "prompt", r->prompt);
    cJSON_AddStringToObject(o, "negative_prompt", r->negative_prompt ? r->negative_prompt : "");
    cJSON_AddRawToObject(o, "seed", seed); /* a double would round seeds above 2^53 */
    cJSON_AddNumberToObject(o, "steps", r->steps ? r->steps : info->steps);
    cJSON_AddNumberToObject(o, "cfg_scale", (double)(r->cfg_scale > 0 ? r->cfg_scale : info->cfg_scale));
    cJSON_AddNumberToObject(o, "width", (double)(r->width ? r->width : info->width));
    cJSON_AddNumberToObject(o, "height", (double)(r->height ? r->height : info->height));
    if (r->sampler) cJSON_AddStringToObject(o, "sampler_name", r->sampler);
    if (r->scheduler) cJSON_AddStringToObject(o, "scheduler", r->scheduler);
    if (r->clip_skip) cJSON_AddNumberToObject(o, "clip_skip", r->clip_skip);
    if (r->eta_set) cJSON_AddNumberToObject(o, "eta", (double)r->eta);
    if (r->guidance_rescale > 0) cJSON_AddNumberToObject(o, "guidance_rescale", (double)r->guidance_rescale);
    cJSON_AddStringToObject(o, "rng", r->rng == RUNG_RNG_CPU ? "cpu" : "cuda");
    cJSON_AddStringToObject(o, "model", rung_model_path(b->e->model));
    cJSON_AddStringToObject(o, "parameters", p->parameters); /* with what the command line said for all */
    cJSON_AddStringToObject(o, "version", rung_version());
    char *text = cJSON_PrintUnformatted(o);
    const rung_status st =
        text ? batch_manifest_append(&b->manifest, text, err) : rung_fail(err, RUNG_ENOMEM, "batch: out of memory");
    cJSON_free(text);
    cJSON_Delete(o);
    return st;
}

static bool is_done(const struct batch *b, const struct picture *p) {
    return (b->o->resume || batch_picture_is_of_run(p->name, &b->lock)) &&
           batch_picture_is_done(p->name, p->parameters);
}

/* A picture that is whole. Killed between picture and manifest, an earlier run may have left it without its line. */
static rung_status skip(struct batch *b, struct picture *p, rung_err *err) {
    p->settled = true;
    b->done++;
    b->result.skipped++;
    if (b->lock.first && !batch_manifest_has(&b->manifest, p->name) && !batch_picture_is_of_run(p->name, &b->lock))
        RUNG_TRY(add_to_manifest(b, p, err));
    return tell(b, BATCH_SKIPPED, p, NULL, err);
}

/* The pictures that one group of ranks draws together in a round, by their numbers. */
struct share {
    uint32_t count, picture[MOST_TOGETHER * 8];
};

/* What the groups do in one round; the same on every rank. */
struct round {
    uint32_t open; /* 0: nothing is left */
    struct share *shares;
};

static bool same_text(const char *a, const char *b) { return a == b || (a && b && strcmp(a, b) == 0); }

/* May b be drawn in one batch with a? What rung_generate takes from the first request has to be equal. */
static bool go_together(const rung_request *a, const rung_request *b) {
    return a->width == b->width && a->height == b->height && a->steps == b->steps && a->cfg_scale == b->cfg_scale &&
           a->eta_set == b->eta_set && a->eta == b->eta && a->clip_skip == b->clip_skip &&
           a->guidance_rescale == b->guidance_rescale && same_text(a->sampler, b->sampler) &&
           same_text(a->scheduler, b->scheduler);
}

/* Pictures that are open and fit the first one found, claimed for this process. What is done meanwhile is skipped. */
static rung_status gather(struct batch *b, size_t most, struct share *s, rung_err *err) {
    for (size_t i = 0; i < b->count && s->count < most; i++) {
        struct picture *p = &b->pictures[i];
        if (p->settled || p->claim >= 0) continue;
        if (s->count && !go_together(&b->pictures[s->picture[0]].request, &p->request)) continue;
        RUNG_TRY(batch_claim(p->name, &p->claim, err));
        if (p->claim < 0) continue;
        if (is_done(b, p)) {
            batch_release(p->name, p->claim);
            p->claim = -1;
            RUNG_TRY(skip(b, p, err));
        } else {
            s->picture[s->count++] = (uint32_t)i;
        }
    }
    return RUNG_OK;
}

static rung_status keep_picture(struct batch *b, struct picture *p, const rung_image *image, rung_status drawn,
                                const char *why, rung_err *err) {
    rung_err fault = {0};
    rung_status st = drawn ? rung_fail(&fault, drawn, "%s", why) : rung_image_save(image, p->name, &fault);
    if (!st) st = add_to_manifest(b, p, &fault);
    if (st) return give_up(b, p, fault.msg, err);
    p->settled = true;
    b->done++;
    b->made++;
    b->result.made++;
    return tell(b, BATCH_PICTURE, p, NULL, err);
}

/* How a group's drawing ended, for rank 0. */
struct outcome {
    rung_status status;
    char message[sizeof((rung_err *)NULL)->msg];
};

/* One group's pictures to rank 0, which writes them. `images`: of this rank's group, when it is that one. */
static rung_status collect(struct batch *b, const struct share *s, int group, struct outcome *o, rung_image *images,
                           rung_err *err) {
    const ranks *r = &b->e->ranks;
    const int leader = ranks_leader(r, group);
    const bool ours = group == r->group_number;
    if (r->world && s->count) RUNG_TRY(rung_comm_broadcast_now(r->world, o, sizeof *o, leader, err));
    if (o->status == RUNG_ECANCELLED || o->status == RUNG_EPEER) return rung_fail(err, o->status, "%s", o->message);
    for (size_t i = 0; i < s->count; i++) {
        rung_image none = {0}, *image = ours ? &images[i] : &none;
        rung_status st = o->status ? RUNG_OK : ranks_bring(r, image, leader, err);
        if (!st && ranks_first(r)) st = keep_picture(b, &b->pictures[s->picture[i]], image, o->status, o->message, err);
        rung_image_free(&none);
        RUNG_TRY(st);
    }
    return RUNG_OK;
}

static rung_status draw(struct batch *b, const struct round *round, rung_err *err) {
    const ranks *r = &b->e->ranks;
    const struct share *own = &round->shares[r->group_number];
    rung_request requests[MOST_TOGETHER * 8] = {0};
    rung_image images[MOST_TOGETHER * 8] = {0};
    struct outcome mine = {0};
    rung_err fault = {0};
    for (size_t i = 0; i < own->count; i++) requests[i] = b->pictures[own->picture[i]].request;
    if (own->count) mine.status = rung_generate(b->e, requests, own->count, images, &fault);
    snprintf(mine.message, sizeof mine.message, "%s", fault.msg);
    /* half a group cannot go on when the other half failed */
    rung_status st = mine.status && r->group ? rung_fail(err, mine.status, "%s", fault.msg) : RUNG_OK;
    for (int g = 0; !st && g < r->groups; g++) {
        struct outcome theirs = mine;
        st = collect(b, &round->shares[g], g, &theirs, images, err);
    }
    for (size_t i = 0; i < own->count; i++) rung_image_free(&images[i]);
    return st;
}

/* How many pictures of this size fit into half of the memory that is free. */
static size_t fitting(const struct batch *b, const rung_request *r) {
    if (b->o->batch_size) return b->o->batch_size < MOST_TOGETHER * 8 ? b->o->batch_size : MOST_TOGETHER * 8;
    const size_t each = rung_request_bytes(b->e, r);
    const size_t memory = (size_t)sysconf(_SC_AVPHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE) / 2;
    const size_t n = each ? memory / each : 1;
    return n < 1 ? 1 : n > MOST_TOGETHER ? MOST_TOGETHER : n;
}

/* Rank 0 shares out what is open: pictures that go together as evenly as they can be, so that the groups of a round end
 * at about the same time; the others are told. */
static rung_status share_out(struct batch *b, struct round *round, rung_err *err) {
    const ranks *r = &b->e->ranks;
    const size_t groups = (size_t)r->groups;
    const struct picture *first = NULL;
    size_t alike = 0; /* open pictures that go together with the first one */
    memset(round->shares, 0, groups * sizeof *round->shares);
    round->open = 0;
    for (size_t i = 0; ranks_first(r) && i < b->count; i++) {
        if (b->pictures[i].settled) continue;
        if (!first) first = &b->pictures[i];
        alike += go_together(&first->request, &b->pictures[i].request);
        round->open++;
    }
    if (first) {
        const size_t fit = fitting(b, &first->request), even = (alike + groups - 1) / groups;
        for (size_t g = 0; g < groups; g++) RUNG_TRY(gather(b, fit < even ? fit : even, &round->shares[g], err));
    }
    if (!r->world) return RUNG_OK;
    RUNG_TRY(rung_comm_broadcast_now(r->world, &round->open, sizeof round->open, 0, err));
    return rung_comm_broadcast_now(r->world, round->shares, groups * sizeof *round->shares, 0, err);
}

static void release(struct batch *b, const struct round *round) {
    for (int g = 0; g < b->e->ranks.groups; g++) {
        for (size_t i = 0; i < round->shares[g].count; i++) {
            struct picture *p = &b->pictures[round->shares[g].picture[i]];
            if (p->claim >= 0) batch_release(p->name, p->claim);
            p->claim = -1;
        }
    }
}

/* Rounds until nothing is left; pictures that another process holds are looked at again at the end, once it is done. */
static rung_status draw_all(struct batch *b, rung_err *err) {
    struct round round = {.shares = calloc((size_t)b->e->ranks.groups, sizeof *round.shares)};
    rung_status st = round.shares ? RUNG_OK : rung_fail(err, RUNG_ENOMEM, "batch: out of memory");
    while (!st) {
        bool idle = true;
        st = share_out(b, &round, err);
        if (st || !round.open) break;
        for (int g = 0; g < b->e->ranks.groups; g++) idle &= round.shares[g].count == 0;
        if (!idle) st = draw(b, &round, err);
        release(b, &round);
        if (idle) usleep(100 * 1000); /* the rest is being drawn by others */
    }
    free(round.shares);
    return st;
}

rung_status batch_run(rung_engine *e, const prompt_file *file, const batch_options *o, batch_result *out,
                      rung_err *err) {
    struct batch b = {.e = e, .o = o, .start = rung_now(), .lock.fd = -1};
    char *folder = NULL, **names = NULL;
    rung_status st;
    const bool first = ranks_first(&e->ranks); /* it alone has to do with files */
    for (size_t i = 0; i < file->fault_count; i++) {
        b.result.faults++;
        const struct picture nowhere = {.line = file->faults[i].line};
        RUNG_TRY(tell(&b, BATCH_FAULT, &nowhere, file->faults[i].message, err));
    }
    if (first) RUNG_TRY_GOTO(st, done, batch_folder(o->output, &folder, err));
    RUNG_TRY_GOTO(st, done, plan(&b, file, err));
    RUNG_TRY_GOTO(st, done, distinct_names(&b, &names, err));
    if (first) RUNG_TRY_GOTO(st, done, batch_lock(&b.lock, folder, err));
    if (first)
        RUNG_TRY_GOTO(st, done,
                      batch_manifest_open(&b.manifest, folder, b.lock.first, names, o->resume ? 0 : b.count, err));
    st = draw_all(&b, err);
done:
    *out = b.result;
    batch_manifest_close(&b.manifest);
    batch_unlock(&b.lock);
    for (size_t i = 0; b.pictures && i < b.count; i++) {
        if (b.pictures[i].claim >= 0) batch_release(b.pictures[i].name, b.pictures[i].claim);
        free(b.pictures[i].name);
        free(b.pictures[i].parameters);
    }
    free(b.pictures);
    free(names);
    free(folder);
    return st;
}
