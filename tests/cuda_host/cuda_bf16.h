/* tests/cuda_host/cuda_bf16.h - in place of the toolkit's. */
#include "cuda_fp16.h"
