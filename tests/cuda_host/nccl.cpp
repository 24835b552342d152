/* tests/cuda_host/nccl.cpp - NCCL's place: ranks are processes of one machine that meet in shared memory. A transfer is
 * work on a stream like any other, so it runs when its stream is waited for, and every rank has to get there. Starting
 * takes until all have joined, as with a communicator that does not block. */
#include "nccl.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstring>
#include <functional>

#include "stand_in.h"

namespace {
enum : int { MOST = 8, PATIENCE = 20 /* seconds */ };
enum : size_t { CHUNK = 1 << 16 };

/* What the ranks share; fresh shared memory is zero. */
struct meeting {
    std::atomic<int> joined, arrived, round, aborted;
    unsigned char part[MOST][CHUNK];
};

bool refused(const char *function) {
    cudaError_t with;
    return cuda_host::fails(function, &with);
}
} // namespace

struct ncclComm {
    meeting *m;
    char name[64];
    int rank, size;
    bool lost; /* another rank did not come */
};

/* All ranks are here; false, from then on, when one does not come. */
static bool meet(ncclComm_t c) {
    const int round = c->m->round;
    const time_t start = time(nullptr);
    if (++c->m->arrived == c->size) {
        c->m->arrived = 0;
        c->m->round++;
    }
    while (!c->lost && c->m->round == round) {
        sched_yield();
        c->lost = c->m->aborted || time(nullptr) - start > PATIENCE;
    }
    return !c->lost;
}

/* Every rank's `bytes` at `own`, a chunk at a time, to take(chunk's offset, its bytes). */
static void exchange(ncclComm_t c, const void *own, size_t bytes, const std::function<void(size_t, size_t)> &take) {
    for (size_t at = 0; at < bytes && !c->lost; at += CHUNK) {
        const size_t n = bytes - at < CHUNK ? bytes - at : CHUNK;
        memcpy(c->m->part[c->rank], (const char *)own + at, n);
        if (meet(c)) take(at, n);
        meet(c);
    }
}

extern "C" {
const char *ncclGetErrorString(ncclResult_t r) {
    return r == ncclSuccess           ? "no error"
           : r == ncclSystemError     ? "unhandled system error"
           : r == ncclInvalidArgument ? "invalid argument"
           : r == ncclRemoteError     ? "remote process exited or there was a network error"
                                      : "in progress";
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id) {
    static int made;
    if (refused("ncclGetUniqueId")) return ncclSystemError;
    memset(id, 0, sizeof *id);
    snprintf(id->internal, sizeof id->internal, "/rung-nccl-%ld-%d", (long)getpid(), made++);
    return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *out, int n, ncclUniqueId id, int rank, ncclConfig_t *config) {
    if (refused("ncclCommInitRankConfig")) return ncclSystemError;
    if (n > MOST || rank >= n || config->blocking) return ncclInvalidArgument;
    ncclComm_t c = new ncclComm{nullptr, "", rank, n, false};
    snprintf(c->name, sizeof c->name, "%.60s", id.internal);
    const int fd = shm_open(c->name, O_RDWR | O_CREAT, 0600);
    void *p = MAP_FAILED;
    if (fd >= 0 && ftruncate(fd, sizeof(meeting)) == 0)
        p = mmap(nullptr, sizeof(meeting), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd >= 0) close(fd);
    if (p == MAP_FAILED) {
        delete c;
        return ncclSystemError;
    }
    c->m = static_cast<meeting *>(p);
    c->m->joined++;
    *out = c;
    return ncclInProgress;
}

ncclResult_t ncclCommSplit(ncclComm_t, int, int, ncclComm_t *, ncclConfig_t *) { return ncclInvalidArgument; }

ncclResult_t ncclCommFinalize(ncclComm_t) { return ncclSuccess; }

ncclResult_t ncclCommDestroy(ncclComm_t c) {
    shm_unlink(c->name); /* the first one does */
    munmap(c->m, sizeof(meeting));
    delete c;
    return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t c) {
    c->m->aborted = 1;
    return ncclCommDestroy(c);
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t c, ncclResult_t *r) {
    *r = c->lost ? ncclRemoteError : c->m->joined < c->size ? ncclInProgress : ncclSuccess;
    return ncclSuccess;
}

ncclResult_t ncclCommUserRank(ncclComm_t c, int *rank) {
    *rank = c->rank;
    return ncclSuccess;
}

ncclResult_t ncclCommCount(ncclComm_t c, int *size) {
    *size = c->size;
    return ncclSuccess;
}

ncclResult_t ncclAllReduce(const void *in, void *out, size_t n, ncclDataType_t type, ncclRedOp_t op, ncclComm_t c,
                           cudaStream_t s) {
    if (refused("ncclAllReduce")) return ncclSystemError;
    if (type != ncclFloat || op != ncclSum || c->m->joined < c->size) return ncclInvalidArgument;
    cuda_host::submit(s, [=] {
        exchange(c, in, n * sizeof(float), [=](size_t at, size_t bytes) {
            for (size_t i = 0; i < bytes / sizeof(float); i++) {
                float sum = 0;
                for (int r = 0; r < c->size; r++) sum += reinterpret_cast<const float *>(c->m->part[r])[i];
                static_cast<float *>(out)[at / sizeof(float) + i] = sum;
            }
        });
    });
    return ncclSuccess;
}

ncclResult_t ncclAllGather(const void *in, void *out, size_t n, ncclDataType_t type, ncclComm_t c, cudaStream_t s) {
    if (refused("ncclAllGather")) return ncclSystemError;
    if (type != ncclChar) return ncclInvalidArgument;
    cuda_host::submit(s, [=] {
        exchange(c, in, n, [=](size_t at, size_t bytes) {
            for (int r = 0; r < c->size; r++) memcpy((char *)out + (size_t)r * n + at, c->m->part[r], bytes);
        });
    });
    return ncclSuccess;
}

ncclResult_t ncclBroadcast(const void *in, void *out, size_t n, ncclDataType_t type, int root, ncclComm_t c,
                           cudaStream_t s) {
    if (refused("ncclBroadcast")) return ncclSystemError;
    if (type != ncclChar) return ncclInvalidArgument;
    cuda_host::submit(s, [=] {
        exchange(c, in, n,
                 [=](size_t at, size_t bytes) { memcpy((char *)out + at, c->m->part[root], bytes); });
    });
    return ncclSuccess;
}
}
