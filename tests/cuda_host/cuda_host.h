/* tests/cuda_host/cuda_host.h - the CUDA dialect of kernels/cuda/ on host threads. Test only.
 *
 * A .cu is compiled as C++17 with this folder on the include path, so that its <cuda_runtime.h>, <cuda_fp16.h> and
 * <cuda_bf16.h> are the ones here; its kernels are then ordinary functions, and RUNG_LAUNCH (kernels/cuda/launch.h)
 * runs them. cuda_host.cmake builds every .cu of kernels/cuda this way into the library cuda-host, and every
 * test_cuda_*.cpp on it. What is different from nvcc:
 *
 *   launches         through RUNG_LAUNCH, never a bare <<<>>>; they run when enqueue() lets them (weak: at once; a
 *                    stand-in for streams and graphs may define its own)
 *   shared memory    __shared__ T name[N] as usual; dynamic: RUNG_SHARED(T, name), filled with NaN before each block
 *   inline PTX       only in kernels/cuda/ptx.h; cuda_host_ptx.h has the same functions
 *   device memory    is host memory
 *
 * Two executors, chosen at compile time for all files of a program alike:
 *   fibers (default)      the threads of a block take turns on one host thread and switch at barriers and warp
 *                         operations only; blocks are spread over the machine's cores. Fast.
 *   CUDA_HOST_THREADS     one host thread for each CUDA thread, one block after another: what ThreadSanitizer can
 * judge.
 *
 * Both end the program, with the kernel's name and the lines where threads wait, when a barrier is not reached by all
 * threads of the block that still run, when lanes name different masks, or when an asynchronous copy is misaligned.
 * cp.async is as unkind as the hardware may be: its destination is garbage (NaN) from the moment of issue, the data
 * arrive at the wait. drop_site() removes one barrier or wait, so that a test can show that it would be missed.
 */
#ifndef CUDA_HOST_H
#define CUDA_HOST_H
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <tuple>

#define __global__ static
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __constant__ static
#ifdef CUDA_HOST_THREADS
#define __shared__ static /* blocks run one after another */
#else
#define __shared__ static thread_local /* a block stays on one host thread */
#endif

#define CUDA_HOST_VEC(T, name)                                                                                         \
    struct alignas(2 * sizeof(T)) name##2 {                                                                            \
        T x, y;                                                                                                        \
    };                                                                                                                 \
    struct name##3 {                                                                                                   \
        T x, y, z;                                                                                                     \
    };                                                                                                                 \
    struct alignas(4 * sizeof(T)) name##4 {                                                                            \
        T x, y, z, w;                                                                                                  \
    };                                                                                                                 \
    static inline name##2 make_##name##2(T x, T y) { return {x, y}; }                                                  \
    static inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }                                          \
    static inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
CUDA_HOST_VEC(float, float)
CUDA_HOST_VEC(int, int)
CUDA_HOST_VEC(unsigned, uint)
CUDA_HOST_VEC(unsigned char, uchar)
CUDA_HOST_VEC(unsigned short, ushort)

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

typedef struct CUstream_st *cudaStream_t;

