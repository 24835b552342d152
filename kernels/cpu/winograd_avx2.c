#include "kernels/cpu/conv.h"
#include "kernels/cpu/simd.h"

#define BODY_KERNELS_6 winograd6_avx2
#define BODY_KERNELS_4 winograd4_avx2
#define BODY_KERNELS_2 winograd2_avx2

#include "kernels/cpu/winograd_body.inc"
