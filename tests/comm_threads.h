/* tests/comm_threads.h - ranks as threads of one process, and a network between them that is as unkind as MPI may be: a
 * buffer is poisoned with NaN while its transfer is under way, transfers complete in a shuffled order, and one wait of
 * the caller's choice can be taken out. Sums are in rank order. */
#ifndef RUNG_COMM_THREADS_H
#define RUNG_COMM_THREADS_H
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/comm.h"

enum { HUB_RANKS = 8, HUB_TRANSFERS = 1 << 14 };

typedef enum { HUB_REDUCE, HUB_GATHER, HUB_BROADCAST } hub_kind;

/* The k-th transfer of every rank. */
typedef struct {
    hub_kind kind;
    size_t bytes; /* of one rank's part */
    int root, arrived;
    void *target[HUB_RANKS]; /* the callers' buffers */
    void *part[HUB_RANKS];   /* what was in them */
    bool delivered;
} hub_transfer;

typedef struct {
    int size;
    bool late;     /* nothing is delivered before its wait; else anything complete may be at any moment */
    long drop;     /* number of the wait that every rank leaves out; -1: none */
    int dead_rank; /* fails at its first transfer, telling the others; -1: none */
    uint64_t seed;
    pthread_mutex_t lock;
    pthread_cond_t moved;
    hub_transfer *transfers; /* [HUB_TRANSFERS] */
    char told[400];
} hub;

typedef struct {
    rung_comm base;
    hub *h;
    uint32_t started;
    long waits;
} hub_comm;

static void hub_open(hub *h, int size) {
    *h = (hub){.size = size, .drop = -1, .dead_rank = -1, .seed = 7};
    pthread_mutex_init(&h->lock, NULL);
    pthread_cond_init(&h->moved, NULL);
    h->transfers = calloc(HUB_TRANSFERS, sizeof *h->transfers);
    if (!h->transfers) abort();
}

static void hub_close(hub *h) {
    for (size_t i = 0; i < HUB_TRANSFERS; i++)
        for (int r = 0; r < h->size; r++) free(h->transfers[i].part[r]);
    free(h->transfers);
    pthread_cond_destroy(&h->moved);
    pthread_mutex_destroy(&h->lock);
}

static void hub_poison(void *p, size_t bytes) { memset(p, 0xff, bytes); } /* NaNs as floats */

/* Result of a complete transfer to every rank's buffer. Under the lock. */
static void hub_deliver(hub *h, hub_transfer *t) {
    for (int r = 0; r < h->size; r++) {
        if (t->kind == HUB_BROADCAST) {
            memcpy(t->target[r], t->part[t->root], t->bytes);
        } else if (t->kind == HUB_GATHER) {
            for (int k = 0; k < h->size; k++) memcpy((char *)t->target[r] + (size_t)k * t->bytes, t->part[k], t->bytes);
        } else {
            float *y = t->target[r];
            for (size_t i = 0; i < t->bytes / sizeof *y; i++) {
                y[i] = ((const float *)t->part[0])[i];
                for (int k = 1; k < h->size; k++) y[i] += ((const float *)t->part[k])[i];
            }
        }
    }
    t->delivered = true;
    pthread_cond_broadcast(&h->moved);
}

/* Some of what is complete arrives now, in an order of its own. Under the lock. */
static void hub_shuffle(hub *h, uint32_t upto) {
    for (int tries = 0; !h->late && tries < 4 && upto; tries++) {
        h->seed = h->seed * 6364136223846793005u + 1442695040888963407u;
        const uint32_t back = (uint32_t)(h->seed >> 40) % (upto < 4 ? upto : 4);
        hub_transfer *t = &h->transfers[upto - 1 - back];
        if (t->arrived == h->size && !t->delivered) hub_deliver(h, t);
    }
}

