/* tests/cuda_host/cuda_runtime.h - in place of the toolkit's: the dialect, and as much of the runtime as launches need.
 */
#ifndef CUDA_HOST_RUNTIME_H
#define CUDA_HOST_RUNTIME_H
#include "cuda_host.h"
#include "cuda_runtime_api.h"

typedef enum { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 } cudaFuncAttribute;

/* A launch is checked against SHARED_MAX alone: the attribute only has to be within it. */
template <class K> cudaError_t cudaFuncSetAttribute(K *, cudaFuncAttribute, int bytes) {
    return bytes <= cuda_host::SHARED_MAX ? cudaSuccess : cudaErrorInvalidValue;
}
#endif
