/* kernels/nccl/nccl_lib.h - NCCL's functions, opened when several GPUs are asked for, as kernels/cuda/cuda_libs.h does
 * with cuBLASLt. Internal to kernels/nccl. */
#ifndef RUNG_NCCL_LIB_H
#define RUNG_NCCL_LIB_H
#include <nccl.h>

#include "kernels/base/err.h"

/* Every function that is called: X(name). */
#define NCCL_FUNCTIONS(X)                                                                                              \
    X(ncclAllGather)                                                                                                   \
    X(ncclAllReduce)                                                                                                   \
    X(ncclBroadcast)                                                                                                   \
    X(ncclCommAbort)                                                                                                   \
    X(ncclCommCount)                                                                                                   \
    X(ncclCommDestroy)                                                                                                 \
    X(ncclCommFinalize)                                                                                                \
    X(ncclCommGetAsyncError)                                                                                           \
    X(ncclCommInitRankConfig)                                                                                          \
    X(ncclCommSplit)                                                                                                   \
    X(ncclCommUserRank)                                                                                                \
    X(ncclGetErrorString)                                                                                              \
    X(ncclGetUniqueId)

#define NCCL_FIELD(name) __typeof__(name) *name;
typedef struct {
    void *library; /* what dlopen gave */
    NCCL_FUNCTIONS(NCCL_FIELD)
} nccl_lib;

/** RUNG_EDEVICE names what is missing. */
rung_status nccl_lib_open(nccl_lib *out, rung_err *err);
void nccl_lib_close(nccl_lib *l); /* a zeroed struct is fine */
#endif
