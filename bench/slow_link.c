#define _POSIX_C_SOURCE 200809L /* nanosleep */
#include "bench/slow_link.h"

#include <stdlib.h>
#include <time.h>

#include "bench/bench_ops.h"

enum { MOST = 8 };

/* A sum under way, and when each rank's part of it has gone over the link. */
struct slow_sum {
    bool taken;
    rung_transfer sum, times;
    double *arrives; /* [size] */
};

struct slow_link {
    rung_comm base;
    rung_comm *below;
    double bytes_per_second, free_at;
    struct slow_sum sums[MOST]; /* by transfer - 1 */
};

static struct slow_link *self_of(rung_comm *c) { return (struct slow_link *)c; }

static rung_status reduce(rung_comm *c, rung_transfer *t, float *buf, size_t n, rung_err *err) {
    struct slow_link *l = self_of(c);
    const double start = bench_now();
    int i = 0;
    while (i < MOST && l->sums[i].taken) i++;
    if (i == MOST) return rung_fail(err, RUNG_ESHAPE, "more than %d sums under way", MOST);
    struct slow_sum *s = &l->sums[i];
    RUNG_TRY(rung_comm_reduce(l->below, &s->sum, buf, n, err));
    l->free_at = (l->free_at > start ? l->free_at : start) + (double)(n * sizeof *buf) / l->bytes_per_second;
    s->arrives[c->rank] = l->free_at;
    RUNG_TRY(rung_comm_gather(l->below, &s->times, s->arrives, sizeof *s->arrives, err));
    s->taken = true;
    *t = (rung_transfer)i + 1;
    return RUNG_OK;
}

static rung_status gather(rung_comm *c, rung_transfer *t, void *all, size_t bytes, rung_err *err) {
    *t = 0; /* complete */
    return rung_comm_gather_now(self_of(c)->below, all, bytes, err);
}

static rung_status wait_sum(rung_comm *c, rung_transfer t, const float **rest, rung_err *err) {
    struct slow_link *l = self_of(c);
    struct slow_sum *s = &l->sums[t - 1];
    RUNG_TRY(rung_comm_wait(l->below, &s->times, err));
    RUNG_TRY(rest ? rung_comm_wait_rest(l->below, &s->sum, rest, err) : rung_comm_wait(l->below, &s->sum, err));
    s->taken = false;
    for (int r = 0; r < c->size; r++) {
        const double left = s->arrives[r] - bench_now();
        if (left > 0) nanosleep(&(struct timespec){(time_t)left, (long)(1e9 * (left - (double)(time_t)left))}, NULL);
    }
    return RUNG_OK;
}

static void close_link(rung_comm *c) {
    struct slow_link *l = self_of(c);
    for (int i = 0; i < MOST; i++) free(l->sums[i].arrives);
    free(l);
}

rung_status slow_link_open(rung_comm **out, rung_comm *below, double bytes_per_second, rung_err *err) {
    static const rung_comm_ops ops = {
        .name = "slow link", .close = close_link, .reduce = reduce, .gather = gather, .wait = wait_sum};
    struct slow_link *l = calloc(1, sizeof *l);
    *out = NULL;
    if (!l) return rung_fail(err, RUNG_ENOMEM, "bench: out of memory");
    l->base = (rung_comm){.ops = &ops, .rank = below->rank, .size = below->size};
    l->below = below;
    l->bytes_per_second = bytes_per_second;
    bool whole = true;
    for (int i = 0; i < MOST; i++) {
        l->sums[i].arrives = calloc((size_t)below->size, sizeof *l->sums[i].arrives);
        whole &= l->sums[i].arrives != NULL;
    }
    if (!whole) {
        close_link(&l->base);
        return rung_fail(err, RUNG_ENOMEM, "bench: out of memory");
    }
    *out = &l->base;
    return RUNG_OK;
}
