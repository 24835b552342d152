/* tests/cuda_host/stand_in.h - what the stand-ins of the libraries share. Test only. */
#ifndef CUDA_HOST_STAND_IN_H
#define CUDA_HOST_STAND_IN_H
#include <functional>

#include "cuda_fp16.h"
#include "cuda_runtime_api.h"

namespace cuda_host {
/** A library's work, in the stream's order: at its sync, or into the graph that is captured. */
void submit(cudaStream_t stream, std::function<void()> work);
/** The n-th call of this function fails by cuda_host_fail(). */
bool fails(const char *function, cudaError_t *with);

/* TF32: 10 bits of mantissa, to nearest. */
static inline float tf32(float f) {
    return __uint_as_float((__float_as_uint(f) + 0xfff + (__float_as_uint(f) >> 13 & 1)) & ~0x1fffu);
}

/** Element i of an array of `type` as f32; f32 as tensor cores see it. */
static inline float operand(const void *p, size_t i, cudaDataType_t type) {
    if (type == CUDA_R_32F) return tf32(((const float *)p)[i]);
    return type == CUDA_R_16F ? f16_to_f32(((const uint16_t *)p)[i]) : bf16_to_f32(((const uint16_t *)p)[i]);
}
} // namespace cuda_host
#endif
