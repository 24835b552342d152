#define _POSIX_C_SOURCE 200809L /* clock_gettime, nanosleep */
#include "kernels/nccl/comm_nccl.h"

#include <cuda_runtime_api.h>
#include <nccl.h>
#include <stdlib.h>
#include <time.h>

enum { MOST = 16 };

struct nccl_comm {
    rung_comm base;
    rung_comm *host; /* borrowed */
    ncclComm_t nccl;
    cudaStream_t compute, own; /* borrowed; where transfers run */
    cudaEvent_t ready;         /* the buffer is written */
    cudaEvent_t done[MOST];    /* by transfer - 1 */
    bool taken[MOST];
    double timeout;
};

static struct nccl_comm *self_of(rung_comm *c) { return (struct nccl_comm *)c; }

static rung_status cuda_check(cudaError_t e, const char *what, rung_err *err) {
    return e == cudaSuccess ? RUNG_OK : rung_fail(err, RUNG_EDEVICE, "nccl: %s: %s", what, cudaGetErrorString(e));
}

static rung_status nccl_check(ncclResult_t r, const char *what, rung_err *err) {
    return r == ncclSuccess ? RUNG_OK : rung_fail(err, RUNG_EPEER, "nccl: %s: %s", what, ncclGetErrorString(r));
}

/* A free place; the transfers' stream waits for what has been queued to compute so far. */
static rung_status begin(struct nccl_comm *c, int *place, rung_err *err) {
    for (*place = 0; *place < MOST && c->taken[*place]; ++*place) {
    }
    if (*place == MOST) return rung_fail(err, RUNG_ESHAPE, "more than %d transfers under way", MOST);
    RUNG_TRY(cuda_check(cudaEventRecord(c->ready, c->compute), "event", err));
    return cuda_check(cudaStreamWaitEvent(c->own, c->ready, 0), "stream", err);
}

static rung_status begun(struct nccl_comm *c, int place, ncclResult_t r, const char *what, rung_transfer *t,
                         rung_err *err) {
    RUNG_TRY(nccl_check(r, what, err));
    RUNG_TRY(cuda_check(cudaEventRecord(c->done[place], c->own), "event", err));
    c->taken[place] = true;
    *t = (rung_transfer)place + 1;
    return RUNG_OK;
}

static rung_status reduce(rung_comm *base, rung_transfer *t, float *buf, size_t n, rung_err *err) {
    struct nccl_comm *c = self_of(base);
    int i;
    RUNG_TRY(begin(c, &i, err));
    return begun(c, i, ncclAllReduce(buf, buf, n, ncclFloat, ncclSum, c->nccl, c->own), "all-reduce", t, err);
}

static rung_status gather(rung_comm *base, rung_transfer *t, void *all, size_t bytes, rung_err *err) {
    struct nccl_comm *c = self_of(base);
    const char *part = (const char *)all + (size_t)base->rank * bytes;
    int i;
    RUNG_TRY(begin(c, &i, err));
    return begun(c, i, ncclAllGather(part, all, bytes, ncclChar, c->nccl, c->own), "all-gather", t, err);
}

static rung_status broadcast(rung_comm *base, rung_transfer *t, void *buf, size_t bytes, int root, rung_err *err) {
    struct nccl_comm *c = self_of(base);
    int i;
    RUNG_TRY(begin(c, &i, err));
    return begun(c, i, ncclBroadcast(buf, buf, bytes, ncclChar, root, c->nccl, c->own), "broadcast", t, err);
}

