/* tests/cuda_host/executor.h - what the two executors share: a block's barriers and a warp's meeting places. */
#ifndef CUDA_HOST_EXECUTOR_H
#define CUDA_HOST_EXECUTOR_H
#include <array>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <vector>

#include "cuda_host.h"

namespace cuda_host {

struct site {
    const char *file;
    int line;
};

/* Where threads wait for each other. Everything here is read and written under the block's lock. */
struct gate {
    unsigned arrived = 0, generation = 0;
    char tags[2] = {};
    site at = {};
#ifdef CUDA_HOST_THREADS
    std::condition_variable cv;
#else
    std::vector<struct fiber *> waiting;
#endif
};

/* One set of lanes that meets: the whole warp, or a part of it that was named in a mask. */
struct warp_group {
    unsigned mask = 0, arrived_lanes = 0;
    warp_op *op = nullptr;
    gate g;
    warp_slots slots;
};
struct warp_state {
    unsigned live = 0;
    std::array<warp_group, 8> groups;
};

struct block_state {
    const char *kernel = nullptr;
    uint3 idx = {};
    unsigned live = 0;
    int votes = 0, votes_result = 0;
    gate sync;
    std::deque<warp_state> warps;
    unsigned char *shared = nullptr;
    size_t shared_bytes = 0;
#ifdef CUDA_HOST_THREADS
    std::mutex m;
#endif
};

/* One cp.async and the groups that they are committed in. */
struct copy {
    void *dst;
    const void *src;
    unsigned bytes, src_bytes;
};
struct copies {
    std::vector<copy> list;
    std::vector<size_t> groups; /* ends of the committed groups within list */
};

/* The executor's: enter and leave the lock, wait until the gate has opened, open it. The lock orders no memory in
 * ThreadSanitizer's eyes: the registers that a shuffle or an mma moves say nothing about shared memory. order_release
 * and order_acquire do: they belong to the barriers. */
void block_lock(block_state &b);
void block_unlock(block_state &b);
void gate_wait(block_state &b, gate &g);
void gate_open(gate &g);
void order_release(void *tag);
void order_acquire(void *tag);
void run_grid(const char *kernel, dim3 grid, dim3 block, size_t shared, const std::function<void()> &body);

void block_begin(block_state &b, const char *kernel, unsigned threads, size_t shared);
void block_end(block_state &b);
void thread_begin(thread_state &t, block_state &b, unsigned linear, dim3 grid, dim3 block, size_t block_index);
void thread_end(thread_state &t);
[[noreturn]] void fatal(const block_state *b, const char *what);

} // namespace cuda_host
#endif
