#define _POSIX_C_SOURCE 200809L /* clock_gettime */
#include "kernels/base/comm.h"

#include <stdlib.h>
#include <time.h>

/* ---- alone ---- */

static void alone_close(rung_comm *c) { free(c); }

static rung_status alone_reduce(rung_comm *c, rung_transfer *t, float *buf, size_t n, rung_err *err) {
    (void)c, (void)t, (void)buf, (void)n, (void)err;
    return RUNG_OK;
}

static rung_status alone_gather(rung_comm *c, rung_transfer *t, void *all, size_t bytes, rung_err *err) {
    (void)c, (void)t, (void)all, (void)bytes, (void)err;
    return RUNG_OK;
}

static rung_status alone_broadcast(rung_comm *c, rung_transfer *t, void *buf, size_t bytes, int root, rung_err *err) {
    (void)c, (void)t, (void)buf, (void)bytes, (void)root, (void)err;
    return RUNG_OK;
}

static rung_status alone_wait(rung_comm *c, rung_transfer t, const float **rest, rung_err *err) {
    (void)c, (void)t, (void)rest, (void)err;
    return RUNG_OK;
}

static void alone_progress(rung_comm *c) { (void)c; }

static rung_status alone_split(rung_comm *c, rung_comm **out, int group, rung_err *err) {
    (void)c, (void)group;
    return rung_comm_alone_open(out, err);
}

static void alone_tell(rung_comm *c, const char *message) { (void)c, (void)message; }

rung_status rung_comm_alone_open(rung_comm **out, rung_err *err) {
    static const rung_comm_ops ops = {"alone",    alone_close,    alone_reduce, alone_gather, alone_broadcast,
                                      alone_wait, alone_progress, alone_split,  alone_tell,   NULL,
                                      NULL};
    *out = calloc(1, sizeof **out);
    if (!*out) return rung_fail(err, RUNG_ENOMEM, "communicator: out of memory");
    **out = (rung_comm){.ops = &ops, .size = 1};
    return RUNG_OK;
}

/* ---- any ---- */

void rung_comm_close(rung_comm **c) {
    if (*c) (*c)->ops->close(*c);
    *c = NULL;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The first failure, kept and handed on. */
static rung_status settle(rung_comm *c, rung_status st, rung_err *err) {
    return st ? rung_fail(err, c->failed.code, "%s", c->failed.msg) : st;
}

static rung_status started(rung_comm *c, rung_status st, size_t bytes, rung_err *err) {
    c->stats.transfers++;
    c->stats.bytes += bytes;
    return settle(c, st, err);
}

rung_status rung_comm_reduce(rung_comm *c, rung_transfer *t, float *buf, size_t n, rung_err *err) {
    *t = 0;
    if (c->failed.code) return settle(c, c->failed.code, err);
    return started(c, c->ops->reduce(c, t, buf, n, &c->failed), n * sizeof *buf, err);
}

rung_status rung_comm_gather(rung_comm *c, rung_transfer *t, void *all, size_t bytes, rung_err *err) {
    *t = 0;
    if (c->failed.code) return settle(c, c->failed.code, err);
    return started(c, c->ops->gather(c, t, all, bytes, &c->failed), bytes, err);
}

rung_status rung_comm_broadcast(rung_comm *c, rung_transfer *t, void *buf, size_t bytes, int root, rung_err *err) {
    *t = 0;
    if (c->failed.code) return settle(c, c->failed.code, err);
    return started(c, c->ops->broadcast(c, t, buf, bytes, root, &c->failed), bytes, err);
}

static rung_status wait_for(rung_comm *c, rung_transfer *t, const float **rest, rung_err *err) {
    const rung_transfer what = *t;
    *t = 0;
    if (c->failed.code) return settle(c, c->failed.code, err);
    if (!what) return RUNG_OK;
    const double start = now();
    const rung_status st = c->ops->wait(c, what, rest, &c->failed);
    c->stats.waited += now() - start;
    return settle(c, st, err);
}

rung_status rung_comm_wait(rung_comm *c, rung_transfer *t, rung_err *err) { return wait_for(c, t, NULL, err); }

rung_status rung_comm_wait_rest(rung_comm *c, rung_transfer *t, const float **rest, rung_err *err) {
    *rest = NULL;
    return wait_for(c, t, rest, err);
}

rung_status rung_comm_settle(rung_comm *c, rung_err *err) {
    if (c->failed.code || !c->ops->settle) return settle(c, c->failed.code, err);
    return settle(c, c->ops->settle(c, &c->failed), err);
}

rung_status rung_comm_gather_now(rung_comm *c, void *all, size_t bytes, rung_err *err) {
    rung_transfer t;
    RUNG_TRY(rung_comm_gather(c, &t, all, bytes, err));
    return rung_comm_wait(c, &t, err);
}

rung_status rung_comm_broadcast_now(rung_comm *c, void *buf, size_t bytes, int root, rung_err *err) {
    rung_transfer t;
    RUNG_TRY(rung_comm_broadcast(c, &t, buf, bytes, root, err));
    return rung_comm_wait(c, &t, err);
}

void rung_comm_progress(void *comm) {
    rung_comm *c = comm;
    if (!c->failed.code) c->ops->progress(c);
}

rung_status rung_comm_split(rung_comm *c, rung_comm **out, int group, rung_err *err) {
    *out = NULL;
    if (c->failed.code) return settle(c, c->failed.code, err);
    return settle(c, c->ops->split(c, out, group, &c->failed), err);
}

void rung_comm_tell(rung_comm *c, const char *message) { c->ops->tell(c, message); }

rung_status rung_comm_listen(rung_comm *c, rung_err *err) {
    if (c->failed.code || !c->ops->listen) return settle(c, c->failed.code, err);
    return settle(c, c->ops->listen(c, &c->failed), err);
}