namespace cuda_host {

/* What the emulated device has: the least of sm_80, 86, 89, 90, 100, so that what runs here fits all of them. */
enum { MAX_THREADS = 1024, SHARED_DEFAULT = 48 << 10, SHARED_MAX = 99 << 10, WARP = 32 };

struct block_state;
struct thread_state {
    uint3 thread_idx, block_idx;
    dim3 block_dim, grid_dim;
    unsigned linear, lane;
    block_state *block;
    struct copies *pending; /* asynchronous copies that have not arrived */
};
extern __thread thread_state *current;

/** A launch's body on every thread of the grid. False when the device would refuse: too many threads or bytes. */
bool run(const char *kernel, dim3 grid, dim3 block, size_t shared, const std::function<void()> &body);

/** Called for every launch with the work itself. Weak: does it at once. */
void enqueue(cudaStream_t stream, std::function<void()> work);

/** A refused launch: the weak default keeps it for cudaGetLastError(). */
void launch_refused();

/* The arguments are converted and copied at once, as a launch does. */
template <class... P, class... A>
void launch(const char *name, dim3 grid, dim3 block, size_t shared, cudaStream_t stream, void (*kernel)(P...),
            A... args) {
    const std::tuple<P...> packed(static_cast<P>(args)...);
    enqueue(stream, [=] {
        if (!run(name, grid, block, shared, [&] { std::apply(kernel, packed); })) launch_refused();
    });
}

void sync_threads(const char *file, int line);
int sync_threads_count(int predicate, const char *file, int line);
void sync_warp(unsigned mask, const char *file, int line);
void *dynamic_shared();

/* All lanes of the mask hand in `in`; the last one calls `op` over the warp's slots; each takes its `out`. */
enum { SLOT = 48 };
struct warp_slots {
    alignas(16) unsigned char in[WARP][SLOT], out[WARP][SLOT];
};
typedef void warp_op(warp_slots &w, unsigned mask);
void collective(unsigned mask, const void *in, size_t in_bytes, void *out, size_t out_bytes, warp_op *op);

void copy_async(void *dst, const void *src, unsigned bytes, unsigned src_bytes, const char *file, int line);
void copy_commit();
void copy_wait(unsigned newest_groups_left, const char *file, int line);

/* Mutations. A site is a line that holds a __syncthreads, a __syncwarp or a cp.async wait. */
void record_sites(bool on);
size_t site_count();
const char *site_name(size_t i);  /* "attention.cu:120" */
void drop_site(const char *name); /* NULL: none */

/** The order in which the fibers of a block start: 0 ascending, 1 descending. */
void set_order(int order);

} // namespace cuda_host

#define threadIdx (cuda_host::current->thread_idx)
#define blockIdx  (cuda_host::current->block_idx)
#define blockDim  (cuda_host::current->block_dim)
#define gridDim   (cuda_host::current->grid_dim)
enum { warpSize = 32 };

#define CUDA_HOST_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()
static inline void __syncthreads(CUDA_HOST_SITE) { cuda_host::sync_threads(file, line); }
static inline int __syncthreads_count(int p, CUDA_HOST_SITE) { return cuda_host::sync_threads_count(p, file, line); }
static inline int __syncthreads_or(int p, CUDA_HOST_SITE) { return cuda_host::sync_threads_count(p, file, line) != 0; }
static inline void __syncwarp(unsigned mask = 0xffffffffu, CUDA_HOST_SITE) { cuda_host::sync_warp(mask, file, line); }
static inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
static inline void __threadfence_block() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

/* Shuffles and votes. A lane outside of the segment or of the mask gives the caller's own value. */
namespace cuda_host {
enum shuffle_kind { SHFL_IDX, SHFL_UP, SHFL_DOWN, SHFL_XOR };
struct shuffle_in {
    unsigned char value[8];
    int kind, arg, width;
};
void shuffle_op(warp_slots &w, unsigned mask);
void ballot_op(warp_slots &w, unsigned mask);

template <class T> T shuffle(unsigned mask, T v, shuffle_kind kind, int arg, int width) {
    static_assert(sizeof(T) <= 8, "shuffles move 4 or 8 bytes");
    shuffle_in in = {};
    memcpy(in.value, &v, sizeof(T));
    in.kind = kind, in.arg = arg, in.width = width;
    collective(mask, &in, sizeof in, &v, sizeof v, shuffle_op);
    return v;
}
} // namespace cuda_host

template <class T> T __shfl_sync(unsigned mask, T v, int lane, int width = 32) {
    return cuda_host::shuffle(mask, v, cuda_host::SHFL_IDX, lane, width);
}
template <class T> T __shfl_up_sync(unsigned mask, T v, unsigned delta, int width = 32) {
    return cuda_host::shuffle(mask, v, cuda_host::SHFL_UP, (int)delta, width);
}
template <class T> T __shfl_down_sync(unsigned mask, T v, unsigned delta, int width = 32) {
    return cuda_host::shuffle(mask, v, cuda_host::SHFL_DOWN, (int)delta, width);
}
template <class T> T __shfl_xor_sync(unsigned mask, T v, int lanes, int width = 32) {
    return cuda_host::shuffle(mask, v, cuda_host::SHFL_XOR, lanes, width);
}
static inline unsigned __ballot_sync(unsigned mask, int predicate) {
    unsigned out = 0;
    cuda_host::collective(mask, &predicate, sizeof predicate, &out, sizeof out, cuda_host::ballot_op);
    return out;
}
static inline int __any_sync(unsigned mask, int p) { return __ballot_sync(mask, p) != 0; }
static inline int __all_sync(unsigned mask, int p) { return __ballot_sync(mask, !p) == 0; }
unsigned __activemask() = delete; /* no promise on any device either */