static rung_status wait_transfer(rung_comm *base, rung_transfer t, rung_err *err) {
    struct nccl_comm *c = self_of(base);
    c->taken[t - 1] = false; /* its event is recorded again only behind what waits for it now */
    return cuda_check(cudaStreamWaitEvent(c->compute, c->done[t - 1], 0), "stream", err);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* A rank that is gone leaves kernels that never end: look instead of blocking in CUDA. */
static rung_status settle(rung_comm *base, rung_err *err) {
    struct nccl_comm *c = self_of(base);
    const double start = now();
    RUNG_TRY(cuda_check(cudaEventRecord(c->ready, c->compute), "event", err));
    for (;;) {
        ncclResult_t failed = ncclSuccess;
        const cudaError_t e = cudaEventQuery(c->ready);
        if (e == cudaSuccess) return RUNG_OK;
        if (e != cudaErrorNotReady) return cuda_check(e, "event", err);
        RUNG_TRY(nccl_check(ncclCommGetAsyncError(c->nccl, &failed), "state", err));
        RUNG_TRY(nccl_check(failed, "another rank", err));
        if (now() - start > c->timeout)
            return rung_fail(err, RUNG_EPEER, "rank %d of %d: transfers have not ended after %.0f s", base->rank,
                             base->size, c->timeout);
        nanosleep(&(struct timespec){.tv_nsec = 20 * 1000}, NULL);
    }
}

static void progress(rung_comm *c) { (void)c; } /* the GPU's own business */

static void tell(rung_comm *base, const char *message) {
    struct nccl_comm *c = self_of(base);
    rung_comm_tell(c->host, message);
}

static void close_comm(rung_comm *base) {
    struct nccl_comm *c = self_of(base);
    if (c->nccl) (void)(base->failed.code ? ncclCommAbort(c->nccl) : ncclCommDestroy(c->nccl));
    for (int i = 0; i < MOST; i++)
        if (c->done[i]) cudaEventDestroy(c->done[i]);
    if (c->ready) cudaEventDestroy(c->ready);
    if (c->own) cudaStreamDestroy(c->own);
    free(c);
}

static const rung_comm_ops nccl_ops;

/* Everything but the NCCL communicator. */
static rung_status make(struct nccl_comm **out, rung_comm *host, cudaStream_t compute, double timeout, rung_err *err) {
    struct nccl_comm *c = *out = calloc(1, sizeof *c);
    if (!c) return rung_fail(err, RUNG_ENOMEM, "communicator: out of memory");
    c->base = (rung_comm){.ops = &nccl_ops, .rank = host->rank, .size = host->size, .device = true};
    c->host = host;
    c->compute = compute;
    c->timeout = timeout > 0 ? timeout : 120;
    RUNG_TRY(cuda_check(cudaStreamCreateWithFlags(&c->own, cudaStreamNonBlocking), "stream", err));
    RUNG_TRY(cuda_check(cudaEventCreateWithFlags(&c->ready, cudaEventDisableTiming), "event", err));
    for (int i = 0; i < MOST; i++)
        RUNG_TRY(cuda_check(cudaEventCreateWithFlags(&c->done[i], cudaEventDisableTiming), "event", err));
    return RUNG_OK;
}

static rung_status split(rung_comm *base, rung_comm **out, int group, rung_err *err) {
    struct nccl_comm *c = self_of(base), *part = NULL;
    rung_status st = make(&part, c->host, c->compute, c->timeout, err);
    if (!st) st = nccl_check(ncclCommSplit(c->nccl, group, base->rank, &part->nccl, NULL), "split", err);
    if (!st) st = nccl_check(ncclCommUserRank(part->nccl, &part->base.rank), "split", err);
    if (!st) st = nccl_check(ncclCommCount(part->nccl, &part->base.size), "split", err);
    if (!st)
        *out = &part->base;
    else if (part)
        close_comm(&part->base);
    return st;
}

static const rung_comm_ops nccl_ops = {"nccl",        close_comm, reduce, gather, broadcast,
                                       wait_transfer, progress,   split,  tell,   settle};

rung_status rung_nccl_open(rung_comm **out, rung_comm *host, int device, void *compute, double timeout, rung_err *err) {
    ncclUniqueId id = {0};
    struct nccl_comm *c = NULL;
    *out = NULL;
    rung_status st = cuda_check(cudaSetDevice(device), "device", err);
    if (!st && host->rank == 0) st = nccl_check(ncclGetUniqueId(&id), "id", err);
    if (!st) st = rung_comm_broadcast_now(host, &id, sizeof id, 0, err);
    if (!st) st = make(&c, host, compute, timeout, err);
    if (!st) st = nccl_check(ncclCommInitRank(&c->nccl, host->size, id, host->rank), "start", err);
    if (!st)
        *out = &c->base;
    else if (c)
        close_comm(&c->base);
    return st;
}
