/* kernels/cuda/launch.h - one kernel source, two executions: nvcc, or the host threads of tests/cuda_host. */
#ifndef RUNG_CUDA_LAUNCH_H
#define RUNG_CUDA_LAUNCH_H
#include <cuda_runtime.h>

/* RUNG_LAUNCH(kernel, grid, block, dynamic shared bytes, stream, arguments...). Errors: cudaGetLastError(). A kernel
 * with a comma in its template arguments goes through a const pointer first.
 * RUNG_SHARED(T, name): the block's dynamic shared memory, 16-byte aligned.
 * RUNG_UNROLL: the loop that follows is unrolled, so that its arrays can be registers; RUNG_NO_UNROLL: it
 * stays one. */
#ifdef __CUDACC__
#define RUNG_UNROLL                                           _Pragma("unroll")
#define RUNG_NO_UNROLL                                        _Pragma("unroll 1")
#define RUNG_LAUNCH(kernel, grid, block, shared, stream, ...) kernel<<<grid, block, shared, stream>>>(__VA_ARGS__)
#define RUNG_SHARED(T, name)                                                                                           \
    extern __shared__ __align__(16) unsigned char rung_shared_bytes[];                                                 \
    T *const name = reinterpret_cast<T *>(rung_shared_bytes)
#else
#define RUNG_UNROLL
#define RUNG_NO_UNROLL
#define RUNG_LAUNCH(kernel, grid, block, shared, stream, ...)                                                          \
    cuda_host::launch(#kernel, grid, block, shared, stream, kernel, ##__VA_ARGS__)
#define RUNG_SHARED(T, name) T *const name = static_cast<T *>(cuda_host::dynamic_shared())
#endif
#endif
