/* kernels/base/rng.h - torch's normal random numbers: CPU (mt19937) and CUDA (Philox 4x32-10). */
#ifndef RUNG_RNG_H
#define RUNG_RNG_H
#include <stddef.h>
#include <stdint.h>

typedef enum { RUNG_RNG_CPU, RUNG_RNG_CUDA } rung_rng_kind;

/* One generator, as torch.Generator: its state is a value, copy it to fork it. */
typedef struct {
    rung_rng_kind kind;
    uint64_t seed;
    uint32_t mt[624]; /* CPU */
    int at;
    int has_cached; /* CPU, n < 16: the sine of the last pair, kept across calls */
    double cached;
    uint64_t offset; /* CUDA: calls so far */
} rung_rng;

/** torch.Generator().manual_seed(seed). CPU: only the low 32 bits count. */
void rung_rng_seed(rung_rng *g, rung_rng_kind kind, uint64_t seed);

/** torch.randn(n, generator=g) in f32, into out [n]; one call is one draw of n elements. Within 1e-6 of torch 2.13. */
void rung_rng_normal(rung_rng *g, float *out, size_t n);

/** The CUDA kind's n numbers of its call number `offset`, from 0. */
void rung_philox_normal(float *out, size_t n, uint64_t seed, uint64_t offset);

/** torch.rand(n, generator=g) in f32: CPU kind only. */
void rung_rng_uniform(rung_rng *g, float *out, size_t n);
#endif
