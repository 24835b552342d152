/* kernels/cuda/cuda_libs.h - cuBLASLt and cuDNN, opened when a GPU is asked for: linked, they would cost every start of
 * the program 75 ms and 150 MB, also on a machine without a GPU. Internal to kernels/cuda. */
#ifndef RUNG_CUDA_LIBS_H
#define RUNG_CUDA_LIBS_H
#include <cublasLt.h>
#include <cudnn.h>

#include "kernels/base/err.h"

/* Every function of the two libraries that is called: X(name). */
#define CUDA_BLAS_FUNCTIONS(X)                                                                                         \
    X(cublasLtCreate)                                                                                                  \
    X(cublasLtDestroy)                                                                                                 \
    X(cublasLtGetStatusString)                                                                                         \
    X(cublasLtMatmul)                                                                                                  \
    X(cublasLtMatmulAlgoGetHeuristic)                                                                                  \
    X(cublasLtMatmulDescCreate)                                                                                        \
    X(cublasLtMatmulDescDestroy)                                                                                       \
    X(cublasLtMatmulDescSetAttribute)                                                                                  \
    X(cublasLtMatmulPreferenceCreate)                                                                                  \
    X(cublasLtMatmulPreferenceDestroy)                                                                                 \
    X(cublasLtMatmulPreferenceSetAttribute)                                                                            \
    X(cublasLtMatrixLayoutCreate)                                                                                      \
    X(cublasLtMatrixLayoutDestroy)
#define CUDA_DNN_FUNCTIONS(X)                                                                                          \
    X(cudnnBackendCreateDescriptor)                                                                                    \
    X(cudnnBackendDestroyDescriptor)                                                                                   \
    X(cudnnBackendExecute)                                                                                             \
    X(cudnnBackendFinalize)                                                                                            \
    X(cudnnBackendGetAttribute)                                                                                        \
    X(cudnnBackendSetAttribute)                                                                                        \
    X(cudnnCreate)                                                                                                     \
    X(cudnnDestroy)                                                                                                    \
    X(cudnnGetErrorString)                                                                                             \
    X(cudnnSetStream)

#define CUDA_LIBS_FIELD(name) __typeof__(name) *name;
typedef struct {
    void *blas, *dnn; /* what dlopen gave */
    CUDA_BLAS_FUNCTIONS(CUDA_LIBS_FIELD)
    CUDA_DNN_FUNCTIONS(CUDA_LIBS_FIELD)
} cuda_libs;

/** RUNG_EDEVICE names the library or the function that is missing. */
rung_status cuda_libs_open(cuda_libs *out, rung_err *err);
void cuda_libs_close(cuda_libs *l); /* a zeroed struct is fine */
#endif
