/* kernels/cuda/cuda_device.c - which GPUs there are; opening and closing one; memory; errors. */
#define _XOPEN_SOURCE 700 /* recursive locks */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/size.h"
#include "kernels/cuda/cuda_ops.h"

enum { OLDEST_MAJOR = 8, LIBRARY_BYTES = 32 << 20 };

/* ---- what there is ----------------------------------------------------------------------------------------------- */

static rung_status failed(rung_err *err, cudaError_t st, const char *what) {
    cudaGetLastError(); /* reported now: the next call starts afresh */
    return rung_fail(err, st == cudaErrorMemoryAllocation ? RUNG_ENOMEM : RUNG_EDEVICE, "CUDA: %s: %s", what,
                     cudaGetErrorString(st));
}

rung_status rung_cuda_count(int *count, rung_err *err) {
    *count = 0;
    const cudaError_t st = cudaGetDeviceCount(count);
    if (st == cudaSuccess && *count > 0) return RUNG_OK;
    *count = 0;
    return failed(err, st == cudaSuccess ? cudaErrorNoDevice : st, "no GPU was found");
}

static rung_status check_index(int index, rung_err *err) {
    int count;
    RUNG_TRY(rung_cuda_count(&count, err));
    if (index >= 0 && index < count) return RUNG_OK;
    return rung_fail(err, RUNG_EDEVICE, "CUDA: there is no device %d: this process sees %d, from 0", index, count);
}

rung_status rung_cuda_describe(rung_cuda_device *out, int index, rung_err *err) {
    struct cudaDeviceProp p;
    RUNG_TRY(check_index(index, err));
    const cudaError_t st = cudaGetDeviceProperties(&p, index);
    if (st) return failed(err, st, "cudaGetDeviceProperties");
    *out = (rung_cuda_device){
        .major = p.major, .minor = p.minor, .multiprocessors = p.multiProcessorCount, .memory = p.totalGlobalMem};
    snprintf(out->name, sizeof out->name, "%s", p.name);
    return RUNG_OK;
}

/* ---- errors ------------------------------------------------------------------------------------------------------ */

void cuda_fail(cuda_backend *c, rung_status code, const char *fmt, ...) {
    char text[300];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    rung_fail(&c->first, code, "%s", text);
}

bool cuda_good(cuda_backend *c, cudaError_t st, const char *what) {
    if (st == cudaSuccess) return true;
    failed(&c->first, st, what);
    return false;
}

bool cuda_begin(cuda_backend *c, const uint64_t *key, size_t n) {
    pthread_mutex_lock(&c->lock);
    if (c->recording) cuda_record_key(c->recording, key, n);
    if (c->first.code == RUNG_OK && c->mode != CUDA_REPLAY && !c->record_failed &&
        cuda_good(c, cudaSetDevice(c->device), "cudaSetDevice"))
        return true;
    pthread_mutex_unlock(&c->lock);
    return false;
}

void cuda_end(cuda_backend *c, const char *what) {
    cuda_good(c, cudaGetLastError(), what);
    pthread_mutex_unlock(&c->lock);
}

