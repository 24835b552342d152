/* kernels/base/philox.h - Philox 4x32-10 (Salmon et al. 2011) as torch's CUDA generator uses it, for the host and for
 * CUDA kernels: element i of a draw is made by thread i, whose counter is (the generator's offset, i), from the first
 * two of its four numbers. On a GPU this is what torch gives as long as every element has a thread of its own. */
#ifndef RUNG_PHILOX_H
#define RUNG_PHILOX_H
#include <stdint.h>

#ifdef __CUDACC__
#define PHILOX_FUNCTION static __host__ __device__ inline
#else
#define PHILOX_FUNCTION static inline
#endif

PHILOX_FUNCTION uint32_t philox_mul_high(uint32_t a, uint32_t b) { return (uint32_t)((uint64_t)a * b >> 32); }

PHILOX_FUNCTION void philox_4x32_10(uint32_t c[4], uint64_t key) {
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    for (int round = 0; round < 10; round++) {
        const uint32_t a = 0xd2511f53u, b = 0xcd9e8d57u;
        const uint32_t r0 = philox_mul_high(b, c[2]) ^ c[1] ^ k0, r2 = philox_mul_high(a, c[0]) ^ c[3] ^ k1;
        c[1] = b * c[2];
        c[3] = a * c[0];
        c[0] = r0;
        c[2] = r2;
        k0 += 0x9e3779b9u;
        k1 += 0xbb67ae85u;
    }
}

/* What Box and Muller make element i of: sqrt(-2 log u) sin(v), u in (0, 1], v an angle. */
typedef struct {
    float u, v;
} philox_pair;

PHILOX_FUNCTION philox_pair philox_normal_bits(uint64_t seed, uint64_t offset, uint64_t i) {
    const float unit = 2.3283064365386963e-10f, turn = 2.3283064365386963e-10f * 6.2831853071795865f; /* 2^-32 */
    uint32_t c[4] = {(uint32_t)offset, (uint32_t)(offset >> 32), (uint32_t)i, (uint32_t)(i >> 32)};
    philox_4x32_10(c, seed);
    const philox_pair p = {(float)c[0] * unit + unit / 2, (float)c[1] * turn + turn / 2};
    return p;
}
#endif
