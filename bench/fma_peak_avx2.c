#include "bench/fma_peak.h"
#include "kernels/cpu/simd.h"

#define BODY_NAME fma_peak_avx2
#include "bench/fma_peak_body.inc"
