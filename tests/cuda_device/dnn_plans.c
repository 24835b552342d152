/* tests/cuda_device/dnn_plans.c - cuDNN itself, asked without a GPU: does it have an engine for the graphs of
 * kernels/cuda/cuda_dnn.c on the GPUs that we name? Since 9.8 it plans for a described device (cuDNN frontend,
 * "Deviceless ahead-of-time compilation"); the descriptions hold what its heuristics read. Skipped where cuDNN cannot
 * be opened. */
#include <stdio.h>
#include <string.h>

#include "kernels/cuda/cuda_ops.h"
#include "tests/check.h"

enum { SKIPPED = 77 };

/* NVIDIA's data: A100, RTX 3090, RTX 4090, H100, B200. */
static const struct {
    const char *name;
    int version, multiprocessors, threads_sm, blocks_sm, shared_most, clock_khz, memory_khz;
    size_t memory, l2;
} gpus[] = {
    {"A100", 800, 108, 2048, 32, 166912, 1410000, 1215000, (size_t)40 << 30, 40u << 20},
    {"RTX 3090", 860, 82, 1536, 16, 101376, 1695000, 9751000, (size_t)24 << 30, 6u << 20},
    {"RTX 4090", 890, 128, 1536, 24, 101376, 2520000, 10501000, (size_t)24 << 30, 72u << 20},
    {"H100", 900, 132, 2048, 32, 232448, 1980000, 2619000, (size_t)80 << 30, 50u << 20},
    {"B200", 1000, 148, 2048, 32, 232448, 1965000, 3996000, (size_t)180 << 30, 126u << 20},
};
enum { GPUS = sizeof gpus / sizeof *gpus };

static cudnnBackendDescriptor_t describe(const cuda_libs *l, size_t i) {
    char json[2000];
    cudnnBackendDescriptor_t d = NULL;
    const int n = snprintf(
        json, sizeof json,
        "{\"version\":1,\"deviceName\":\"%s\",\"cudaDeviceId\":0,\"deviceVer\":%d,\"driverVer\":13000,"
        "\"totalGlobalMem\":%zu,\"maxGridSize\":[2147483647,65535,65535],\"maxBlockSize\":[1024,1024,64],"
        "\"regsPerBlock\":65536,\"multiProcessorCount\":%d,\"smClockRateKHz\":%d,\"memClockRateKHz\":%d,"
        "\"l2CacheSize\":%zu,\"warpSize\":32,\"maxSharedMemoryPerBlock\":49152,\"maxSharedMemoryPerBlockOptin\":%d,"
        "\"reservedSharedMemoryPerBlock\":1024,\"maxRegistersPerSM\":65536,\"pciDeviceId\":0,\"maxCtasPerSM\":%d,"
        "\"maxThreadsPerBlock\":1024,\"maxThreadsPerSM\":%d,\"isTccDriver\":0,\"supportCoopLaunch\":1}",
        gpus[i].name, gpus[i].version, gpus[i].memory, gpus[i].multiprocessors, gpus[i].clock_khz, gpus[i].memory_khz,
        gpus[i].l2, gpus[i].shared_most, gpus[i].blocks_sm, gpus[i].threads_sm);
    if (l->cudnnBackendCreateDescriptor(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, &d) ||
        l->cudnnBackendSetAttribute(d, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, n + 1, json) ||
        l->cudnnBackendFinalize(d)) {
        if (d) l->cudnnBackendDestroyDescriptor(d);
        return NULL;
    }
    return d;
}

/* The convolutions of SD 1.5's U-Net and VAE at 512x512 and of the icon model, channels rounded up to 8. */
static const cuda_dnn_shape shapes[] = {
    {CUDA_X_F16, 2, 64, 64, 8, 320, 3, 3, 1, 1, 1, false, false},
    {CUDA_X_F16, 2, 64, 64, 320, 320, 3, 3, 1, 1, 1, false, false},
    {CUDA_X_F16, 2, 64, 64, 320, 320, 3, 3, 2, 1, 1, false, false},
    {CUDA_X_F16, 2, 65, 65, 320, 320, 3, 3, 2, 0, 0, false, false},
    {CUDA_X_F16, 2, 16, 16, 2560, 1280, 3, 3, 1, 1, 1, false, false},
    {CUDA_X_F16, 2, 64, 64, 320, 8, 3, 3, 1, 1, 1, false, false},
    {CUDA_X_F16, 1, 512, 512, 256, 128, 3, 3, 1, 1, 1, false, false},
    {CUDA_X_F32, 1, 512, 512, 128, 8, 3, 3, 1, 1, 1, false, false},
    {CUDA_X_F32, 2, 32, 32, 8, 288, 2, 2, 2, 0, 0, false, false},
    {CUDA_X_F32, 2, 64, 64, 320, 320, 3, 3, 1, 1, 1, true, false},
    {CUDA_X_F32, 2, 64, 64, 320, 320, 3, 3, 2, 1, 1, false, false},
    {CUDA_X_F32, 1, 128, 128, 64, 64, 3, 3, 1, 1, 1, true, true},
};

int main(void) {
    cuda_libs libs;
    rung_err err = {0};
    if (cuda_libs_open(&libs, &err)) {
        fprintf(stderr, "skipped: %s\n", err.msg);
        return SKIPPED;
    }
    for (size_t g = 0; g < GPUS; g++) {
        cudnnBackendDescriptor_t d = describe(&libs, g);
        if (!d) {
            fprintf(stderr, "skipped: this cuDNN does not take the description of a %s\n", gpus[g].name);
            cuda_libs_close(&libs);
            return SKIPPED;
        }
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
            cuda_dnn_plan p;
            if (!CHECK(cuda_dnn_plan_open(&libs, NULL, d, &shapes[i], &p)))
                fprintf(stderr, "  %s, shape %zu\n", gpus[g].name, i);
            cuda_dnn_plan_close(&libs, &p);
        }
        libs.cudnnBackendDestroyDescriptor(d);
    }
    cuda_libs_close(&libs);
    return check_result();
}
