/* tests/nccl_host/nccl.h - what comm_nccl.c takes from NCCL, over the threads of tests/comm_threads.h. */
#ifndef RUNG_HOST_NCCL_H
#define RUNG_HOST_NCCL_H
#include <cuda_runtime_api.h>

typedef enum { ncclSuccess, ncclSystemError, ncclInProgress } ncclResult_t;
typedef struct {
    int blocking;
} ncclConfig_t;
#define NCCL_CONFIG_INITIALIZER                                                                                        \
    { 1 }
typedef enum { ncclChar, ncclFloat } ncclDataType_t;
typedef enum { ncclSum } ncclRedOp_t;
typedef struct {
    hub *h; /* of the communicator that this id is for */
    char filling[120];
} ncclUniqueId;
typedef struct host_nccl {
    hub_comm rank;
    int asked; /* the first answers: in progress */
} * ncclComm_t;

static hub *nccl_hub; /* the next id's: a test sets it before its threads start */

static inline const char *ncclGetErrorString(ncclResult_t r) { return r ? "system error" : "no error"; }
static inline ncclResult_t ncclGetUniqueId(ncclUniqueId *id) {
    id->h = nccl_hub;
    return ncclSuccess;
}
static inline ncclResult_t ncclCommInitRankConfig(ncclComm_t *c, int n, ncclUniqueId id, int rank,
                                                  ncclConfig_t *config) {
    if (!id.h || id.h->size != n || config->blocking) return ncclSystemError;
    *c = calloc(1, sizeof **c);
    hub_join(id.h, &(*c)->rank, rank);
    return ncclInProgress;
}
static inline ncclResult_t ncclCommFinalize(ncclComm_t c) {
    (void)c;
    return ncclSuccess;
}
static inline ncclResult_t ncclCommDestroy(ncclComm_t c) {
    free(c);
    return ncclSuccess;
}
static inline ncclResult_t ncclCommAbort(ncclComm_t c) { return ncclCommDestroy(c); }
static inline ncclResult_t ncclCommSplit(ncclComm_t c, int color, int key, ncclComm_t *out, ncclConfig_t *config) {
    (void)c, (void)color, (void)key, (void)out, (void)config;
    return ncclSystemError; /* threads are not split */
}
static inline ncclResult_t ncclCommUserRank(ncclComm_t c, int *rank) {
    *rank = c->rank.base.rank;
    return ncclSuccess;
}
static inline ncclResult_t ncclCommCount(ncclComm_t c, int *size) {
    *size = c->rank.base.size;
    return ncclSuccess;
}
static inline ncclResult_t ncclCommGetAsyncError(ncclComm_t c, ncclResult_t *r) {
    *r = c->asked++ < 3 ? ncclInProgress : ncclSuccess;
    return ncclSuccess;
}
static inline ncclResult_t host_queued(ncclComm_t c, cudaStream_t s, rung_status st, const rung_transfer *t) {
    s->hub = &c->rank.base;
    s->last = *t;
    return st ? ncclSystemError : ncclSuccess;
}
static inline ncclResult_t ncclAllReduce(const void *in, void *out, size_t n, ncclDataType_t type, ncclRedOp_t op,
                                         ncclComm_t c, cudaStream_t s) {
    rung_transfer t = 0;
    if (in != out || type != ncclFloat || op != ncclSum) return ncclSystemError;
    return host_queued(c, s, hub_reduce(&c->rank.base, &t, out, n, NULL), &t);
}
static inline ncclResult_t ncclAllGather(const void *in, void *out, size_t n, ncclDataType_t type, ncclComm_t c,
                                         cudaStream_t s) {
    rung_transfer t = 0;
    if (in != (char *)out + (size_t)c->rank.base.rank * n || type != ncclChar) return ncclSystemError;
    return host_queued(c, s, hub_gather(&c->rank.base, &t, out, n, NULL), &t);
}
static inline ncclResult_t ncclBroadcast(const void *in, void *out, size_t n, ncclDataType_t type, int root,
                                         ncclComm_t c, cudaStream_t s) {
    rung_transfer t = 0;
    if (in != out || type != ncclChar) return ncclSystemError;
    return host_queued(c, s, hub_broadcast(&c->rank.base, &t, out, n, root, NULL), &t);
}
#endif
