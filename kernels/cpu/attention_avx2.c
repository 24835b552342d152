#include <float.h>
#include <math.h>
#include <string.h>

#include "kernels/base/size.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/vmath.h"

#define BODY_KERNELS attention_avx2
#define BODY_MR      6

#include "kernels/cpu/attention_body.inc"
