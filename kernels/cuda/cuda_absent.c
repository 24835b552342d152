/* kernels/cuda/cuda_absent.c - in place of the CUDA backend in a build without the CUDA Toolkit. */
#include "kernels/cuda/cuda.h"

static rung_status absent(rung_err *err) {
    return rung_fail(err, RUNG_EDEVICE, "CUDA: this build has the CPU backend only: CMake found no CUDA Toolkit");
}

rung_status rung_cuda_count(int *count, rung_err *err) {
    *count = 0;
    return absent(err);
}

rung_status rung_cuda_describe(rung_cuda_device *out, int index, rung_err *err) {
    (void)out, (void)index;
    return absent(err);
}

rung_status rung_cuda_backend_open(rung_backend **out, int index, rung_err *err) {
    (void)index;
    *out = NULL;
    return absent(err);
}

void *rung_cuda_stream(rung_backend *be) {
    (void)be;
    return NULL;
}
