/* bench/bench_cuda.h - rung bench --backend cuda: products and convolutions on a GPU. Rows in f16 and bf16 are cuBLASLt
 * and cuDNN themselves, those in fp6 our own kernels beside them; peak is 0: what the device could do is not known
 * here. */
#ifndef RUNG_BENCH_CUDA_H
#define RUNG_BENCH_CUDA_H
#include "bench/bench_kernels.h"

/** Shapes whose name holds `filter` (NULL: all), `seconds` of each. RUNG_EDEVICE, RUNG_ENOMEM; RUNG_EARG: no such
 * shape. */
rung_status rung_bench_cuda(int device, const char *filter, double seconds, rung_bench_row_fn *give, void *arg,
                            rung_err *err);
#endif
