/* bench/fma_peak.h - what an FMA unit can do at most: chains that touch no memory. */
#ifndef RUNG_FMA_PEAK_H
#define RUNG_FMA_PEAK_H
#include <stddef.h>

/** Runs `rounds` rounds of independent FMAs; floating-point operations done. *sink keeps them from being optimised
 * away. */
typedef double fma_peak_fn(size_t rounds, float *sink);
fma_peak_fn fma_peak_avx2, fma_peak_avx512;
#endif
