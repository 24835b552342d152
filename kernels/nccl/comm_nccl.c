#define _POSIX_C_SOURCE 200809L /* clock_gettime, nanosleep */
#include "kernels/nccl/comm_nccl.h"

#include <cuda_runtime_api.h>
#include <stdlib.h>
#include <time.h>

#include "kernels/nccl/nccl_lib.h"

enum { MOST = 16 };

struct nccl_comm {
    rung_comm base;
    rung_comm *host; /* borrowed */
    nccl_lib lib;
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

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static rung_status nccl_check(const struct nccl_comm *c, ncclResult_t r, const char *what, rung_err *err) {
    return r == ncclSuccess ? RUNG_OK : rung_fail(err, RUNG_EPEER, "nccl: %s: %s", what, c->lib.ncclGetErrorString(r));
}

static rung_status too_long(const struct nccl_comm *c, const char *what, rung_err *err) {
    return rung_fail(err, RUNG_EPEER, "rank %d of %d: %s has not ended after %.0f s (--parallel timeout=SECONDS)",
                     c->base.rank, c->base.size, what, c->timeout);
}

/* Between two looks at the GPU: the others hear that this process is alive, and this one whether they have failed. */
static rung_status breathe(struct nccl_comm *c, rung_err *err) {
    rung_comm_progress(c->host);
    nanosleep(&(struct timespec){.tv_nsec = 20 * 1000}, NULL);
    return rung_comm_listen(c->host, err);
}

/* A call of a communicator that does not block: it has ended once the communicator says so. */
static rung_status ended(struct nccl_comm *c, ncclComm_t nccl, ncclResult_t r, const char *what, rung_err *err) {
    const double start = now();
    while (r == ncclInProgress) {
        const ncclResult_t asked = c->lib.ncclCommGetAsyncError(nccl, &r);
        RUNG_TRY(nccl_check(c, asked, what, err));
        if (r == ncclInProgress && now() - start > c->timeout) return too_long(c, what, err);
        if (r == ncclInProgress) RUNG_TRY(breathe(c, err));
    }
    return nccl_check(c, r, what, err);
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
    RUNG_TRY(ended(c, c->nccl, r, what, err));
    RUNG_TRY(cuda_check(cudaEventRecord(c->done[place], c->own), "event", err));
    c->taken[place] = true;
    *t = (rung_transfer)place + 1;
    return RUNG_OK;
}

static rung_status reduce(rung_comm *base, rung_transfer *t, float *buf, size_t n, rung_err *err) {
    struct nccl_comm *c = self_of(base);
    int i;
    RUNG_TRY(begin(c, &i, err));
    return begun(c, i, c->lib.ncclAllReduce(buf, buf, n, ncclFloat, ncclSum, c->nccl, c->own), "all-reduce", t, err);
}

static rung_status gather(rung_comm *base, rung_transfer *t, void *all, size_t bytes, rung_err *err) {
    struct nccl_comm *c = self_of(base);
    const char *part = (const char *)all + (size_t)base->rank * bytes;
    int i;
    RUNG_TRY(begin(c, &i, err));
    return begun(c, i, c->lib.ncclAllGather(part, all, bytes, ncclChar, c->nccl, c->own), "all-gather", t, err);
}

static rung_status broadcast(rung_comm *base, rung_transfer *t, void *buf, size_t bytes, int root, rung_err *err) {
    struct nccl_comm *c = self_of(base);
    int i;
    RUNG_TRY(begin(c, &i, err));
    return begun(c, i, c->lib.ncclBroadcast(buf, buf, bytes, ncclChar, root, c->nccl, c->own), "broadcast", t, err);
}

static rung_status wait_transfer(rung_comm *base, rung_transfer t, const float **rest, rung_err *err) {
    (void)rest; /* a sum is in its buffer */
    struct nccl_comm *c = self_of(base);
    c->taken[t - 1] = false; /* its event is recorded again only behind what waits for it now */
    return cuda_check(cudaStreamWaitEvent(c->compute, c->done[t - 1], 0), "stream", err);
}

/* A rank that is gone leaves kernels that never end: look instead of blocking in CUDA. */
static rung_status settle(rung_comm *base, rung_err *err) {
    struct nccl_comm *c = self_of(base);
    const double start = now();
    RUNG_TRY(cuda_check(cudaEventRecord(c->ready, c->compute), "event", err));
    for (;;) {
        ncclResult_t failed = ncclSuccess;
        const cudaError_t e = cudaEventQuery(c->ready);
        if (e != cudaSuccess && e != cudaErrorNotReady) return cuda_check(e, "event", err);
        RUNG_TRY(nccl_check(c, c->lib.ncclCommGetAsyncError(c->nccl, &failed), "state", err));
        if (failed != ncclInProgress) RUNG_TRY(nccl_check(c, failed, "another rank", err));
        if (e == cudaSuccess) return RUNG_OK;
        if (now() - start > c->timeout) return too_long(c, "what is queued on the GPU", err);
        RUNG_TRY(breathe(c, err));
    }
}

static void progress(rung_comm *c) { (void)c; } /* the GPU's own business */

static void tell(rung_comm *base, const char *message) {
    struct nccl_comm *c = self_of(base);
    rung_comm_tell(c->host, message);
}

/* In order where all went well; else what other ranks do is not waited for. */
static void end_nccl(struct nccl_comm *c) {
    const bool whole = !c->base.failed.code && !c->host->failed.code &&
                       ended(c, c->nccl, c->lib.ncclCommFinalize(c->nccl), "the end", NULL) == RUNG_OK;
    (void)(whole ? c->lib.ncclCommDestroy(c->nccl) : c->lib.ncclCommAbort(c->nccl));
}

static void close_comm(rung_comm *base) {
    struct nccl_comm *c = self_of(base);
    if (c->nccl) end_nccl(c);
    for (int i = 0; i < MOST; i++)
        if (c->done[i]) cudaEventDestroy(c->done[i]);
    if (c->ready) cudaEventDestroy(c->ready);
    if (c->own) cudaStreamDestroy(c->own);
    nccl_lib_close(&c->lib);
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
    RUNG_TRY(nccl_lib_open(&c->lib, err));
    RUNG_TRY(cuda_check(cudaStreamCreateWithFlags(&c->own, cudaStreamNonBlocking), "stream", err));
    RUNG_TRY(cuda_check(cudaEventCreateWithFlags(&c->ready, cudaEventDisableTiming), "event", err));
    for (int i = 0; i < MOST; i++)
        RUNG_TRY(cuda_check(cudaEventCreateWithFlags(&c->done[i], cudaEventDisableTiming), "event", err));
    return RUNG_OK;
}

static rung_status split(rung_comm *base, rung_comm **out, int group, rung_err *err) {
    struct nccl_comm *c = self_of(base), *part = NULL;
    rung_status st = make(&part, c->host, c->compute, c->timeout, err);
    if (!st) st = ended(c, c->nccl, c->lib.ncclCommSplit(c->nccl, group, base->rank, &part->nccl, NULL), "split", err);
    if (!st) st = nccl_check(c, c->lib.ncclCommUserRank(part->nccl, &part->base.rank), "split", err);
    if (!st) st = nccl_check(c, c->lib.ncclCommCount(part->nccl, &part->base.size), "split", err);
    if (!st)
        *out = &part->base;
    else if (part)
        close_comm(&part->base);
    return st;
}

static const rung_comm_ops nccl_ops = {"nccl",   close_comm, reduce, gather, broadcast, wait_transfer,
                                       progress, split,      tell,   settle, NULL};

/* NCCL waits for every rank: nobody begins before all have got this far. */
static rung_status all_here(rung_comm *host, rung_err *err) {
    unsigned char *all = calloc((size_t)host->size, 1);
    if (!all) return rung_fail(err, RUNG_ENOMEM, "communicator: out of memory");
    const rung_status st = rung_comm_gather_now(host, all, 1, err);
    free(all);
    return st;
}

rung_status rung_nccl_open(rung_comm **out, rung_comm *host, int device, void *compute, double timeout, rung_err *err) {
    ncclUniqueId id = {0};
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    struct nccl_comm *c = NULL;
    config.blocking = 0;
    *out = NULL;
    rung_status st = cuda_check(cudaSetDevice(device), "device", err);
    if (!st) st = make(&c, host, compute, timeout, err);
    if (!st && host->rank == 0) st = nccl_check(c, c->lib.ncclGetUniqueId(&id), "id", err);
    if (!st) st = rung_comm_broadcast_now(host, &id, sizeof id, 0, err);
    if (!st) st = all_here(host, err);
    if (!st) {
        const ncclResult_t r = c->lib.ncclCommInitRankConfig(&c->nccl, host->size, id, host->rank, &config);
        st = ended(c, c->nccl, r, "start", err);
        if (st) c->base.failed = (rung_err){.code = st};
    }
    if (!st)
        *out = &c->base;
    else if (c)
        close_comm(&c->base);
    return st;
}
