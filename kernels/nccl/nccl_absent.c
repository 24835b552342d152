/* kernels/nccl/nccl_absent.c - in place of comm_nccl.c in a build without NCCL's header or without CUDA. */
#include "kernels/nccl/comm_nccl.h"

rung_status rung_nccl_open(rung_comm **out, rung_comm *host, int device, void *compute, double timeout, rung_err *err) {
    (void)host, (void)device, (void)compute, (void)timeout;
    *out = NULL;
    return rung_fail(err, RUNG_EDEVICE, "a network cut over GPUs: this build has no NCCL (libnccl-dev)");
}
