/* tests/cuda_host/cuda_runtime.h - in place of the toolkit's: the dialect, and as much of the runtime as launches need.
 */
#ifndef CUDA_HOST_RUNTIME_H
#define CUDA_HOST_RUNTIME_H
#include "cuda_host.h"

typedef enum { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorInvalidConfiguration = 9 } cudaError_t;
typedef enum { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 } cudaFuncAttribute;

cudaError_t cudaGetLastError();
cudaError_t cudaPeekAtLastError();
const char *cudaGetErrorString(cudaError_t e);

/* A launch is checked against SHARED_MAX alone: the attribute only has to be within it. */
template <class K> cudaError_t cudaFuncSetAttribute(K *, cudaFuncAttribute, int bytes) {
    return bytes <= cuda_host::SHARED_MAX ? cudaSuccess : cudaErrorInvalidValue;
}
#endif
