#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/vmath.h"

#define BODY_KERNELS elementwise_avx512

#include "kernels/cpu/elementwise_body.inc"
