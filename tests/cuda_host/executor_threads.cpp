/* tests/cuda_host/executor_threads.cpp - one host thread for each CUDA thread, one block after another. */
#ifdef CUDA_HOST_THREADS
#include <chrono>
#include <memory>
#include <thread>

#include "executor.h"

#ifdef __SANITIZE_THREAD__
extern "C" { /* ThreadSanitizer's */
void AnnotateIgnoreSyncBegin(const char *file, int line);
void AnnotateIgnoreSyncEnd(const char *file, int line);
void AnnotateIgnoreReadsBegin(const char *file, int line);
void AnnotateIgnoreReadsEnd(const char *file, int line);
void AnnotateIgnoreWritesBegin(const char *file, int line);
void AnnotateIgnoreWritesEnd(const char *file, int line);
void __tsan_acquire(void *tag);
void __tsan_release(void *tag);
}
#define SANITIZER(call) call
#else
#define SANITIZER(call) (void)0
#endif

namespace cuda_host {

void order_release(void *tag) {
    SANITIZER(__tsan_release(tag));
    (void)tag;
}
void order_acquire(void *tag) {
    SANITIZER(__tsan_acquire(tag));
    (void)tag;
}

void set_order(int) {} /* the operating system has its own */

void block_lock(block_state &b) {
    SANITIZER(AnnotateIgnoreSyncBegin(__FILE__, __LINE__));
    SANITIZER(AnnotateIgnoreReadsBegin(__FILE__, __LINE__));
    SANITIZER(AnnotateIgnoreWritesBegin(__FILE__, __LINE__));
    b.m.lock();
}
void block_unlock(block_state &b) {
    b.m.unlock();
    SANITIZER(AnnotateIgnoreWritesEnd(__FILE__, __LINE__));
    SANITIZER(AnnotateIgnoreReadsEnd(__FILE__, __LINE__));
    SANITIZER(AnnotateIgnoreSyncEnd(__FILE__, __LINE__));
}

void gate_wait(block_state &b, gate &g) {
    const unsigned generation = g.generation;
    std::unique_lock<std::mutex> held(b.m, std::adopt_lock);
    if (!g.cv.wait_for(held, std::chrono::minutes(2), [&] { return g.generation != generation; }))
        fatal(&b, "threads wait for others that do not come");
    held.release();
}

void gate_open(gate &g) {
    g.arrived = 0;
    g.generation++;
    g.cv.notify_all();
}

/* Between blocks all threads meet, and the last one prepares the next block. */
class turnstile {
  public:
    explicit turnstile(unsigned n) : threads_(n) {}
    template <class F> void pass(F last) {
        std::unique_lock<std::mutex> hold(m_);
        const unsigned generation = generation_;
        if (++arrived_ == threads_) {
            last();
            arrived_ = 0;
            generation_++;
            cv_.notify_all();
        } else {
            cv_.wait(hold, [&] { return generation_ != generation; });
        }
    }

  private:
    std::mutex m_;
    std::condition_variable cv_;
    unsigned threads_, arrived_ = 0, generation_ = 0;
};

void run_grid(const char *kernel, dim3 grid, dim3 block, size_t shared, const std::function<void()> &body) {
    const unsigned threads = block.x * block.y * block.z;
    const size_t blocks = (size_t)grid.x * grid.y * grid.z;
    const auto b = std::make_unique<block_state>();
    turnstile between(threads);
    std::vector<std::thread> pool;
    block_begin(*b, kernel, threads, shared);
    for (unsigned linear = 0; linear < threads; linear++)
        pool.emplace_back([&, linear] {
            thread_state state = {};
            current = &state;
            for (size_t i = 0; i < blocks; i++) {
                block_lock(*b);
                thread_begin(state, *b, linear, grid, block, i);
                block_unlock(*b);
                body();
                thread_end(state);
                between.pass([&] {
                    block_end(*b);
                    block_begin(*b, kernel, threads, shared);
                });
            }
            delete state.pending;
        });
    for (std::thread &t : pool) t.join();
    free(b->shared);
}

} // namespace cuda_host
#endif
