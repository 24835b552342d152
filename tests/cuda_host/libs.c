/* tests/cuda_host/libs.c - cuda_libs.c's and nccl_lib.c's place: the stand-ins in place of what dlopen finds. */
#include "kernels/cuda/cuda_libs.h"
#include "kernels/nccl/nccl_lib.h"

#include <string.h>

rung_status cuda_libs_open(cuda_libs *out, rung_err *err) {
    (void)err;
    memset(out, 0, sizeof *out);
#define STAND_IN(name) out->name = name;
    CUDA_BLAS_FUNCTIONS(STAND_IN)
    CUDA_DNN_FUNCTIONS(STAND_IN)
    return RUNG_OK;
}

void cuda_libs_close(cuda_libs *l) { memset(l, 0, sizeof *l); }

rung_status nccl_lib_open(nccl_lib *out, rung_err *err) {
    (void)err;
    memset(out, 0, sizeof *out);
    NCCL_FUNCTIONS(STAND_IN)
    return RUNG_OK;
}

void nccl_lib_close(nccl_lib *l) { memset(l, 0, sizeof *l); }
