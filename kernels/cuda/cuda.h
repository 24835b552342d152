/* kernels/cuda/cuda.h - the CUDA backend as the engine sees it. A build without the CUDA Toolkit has these functions
 * too (cuda_absent.c): they say so. */
#ifndef RUNG_CUDA_H
#define RUNG_CUDA_H
#include "kernels/backend.h"

/* A GPU, for people. */
typedef struct {
    char name[256];
    int major, minor; /* compute capability */
    int multiprocessors;
    size_t memory; /* bytes */
} rung_cuda_device;

/** GPUs that this process can use: devices 0 to *count - 1, at least one. RUNG_EDEVICE when there is none, or no
 * driver, or no CUDA in this build: the message says which, in CUDA's own words. */
rung_status rung_cuda_count(int *count, rung_err *err);

/** RUNG_EDEVICE also for an index that is not there. */
rung_status rung_cuda_describe(rung_cuda_device *out, int index, rung_err *err);

/** One GPU with a stream of its own. RUNG_EDEVICE (no such GPU, too old a one, a library that is missing), RUNG_ENOMEM.
 */
rung_status rung_cuda_backend_open(rung_backend **out, int index, rung_err *err);

/** The cudaStream_t of such a backend, on which all of its work is queued. */
void *rung_cuda_stream(rung_backend *be);
#endif
