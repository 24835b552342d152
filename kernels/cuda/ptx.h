/* kernels/cuda/ptx.h - the instructions that C++ has no name for, sm_80 and up. All are warp-wide: every lane calls
 * them together, except cp.async. Fragment layouts: PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point
 * type"; with g = lane / 4 and t = lane % 4, low half first in each register:
 *   A [16, 16]  a[0] = (g, 2t..) a[1] = (g + 8, 2t..) a[2] = (g, 2t + 8..) a[3] = (g + 8, 2t + 8..)
 *   B [16, 8]   b[0] = (2t.., g) b[1] = (2t + 8.., g)
 *   D [16, 8]   d[0], d[1] = (g, 2t..)  d[2], d[3] = (g + 8, 2t..)
 */
#ifndef RUNG_CUDA_PTX_H
#define RUNG_CUDA_PTX_H
#include <stdint.h>
#ifndef __CUDACC__
#include <cuda_host_ptx.h> /* the same functions for host threads: tests/cuda_host, on the include path there only */
#else

/* d += A B, f32 accumulation. */
static __device__ __forceinline__ void ptx_mma_f16(float d[4], const uint32_t a[4], const uint32_t b[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
static __device__ __forceinline__ void ptx_mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

static __device__ __forceinline__ uint32_t ptx_shared_address(const void *p) {
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* 8x8 matrices of 16-bit elements: matrix i has its rows at the addresses of lanes 8i .. 8i + 7, 16 bytes each, 16-byte
 * aligned; lane gets (lane / 4, 2 * (lane % 4)..) of it in r[i], transposed: (2 * (lane % 4).., lane / 4). */
static __device__ __forceinline__ void ptx_ldmatrix_x4(uint32_t r[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(ptx_shared_address(row))
                 : "memory");
}
static __device__ __forceinline__ void ptx_ldmatrix_x2(uint32_t r[2], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(ptx_shared_address(row))
                 : "memory");
}
static __device__ __forceinline__ void ptx_ldmatrix_x4_trans(uint32_t r[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(ptx_shared_address(row))
                 : "memory");
}
static __device__ __forceinline__ void ptx_ldmatrix_x2_trans(uint32_t r[2], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(ptx_shared_address(row))
                 : "memory");
}

/* 16 or 4 bytes from global to shared memory, both aligned to that; !valid writes zeros and reads nothing. They may
 * land at any time up to the wait of their group. */
static __device__ __forceinline__ void ptx_cp_async16(void *shared, const void *global, bool valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(ptx_shared_address(shared)), "l"(global),
                 "r"(valid ? 16 : 0)
                 : "memory");
}
static __device__ __forceinline__ void ptx_cp_async4(void *shared, const void *global, bool valid) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(ptx_shared_address(shared)), "l"(global),
                 "r"(valid ? 4 : 0)
                 : "memory");
}
static __device__ __forceinline__ void ptx_cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/* This thread's groups have landed, except the LEFT newest. A barrier makes them visible to the others. */
template <int LEFT> static __device__ __forceinline__ void ptx_cp_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
}

/* Two floats, rounded to nearest even, `lo` in the low half. */
static __device__ __forceinline__ uint32_t ptx_pack_f16(float lo, float hi) {
    uint32_t r;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
    return r;
}
static __device__ __forceinline__ uint32_t ptx_pack_bf16(float lo, float hi) {
    uint32_t r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
    return r;
}
static __device__ __forceinline__ float ptx_exp2(float v) {
    float r;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(v));
    return r;
}
#endif
#endif
