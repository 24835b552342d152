/* kernels/nccl/comm_nccl.h - ranks as GPUs, one a process, over NCCL: NVLink, PCIe or the network below it. Buffers are
 * device memory. Starting and waiting queue work on streams and return at once: a wait holds up the stream that
 * computes, not the caller, and NCCL's own kernels move the data meanwhile.
 *
 * Compiled where CMake finds CUDA and NCCL's header. Run so far over stand-ins only, never over several GPUs: ranks as
 * threads (tests/test_comm_nccl.c), and the whole program as processes (tests/cuda_host_ranks.sh).
 */
#ifndef RUNG_COMM_NCCL_H
#define RUNG_COMM_NCCL_H
#include "kernels/base/comm.h"

/**
 * The ranks of `host`, which is borrowed and brings NCCL's id to all of them, each with the GPU `device`. `compute`:
 * the cudaStream_t whose kernels write the buffers before a transfer and read them after. `timeout`: seconds that
 * the start, and ops->settle what is queued, may take; 0: 120. RUNG_EDEVICE (CUDA's or NCCL's words), RUNG_ENOMEM,
 * RUNG_EPEER.
 */
rung_status rung_nccl_open(rung_comm **out, rung_comm *host, int device, void *compute, double timeout, rung_err *err);
#endif
