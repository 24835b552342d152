#include "kernels/cpu/conv.h"
#include "kernels/cpu/vmath.h"

#define BODY_KERNELS winograd_avx2

#include "kernels/cpu/winograd_body.inc"