/* Atomics: relaxed, as on the device. */
template <class T> T atomicAdd(T *p, T v) {
    if constexpr (sizeof(T) == 4 || sizeof(T) == 8) {
        T old, next;
        __atomic_load(p, &old, __ATOMIC_RELAXED);
        do next = old + v;
        while (!__atomic_compare_exchange(p, &old, &next, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
        return old;
    }
}
template <class T> T atomicMax(T *p, T v) {
    T old = __atomic_load_n(p, __ATOMIC_RELAXED);
    while (old < v && !__atomic_compare_exchange_n(p, &old, v, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
    return old;
}
template <class T> T atomicOr(T *p, T v) { return __atomic_fetch_or(p, v, __ATOMIC_RELAXED); }
template <class T> T atomicExch(T *p, T v) { return __atomic_exchange_n(p, v, __ATOMIC_RELAXED); }
template <class T> T atomicCAS(T *p, T old, T v) {
    __atomic_compare_exchange_n(p, &old, v, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    return old;
}

/* Intrinsics. */
template <class T> T __ldg(const T *p) { return *p; }
static inline unsigned __float_as_uint(float f) {
    unsigned u;
    memcpy(&u, &f, 4);
    return u;
}
static inline float __uint_as_float(unsigned u) {
    float f;
    memcpy(&f, &u, 4);
    return f;
}
static inline int __float_as_int(float f) { return (int)__float_as_uint(f); }
static inline float __int_as_float(int i) { return __uint_as_float((unsigned)i); }
static inline int __popc(unsigned v) { return __builtin_popcount(v); }
static inline int __popcll(unsigned long long v) { return __builtin_popcountll(v); }
static inline int __ffs(int v) { return __builtin_ffs(v); }
static inline int __clz(int v) { return v ? __builtin_clz((unsigned)v) : 32; }
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((uint64_t)a * b >> 32); }
static inline unsigned __byte_perm(unsigned a, unsigned b, unsigned select) {
    const uint64_t bytes = (uint64_t)b << 32 | a;
    unsigned out = 0;
    for (int i = 0; i < 4; i++) out |= (unsigned)(bytes >> 8 * (select >> 4 * i & 7) & 255) << 8 * i;
    return out;
}
static inline float rsqrtf(float v) { return 1.0f / sqrtf(v); }
#define __expf(v) expf(v) /* macros: the C library has declared these names for itself */
#define __logf(v) logf(v)
#define __sinf(v) sinf(v)
#define __cosf(v) cosf(v)
static inline void sincospi(double v, double *sine, double *cosine) {
    const double angle = fmod(v, 2.0) * M_PI;
    *sine = sin(angle);
    *cosine = cos(angle);
}
static inline float __fdividef(float a, float b) { return a / b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline float __frcp_rn(float a) { return 1.0f / a; }
#define CUDA_HOST_MIN_MAX(T)                                                                                           \
    static inline T min(T a, T b) { return b < a ? b : a; }                                                            \
    static inline T max(T a, T b) { return a < b ? b : a; }
CUDA_HOST_MIN_MAX(int)
CUDA_HOST_MIN_MAX(unsigned)
CUDA_HOST_MIN_MAX(long)
CUDA_HOST_MIN_MAX(unsigned long)
CUDA_HOST_MIN_MAX(long long)
CUDA_HOST_MIN_MAX(unsigned long long)
static inline float min(float a, float b) { return fminf(a, b); }
static inline float max(float a, float b) { return fmaxf(a, b); }
#endif