uint64_t cuda_key_bits(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

rung_status cuda_sync(rung_backend *be, rung_err *err) {
    cuda_backend *c = cuda_of(be);
    rung_status st = RUNG_OK;
    pthread_mutex_lock(&c->lock);
    cuda_good(c, cudaSetDevice(c->device), "cudaSetDevice");
    cuda_good(c, cudaMemcpyAsync(c->range_pinned, c->range, sizeof *c->range, cudaMemcpyDeviceToHost, c->stream),
              "reading the range flag");
    const bool whole = cuda_good(c, cudaStreamSynchronize(c->stream), "the GPU's work");
    if (whole && *c->range_pinned) { /* after another error it means nothing */
        cuda_fail(c, RUNG_EDEVICE,
                  "CUDA: an activation is larger than 65504, the most that f16 holds: --type bf16 has the range");
        cudaMemsetAsync(c->range, 0, sizeof *c->range, c->stream);
    }
    if (c->first.code == RUNG_OK) cuda_downloads_finish(c);
    c->download_count = 0;
    if (c->first.code) st = rung_fail(err, c->first.code, "%s", c->first.msg);
    if (whole) c->first = (rung_err){0}; /* the device is sound: what comes next starts afresh */
    pthread_mutex_unlock(&c->lock);
    return st;
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

rung_status cuda_alloc(rung_backend *be, void **out, size_t bytes, rung_err *err) {
    *out = NULL;
    cudaError_t st = cudaSetDevice(cuda_of(be)->device);
    if (!st) st = cudaMalloc(out, size_max(bytes, 1));
    if (!st) return RUNG_OK;
    *out = NULL;
    cudaGetLastError();
    return rung_fail(err, st == cudaErrorMemoryAllocation ? RUNG_ENOMEM : RUNG_EDEVICE,
                     "CUDA: %zu bytes wanted on device %d: %s", bytes, cuda_of(be)->device, cudaGetErrorString(st));
}

void cuda_free(rung_backend *be, void *p) {
    cuda_backend *c = cuda_of(be);
    if (!p) return;
    cuda_good(c, cudaSetDevice(c->device), "cudaSetDevice");
    cuda_good(c, cudaFree(p), "cudaFree"); /* waits for what still uses it */
}

void *cuda_scratch(cuda_backend *c, cuda_scratch_kind kind, size_t bytes) {
    if (bytes <= c->scratch_bytes[kind]) return c->scratch[kind];
    if (c->mode == CUDA_RECORD) { /* the step before it has sized everything: this one differs */
        c->record_failed = true;
        return NULL;
    }
    void *grown;
    cuda_free(&c->base, c->scratch[kind]);
    c->scratch[kind] = NULL;
    c->scratch_bytes[kind] = 0;
    c->generation++;
    if (cuda_alloc(&c->base, &grown, bytes, &c->first)) return NULL;
    c->scratch[kind] = grown;
    c->scratch_bytes[kind] = bytes;
    return grown;
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

void cuda_close(rung_backend *be) {
    cuda_backend *c = cuda_of(be);
    cudaSetDevice(c->device);
    if (c->stream) cudaStreamSynchronize(c->stream);
    if (c->dnn) c->libs.cudnnDestroy(c->dnn);
    if (c->blas) c->libs.cublasLtDestroy(c->blas);
    cuda_libs_close(&c->libs);
    cuda_staging_close(c);
    for (int i = 0; i < SCRATCHES; i++) cudaFree(c->scratch[i]);
    cudaFree(c->range);
    cudaFreeHost(c->range_pinned);
    if (c->stream) cudaStreamDestroy(c->stream);
    free(c->algos);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

static rung_status check_capability(int index, int *multiprocessors, rung_err *err) {
    rung_cuda_device d;
    RUNG_TRY(rung_cuda_describe(&d, index, err));
    *multiprocessors = d.multiprocessors;
    if (d.major >= OLDEST_MAJOR) return RUNG_OK;
    return rung_fail(err, RUNG_EDEVICE,
                     "CUDA: device %d, %s, has compute capability %d.%d; %d.0 and newer can be used: its bf16 and "
                     "asynchronous copies are",
                     index, d.name, d.major, d.minor, OLDEST_MAJOR);
}

static rung_status open_lock(cuda_backend *c, rung_err *err) {
    pthread_mutexattr_t recursive;
    if (pthread_mutexattr_init(&recursive)) return rung_fail(err, RUNG_ENOMEM, "CUDA: no lock");
    pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
    const int st = pthread_mutex_init(&c->lock, &recursive);
    pthread_mutexattr_destroy(&recursive);
    return st ? rung_fail(err, RUNG_ENOMEM, "CUDA: no lock") : RUNG_OK;
}

static rung_status open_parts(cuda_backend *c, rung_err *err) {
    cudaError_t st = cudaSetDevice(c->device);
    if (st) return failed(err, st, "the device cannot be used");
    if ((st = cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking))) return failed(err, st, "no stream");
    if ((st = cudaMalloc((void **)&c->range, sizeof *c->range)) ||
        (st = cudaMallocHost((void **)&c->range_pinned, sizeof *c->range_pinned)) ||
        (st = cudaMemsetAsync(c->range, 0, sizeof *c->range, c->stream)))
        return failed(err, st, "no memory on the device");
    RUNG_TRY(cuda_staging_open(c, err));
    RUNG_TRY(cuda_libs_open(&c->libs, err));
    const cublasStatus_t blas = c->libs.cublasLtCreate(&c->blas);
    if (blas) return rung_fail(err, RUNG_EDEVICE, "cuBLASLt: %s", c->libs.cublasLtGetStatusString(blas));
    cudnnStatus_t dnn = c->libs.cudnnCreate(&c->dnn);
    if (!dnn) dnn = c->libs.cudnnSetStream(c->dnn, c->stream);
    if (dnn) return rung_fail(err, RUNG_EDEVICE, "cuDNN: %s", c->libs.cudnnGetErrorString(dnn));
    if (!cuda_scratch(c, SCRATCH_LIBRARY, LIBRARY_BYTES)) return rung_fail(err, c->first.code, "%s", c->first.msg);
    return RUNG_OK;
}

rung_status rung_cuda_backend_open(rung_backend **out, int index, rung_err *err) {
    *out = NULL;
    RUNG_TRY(check_index(index, err));
    int multiprocessors = 0;
    RUNG_TRY(check_capability(index, &multiprocessors, err));
    cuda_backend *c = calloc(1, sizeof *c);
    if (!c) return rung_fail(err, RUNG_ENOMEM, "CUDA backend: out of memory");
    c->base.ops = &cuda_operations;
    c->device = index;
    c->multiprocessors = multiprocessors;
    rung_status st = open_lock(c, err);
    if (st) {
        free(c);
        return st;
    }
    st = open_parts(c, err);
    if (st)
        cuda_close(&c->base);
    else
        *out = &c->base;
    return st;
}

void *rung_cuda_stream(rung_backend *be) { return cuda_of(be)->stream; }
