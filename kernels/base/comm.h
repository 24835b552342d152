/* kernels/base/comm.h - ranks: processes (or threads, or GPUs) that compute one picture together, and the three things
 * they exchange: sums, parts, and what one of them knows.
 *
 * Everything is started and waited for: between the two the buffer belongs to the communicator and is neither read nor
 * written, and the transfer goes on while the rank computes (rung_comm_progress, which a thread pool calls between its
 * tasks). Operations of one communicator are started in the same order on every rank, and may be waited for in any.
 *
 * Implementations: alone (here: one rank, nothing moves), MPI (comm_mpi.h), NCCL (kernels/nccl/comm_nccl.h).
 */
#ifndef RUNG_COMM_H
#define RUNG_COMM_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/err.h"

typedef struct rung_comm rung_comm;

/* A transfer under way; 0: none, so that a zeroed one may be waited for. */
typedef uint32_t rung_transfer;

/* Counted since the communicator was opened, or since the caller zeroed it. */
typedef struct {
    size_t transfers, bytes;
    double waited; /* seconds in rung_comm_wait: communication that nothing hid */
} rung_comm_stats;

typedef struct {
    const char *name; /* "alone", "mpi", "nccl" */
    void (*close)(rung_comm *c);
    rung_status (*reduce)(rung_comm *c, rung_transfer *t, float *buf, size_t n, rung_err *err);
    rung_status (*gather)(rung_comm *c, rung_transfer *t, void *all, size_t bytes, rung_err *err);
    rung_status (*broadcast)(rung_comm *c, rung_transfer *t, void *buf, size_t bytes, int root, rung_err *err);
    rung_status (*wait)(rung_comm *c, rung_transfer t, const float **rest, rung_err *err); /* rest NULL: in buf */
    void (*progress)(rung_comm *c);
    rung_status (*split)(rung_comm *c, rung_comm **out, int group, rung_err *err);
    void (*tell)(rung_comm *c, const char *message);
    rung_status (*settle)(rung_comm *c, rung_err *err); /* NULL: nothing is ever left queued */
    rung_status (*listen)(rung_comm *c, rung_err *err); /* NULL: nobody tells anything here */
} rung_comm_ops;

struct rung_comm {
    const rung_comm_ops *ops;
    int rank, size;
    bool device;     /* buffers lie in GPU memory, and a wait holds up the stream instead of the caller */
    rung_err failed; /* the first failure; from then on every call fails with it */
    rung_comm_stats stats;
};

/** One rank: every transfer is complete at once. Cannot be split further than it is. */
rung_status rung_comm_alone_open(rung_comm **out, rung_err *err);
void rung_comm_close(rung_comm **c); /* NULL and *c == NULL are fine; nothing may be under way */

/* RUNG_EPEER: another rank has failed (its message is in ours), or does not answer in time; RUNG_ECANCELLED: the
 * caller's question was answered with yes; RUNG_ESHAPE: more than one transfer holds. The first failure sticks. */

/** buf f32 [n] becomes the sum over the ranks, in an order that depends on n and the number of ranks alone. */
rung_status rung_comm_reduce(rung_comm *c, rung_transfer *t, float *buf, size_t n, rung_err *err);
/** all [size][bytes]: every rank's part, where part `rank` is what this rank has put there. */
rung_status rung_comm_gather(rung_comm *c, rung_transfer *t, void *all, size_t bytes, rung_err *err);
/** buf [bytes] of rank `root` to every rank. */
rung_status rung_comm_broadcast(rung_comm *c, rung_transfer *t, void *buf, size_t bytes, int root, rung_err *err);
/** The buffer is the caller's again. *t becomes 0. */
rung_status rung_comm_wait(rung_comm *c, rung_transfer *t, rung_err *err);
/** As rung_comm_wait for who adds a sum of floats to something else anyway: the sum is buf + *rest [n], and the second
 *  addition can be the caller's, in one go with its own; *rest NULL: it is in buf. Valid until the next transfer
 * starts. */
rung_status rung_comm_wait_rest(rung_comm *c, rung_transfer *t, const float **rest, rung_err *err);

/** What waits have queued on a device has ended, in bounded time: before anything blocks on the device itself. */
rung_status rung_comm_settle(rung_comm *c, rung_err *err);

/** gather and broadcast with their wait. */
rung_status rung_comm_gather_now(rung_comm *c, void *all, size_t bytes, rung_err *err);
rung_status rung_comm_broadcast_now(rung_comm *c, void *buf, size_t bytes, int root, rung_err *err);

/** Moves what is under way along, and returns. For rung_pool_poll: `comm` is a rung_comm. */
void rung_comm_progress(void *comm);

/** Ranks with the same `group` become one communicator, in the order they have here. Every rank calls it. */
rung_status rung_comm_split(rung_comm *c, rung_comm **out, int group, rung_err *err);

/** This rank cannot go on: the others' next wait fails with RUNG_EPEER and this message. */
void rung_comm_tell(rung_comm *c, const char *message);

/** RUNG_EPEER when another rank has told so: for who waits for something else than a transfer. */
rung_status rung_comm_listen(rung_comm *c, rung_err *err);

/* A share of something cut over ranks. */
typedef struct {
    size_t first, count;
} rung_share;

/** The share of `rank` in `units` things of `unit` elements each; shares differ by one unit at most. */
static inline rung_share rung_share_of(size_t units, size_t unit, int rank, int size) {
    const size_t from = units * (size_t)rank / (size_t)size, to = units * ((size_t)rank + 1) / (size_t)size;
    return (rung_share){from * unit, (to - from) * unit};
}
#endif
