/* tests/cuda_host/cuda_host_ptx.h - the instructions of kernels/cuda/ptx.h, by their description in the PTX ISA:
 * "Matrix Fragments for mma.m16n8k16 with floating point type", "Warp-level matrix load instruction: ldmatrix",
 * "cp.async". tests/test_cuda_host.cpp holds them against the document's layouts. */
#ifndef CUDA_HOST_PTX_H
#define CUDA_HOST_PTX_H
#include "cuda_fp16.h"

namespace cuda_host {
template <bool BF16> void mma_op(warp_slots &w, unsigned mask);
extern template void mma_op<false>(warp_slots &, unsigned);
extern template void mma_op<true>(warp_slots &, unsigned);
void ldmatrix_op(warp_slots &w, unsigned mask);
void ldmatrix_trans_op(warp_slots &w, unsigned mask);
void check_aligned(const void *p, size_t bytes, const char *what);

struct mma_in {
    uint32_t a[4], b[2];
    float c[4];
};
template <bool BF16> void mma(float d[4], const uint32_t a[4], const uint32_t b[2]) {
    mma_in in;
    memcpy(in.a, a, sizeof in.a);
    memcpy(in.b, b, sizeof in.b);
    memcpy(in.c, d, sizeof in.c);
    collective(0xffffffffu, &in, sizeof in, d, sizeof in.c, mma_op<BF16>);
}

/* Every lane hands in the 16 bytes at its address, as far as the form looks at it. */
template <int N> void ldmatrix(uint32_t r[N], const void *row, warp_op *op) {
    unsigned char in[16] = {};
    uint32_t out[4];
    check_aligned(row, current->lane < 8 * N ? 16 : 1, "ldmatrix");
    if (current->lane < 8 * N) memcpy(in, row, 16);
    collective(0xffffffffu, in, 16, out, 16, op);
    memcpy(r, out, 4 * N);
}
} // namespace cuda_host

static inline void ptx_mma_f16(float d[4], const uint32_t a[4], const uint32_t b[2]) { cuda_host::mma<false>(d, a, b); }
static inline void ptx_mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2]) { cuda_host::mma<true>(d, a, b); }
static inline void ptx_ldmatrix_x4(uint32_t r[4], const void *row) {
    cuda_host::ldmatrix<4>(r, row, cuda_host::ldmatrix_op);
}
static inline void ptx_ldmatrix_x2(uint32_t r[2], const void *row) {
    cuda_host::ldmatrix<2>(r, row, cuda_host::ldmatrix_op);
}
static inline void ptx_ldmatrix_x4_trans(uint32_t r[4], const void *row) {
    cuda_host::ldmatrix<4>(r, row, cuda_host::ldmatrix_trans_op);
}
static inline void ptx_ldmatrix_x2_trans(uint32_t r[2], const void *row) {
    cuda_host::ldmatrix<2>(r, row, cuda_host::ldmatrix_trans_op);
}
static inline void ptx_cp_async16(void *shared, const void *global, bool valid, CUDA_HOST_SITE) {
    cuda_host::copy_async(shared, global, 16, valid ? 16 : 0, file, line);
}
static inline void ptx_cp_async4(void *shared, const void *global, bool valid, CUDA_HOST_SITE) {
    cuda_host::copy_async(shared, global, 4, valid ? 4 : 0, file, line);
}
static inline void ptx_cp_async_commit() { cuda_host::copy_commit(); }
template <int LEFT> void ptx_cp_async_wait(CUDA_HOST_SITE) { cuda_host::copy_wait(LEFT, file, line); }

static inline uint32_t ptx_pack_f16(float lo, float hi) {
    return cuda_host::f32_to_f16(lo) | (uint32_t)cuda_host::f32_to_f16(hi) << 16;
}
static inline uint32_t ptx_pack_bf16(float lo, float hi) {
    return cuda_host::f32_to_bf16(lo) | (uint32_t)cuda_host::f32_to_bf16(hi) << 16;
}
static inline float ptx_exp2(float v) { return exp2f(v); }
#endif