static rung_status hub_start(hub_comm *c, rung_transfer *out, hub_kind kind, void *buf, size_t bytes, int root,
                             rung_err *err) {
    hub *h = c->h;
    const int rank = c->base.rank;
    if (h->dead_rank == rank) return rung_fail(err, RUNG_EDEVICE, "rank %d has lost its network", rank);
    if (c->started == HUB_TRANSFERS) return rung_fail(err, RUNG_ESHAPE, "more than %d transfers", HUB_TRANSFERS);
    pthread_mutex_lock(&h->lock);
    hub_transfer *t = &h->transfers[c->started];
    char *own = (char *)buf + (kind == HUB_GATHER ? (size_t)rank * bytes : 0);
    const bool same = t->arrived == 0 || (t->kind == kind && t->bytes == bytes && t->root == root);
    t->kind = kind;
    t->bytes = bytes;
    t->root = root;
    t->target[rank] = buf;
    t->part[rank] = malloc(bytes + 1);
    memcpy(t->part[rank], own, bytes);
    hub_poison(buf, kind == HUB_GATHER ? bytes * (size_t)h->size : bytes);
    t->arrived++;
    *out = ++c->started;
    hub_shuffle(h, c->started);
    pthread_cond_broadcast(&h->moved);
    pthread_mutex_unlock(&h->lock);
    return same ? RUNG_OK : rung_fail(err, RUNG_EPEER, "rank %d starts another transfer than the others", rank);
}

static rung_status hub_reduce(rung_comm *c, rung_transfer *t, float *buf, size_t n, rung_err *err) {
    return hub_start((hub_comm *)c, t, HUB_REDUCE, buf, n * sizeof *buf, 0, err);
}
static rung_status hub_gather(rung_comm *c, rung_transfer *t, void *all, size_t bytes, rung_err *err) {
    return hub_start((hub_comm *)c, t, HUB_GATHER, all, bytes, 0, err);
}
static rung_status hub_broadcast(rung_comm *c, rung_transfer *t, void *buf, size_t bytes, int root, rung_err *err) {
    return hub_start((hub_comm *)c, t, HUB_BROADCAST, buf, bytes, root, err);
}

static rung_status hub_wait(rung_comm *base, rung_transfer which, const float **rest, rung_err *err) {
    hub_comm *c = (hub_comm *)base;
    hub *h = c->h;
    if (c->waits++ == h->drop) return RUNG_OK;
    hub_transfer *t = &h->transfers[which - 1];
    pthread_mutex_lock(&h->lock);
    while (!t->delivered && !h->told[0]) {
        if (!h->late) hub_shuffle(h, c->started);
        if (t->arrived == h->size && !t->delivered) hub_deliver(h, t);
        if (!t->delivered) pthread_cond_wait(&h->moved, &h->lock);
    }
    const rung_status st = t->delivered ? RUNG_OK : rung_fail(err, RUNG_EPEER, "%s", h->told);
    if (!st && rest && h->size == 2) { /* the addition is left to the caller */
        memcpy(t->target[c->base.rank], t->part[c->base.rank], t->bytes);
        *rest = t->part[1 - c->base.rank];
    }
    pthread_mutex_unlock(&h->lock);
    return st;
}

static void hub_progress(rung_comm *base) {
    hub_comm *c = (hub_comm *)base;
    pthread_mutex_lock(&c->h->lock);
    hub_shuffle(c->h, c->started);
    pthread_mutex_unlock(&c->h->lock);
}

static rung_status hub_split(rung_comm *c, rung_comm **out, int group, rung_err *err) {
    (void)c, (void)out, (void)group;
    return rung_fail(err, RUNG_EARG, "threads are not split");
}

static void hub_tell(rung_comm *base, const char *message) {
    hub *h = ((hub_comm *)base)->h;
    pthread_mutex_lock(&h->lock);
    if (!h->told[0]) snprintf(h->told, sizeof h->told, "rank %d: %s", base->rank, message);
    pthread_cond_broadcast(&h->moved);
    pthread_mutex_unlock(&h->lock);
}

static rung_status hub_listen(rung_comm *base, rung_err *err) {
    hub *h = ((hub_comm *)base)->h;
    pthread_mutex_lock(&h->lock);
    const rung_status st = h->told[0] ? rung_fail(err, RUNG_EPEER, "%s", h->told) : RUNG_OK;
    pthread_mutex_unlock(&h->lock);
    return st;
}

static void hub_comm_close(rung_comm *c) { (void)c; }

/* Rank `rank` of the hub: lives in *c. */
static rung_comm *hub_join(hub *h, hub_comm *c, int rank) {
    static const rung_comm_ops ops = {"threads",    hub_comm_close, hub_reduce, hub_gather, hub_broadcast, hub_wait,
                                      hub_progress, hub_split,      hub_tell,   NULL,       hub_listen};
    *c = (hub_comm){.base = {.ops = &ops, .rank = rank, .size = h->size}, .h = h};
    return &c->base;
}
#endif
