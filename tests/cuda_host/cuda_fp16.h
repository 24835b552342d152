/* tests/cuda_host/cuda_fp16.h - __half and __nv_bfloat16 as bits: the conversions and the few operations in use. Each
 * operation rounds once, to nearest even, and keeps subnormals, as the device's do. */
#ifndef CUDA_HOST_FP16_H
#define CUDA_HOST_FP16_H
#include "cuda_host.h"

namespace cuda_host {
static inline float f16_to_f32(uint16_t h) {
    const float f = __uint_as_float((unsigned)(h & 0x7fff) << 13) * 0x1p112f; /* exact, subnormals too */
    const unsigned special = (h & 0x7c00) == 0x7c00 ? 0x7f800000u : 0;
    return __uint_as_float(__float_as_uint(f) | special | (unsigned)(h & 0x8000) << 16);
}
static inline uint16_t f32_to_f16(float f) {
    const unsigned u = __float_as_uint(f), sign = u >> 16 & 0x8000, a = u & 0x7fffffff;
    if (a > 0x7f800000) return (uint16_t)(sign | 0x7e00);
    if (a >= 0x477ff000) return (uint16_t)(sign | 0x7c00); /* 65520 and more */
    if (a < 0x38800000)                                    /* subnormal: the addition of 0.5 rounds at 2^-24 */
        return (uint16_t)(sign | (__float_as_uint(__uint_as_float(a) + 0.5f) - __float_as_uint(0.5f)));
    return (uint16_t)(sign | (a - 0x38000000 + 0xfff + (a >> 13 & 1)) >> 13);
}
static inline float bf16_to_f32(uint16_t h) { return __uint_as_float((unsigned)h << 16); }
static inline uint16_t f32_to_bf16(float f) {
    const unsigned u = __float_as_uint(f);
    if ((u & 0x7fffffff) > 0x7f800000) return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}
} // namespace cuda_host

#define CUDA_HOST_16(T, T2, fmt)                                                                                       \
    struct T {                                                                                                         \
        uint16_t bits;                                                                                                 \
    };                                                                                                                 \
    struct alignas(4) T2 {                                                                                             \
        T x, y;                                                                                                        \
    };                                                                                                                 \
    static inline T cuda_host_to_##T(float f) { return {cuda_host::f32_to_##fmt(f)}; }                                 \
    static inline float cuda_host_from(T h) { return cuda_host::fmt##_to_f32(h.bits); }                                \
    static inline T __hmul(T a, T b) { return cuda_host_to_##T(cuda_host_from(a) * cuda_host_from(b)); }               \
    static inline T __hadd(T a, T b) { return cuda_host_to_##T(cuda_host_from(a) + cuda_host_from(b)); }               \
    static inline T2 __hmul2(T2 a, T2 b) { return {__hmul(a.x, b.x), __hmul(a.y, b.y)}; }                              \
    static inline T2 __hadd2(T2 a, T2 b) { return {__hadd(a.x, b.x), __hadd(a.y, b.y)}; }

CUDA_HOST_16(__half, __half2, f16)
CUDA_HOST_16(__nv_bfloat16, __nv_bfloat162, bf16)

static inline __half __float2half(float f) { return cuda_host_to___half(f); }
static inline __half __float2half_rn(float f) { return cuda_host_to___half(f); }
static inline float __half2float(__half h) { return cuda_host_from(h); }
static inline __half2 __floats2half2_rn(float lo, float hi) { return {__float2half(lo), __float2half(hi)}; }
static inline __half2 __halves2half2(__half lo, __half hi) { return {lo, hi}; }
static inline __half2 __half2half2(__half v) { return {v, v}; }
static inline float2 __half22float2(__half2 h) { return {__half2float(h.x), __half2float(h.y)}; }
static inline __half __ushort_as_half(uint16_t u) { return {u}; }
static inline uint16_t __half_as_ushort(__half h) { return h.bits; }

static inline __nv_bfloat16 __float2bfloat16(float f) { return cuda_host_to___nv_bfloat16(f); }
static inline __nv_bfloat16 __float2bfloat16_rn(float f) { return cuda_host_to___nv_bfloat16(f); }
static inline float __bfloat162float(__nv_bfloat16 h) { return cuda_host_from(h); }
static inline __nv_bfloat162 __floats2bfloat162_rn(float lo, float hi) {
    return {__float2bfloat16(lo), __float2bfloat16(hi)};
}
static inline __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 lo, __nv_bfloat16 hi) { return {lo, hi}; }
static inline float2 __bfloat1622float2(__nv_bfloat162 h) { return {__bfloat162float(h.x), __bfloat162float(h.y)}; }
static inline __nv_bfloat16 __ushort_as_bfloat16(uint16_t u) { return {u}; }
static inline uint16_t __bfloat16_as_ushort(__nv_bfloat16 h) { return h.bits; }
#endif
