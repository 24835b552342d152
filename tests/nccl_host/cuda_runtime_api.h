/* tests/nccl_host/cuda_runtime_api.h - what comm_nccl.c takes from CUDA, on host threads: a stream is the number of the
 * last transfer queued on it, an event is where a stream was; waiting for one is waiting for that transfer. */
#ifndef RUNG_HOST_CUDA_RUNTIME_API_H
#define RUNG_HOST_CUDA_RUNTIME_API_H
#include "tests/comm_threads.h"

typedef enum { cudaSuccess, cudaErrorNotReady, cudaErrorUnknown } cudaError_t;
typedef struct host_stream {
    rung_comm *hub; /* the hub's rank whose transfers run here */
    rung_transfer last;
} * cudaStream_t;
typedef struct host_event {
    rung_comm *hub;
    rung_transfer at;
} * cudaEvent_t;
enum { cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2 };

static inline const char *cudaGetErrorString(cudaError_t e) { return e ? "failed" : "no error"; }
static inline cudaError_t cudaSetDevice(int device) { return device < 0 ? cudaErrorUnknown : cudaSuccess; }
static inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned flags) {
    (void)flags;
    return (*s = calloc(1, sizeof **s)) ? cudaSuccess : cudaErrorUnknown;
}
static inline cudaError_t cudaStreamDestroy(cudaStream_t s) {
    free(s);
    return cudaSuccess;
}
static inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned flags) {
    (void)flags;
    return (*e = calloc(1, sizeof **e)) ? cudaSuccess : cudaErrorUnknown;
}
static inline cudaError_t cudaEventDestroy(cudaEvent_t e) {
    free(e);
    return cudaSuccess;
}
static inline cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) {
    *e = (struct host_event){s->hub, s->last};
    return cudaSuccess;
}
static inline cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned flags) {
    (void)s, (void)flags;
    if (!e->at) return cudaSuccess;
    return hub_wait(e->hub, e->at, NULL, NULL) ? cudaErrorUnknown : cudaSuccess;
}
static inline cudaError_t cudaEventQuery(cudaEvent_t e) {
    (void)e;
    return cudaSuccess;
}
#endif
