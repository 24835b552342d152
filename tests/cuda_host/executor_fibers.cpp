/* tests/cuda_host/executor_fibers.cpp - a block's threads take turns on one host thread. */
#ifndef CUDA_HOST_THREADS
#include <atomic>
#include <cstdlib>
#include <deque>
#include <memory>
#include <sys/mman.h>
#include <thread>

#include "executor.h"
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace cuda_host {

enum { STACK = 256 << 10, GUARD = 4096 };

struct fiber {
    void *sp = nullptr;
    thread_state state = {};
    unsigned char *stack = nullptr;
};

/* One host thread's fibers. Kept over launches. */
struct machine {
    std::deque<fiber> fibers;   /* a deque: growing moves nothing */
    std::vector<fiber *> ready; /* a queue: read at head, written at the end */
    size_t head = 0;
    unsigned running = 0;
    fiber *active = nullptr;
    void *main_sp = nullptr;
    const std::function<void()> *body = nullptr;
    block_state block;
    const void *main_stack = nullptr; /* AddressSanitizer's: where to come back to */
    size_t main_stack_bytes = 0;

    ~machine() {
        for (fiber &f : fibers) {
            munmap(f.stack, STACK);
            delete f.state.pending;
        }
        free(block.shared);
    }
};

static thread_local machine own;
static std::atomic<int> start_order{0};
void set_order(int order) { start_order = order; }

#if defined(__x86_64__)
/* Saves what a function must keep on the stack, leaves the stack pointer in *save, and goes on where `to` was left. */
extern "C" void cuda_host_switch(void **save, void *to);
asm(".text\n"
    ".globl cuda_host_switch\n"
    ".type cuda_host_switch, @function\n"
    "cuda_host_switch:\n"
    "    pushq %rbp\n    pushq %rbx\n    pushq %r12\n    pushq %r13\n    pushq %r14\n    pushq %r15\n"
    "    movq %rsp, (%rdi)\n"
    "    movq %rsi, %rsp\n"
    "    popq %r15\n    popq %r14\n    popq %r13\n    popq %r12\n    popq %rbx\n    popq %rbp\n"
    "    ret\n"
    ".size cuda_host_switch, . - cuda_host_switch\n"
    ".section .note.GNU-stack,\"\",@progbits\n"
    ".text\n");
static void *first_frame(unsigned char *top, void (*entry)()) {
    void **sp = (void **)top;
    *--sp = nullptr; /* where entry would return to; it does not */
    *--sp = (void *)entry;
    for (int i = 0; i < 6; i++) *--sp = nullptr;
    return sp;
}
#elif defined(__aarch64__)
extern "C" void cuda_host_switch(void **save, void *to);
asm(".text\n"
    ".globl cuda_host_switch\n"
    ".type cuda_host_switch, %function\n"
    "cuda_host_switch:\n"
    "    sub sp, sp, #160\n"
    "    stp x19, x20, [sp, #0]\n    stp x21, x22, [sp, #16]\n    stp x23, x24, [sp, #32]\n"
    "    stp x25, x26, [sp, #48]\n    stp x27, x28, [sp, #64]\n    stp x29, x30, [sp, #80]\n"
    "    stp d8, d9, [sp, #96]\n    stp d10, d11, [sp, #112]\n    stp d12, d13, [sp, #128]\n"
    "    stp d14, d15, [sp, #144]\n"
    "    mov x9, sp\n    str x9, [x0]\n    mov sp, x1\n"
    "    ldp x19, x20, [sp, #0]\n    ldp x21, x22, [sp, #16]\n    ldp x23, x24, [sp, #32]\n"
    "    ldp x25, x26, [sp, #48]\n    ldp x27, x28, [sp, #64]\n    ldp x29, x30, [sp, #80]\n"
    "    ldp d8, d9, [sp, #96]\n    ldp d10, d11, [sp, #112]\n    ldp d12, d13, [sp, #128]\n"
    "    ldp d14, d15, [sp, #144]\n"
    "    add sp, sp, #160\n"
    "    ret\n"
    ".size cuda_host_switch, . - cuda_host_switch\n"
    ".section .note.GNU-stack,\"\",%progbits\n"
    ".text\n");
static void *first_frame(unsigned char *top, void (*entry)()) {
    void **sp = (void **)top - 20;
    for (int i = 0; i < 20; i++) sp[i] = nullptr;
    sp[11] = (void *)entry;
    return sp;
}
#else
#error "cuda_host: no stack switch for this processor; build with CUDA_HOST_THREADS"
#endif

/* Goes on with `next`, or with the one who started the block when it is NULL. `ends`: this fiber will not come back. */
static void switch_to(machine &m, fiber *next, bool ends) {
    fiber *self = m.active;
    m.active = next;
    current = next ? &next->state : nullptr;
    void *unused;
    void **save = ends ? &unused : self ? &self->sp : &m.main_sp;
#ifdef __SANITIZE_ADDRESS__
    void *fake = nullptr;
    __sanitizer_start_switch_fiber(ends ? nullptr : &fake, next ? next->stack + GUARD : m.main_stack,
                                   next ? (size_t)STACK - GUARD : m.main_stack_bytes);
    cuda_host_switch(save, next ? next->sp : m.main_sp);
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#else
    cuda_host_switch(save, next ? next->sp : m.main_sp);
#endif
}

static fiber *next_ready(machine &m) {
    if (m.head == m.ready.size()) return nullptr;
    fiber *f = m.ready[m.head++];
    if (m.head > 4096) {
        m.ready.erase(m.ready.begin(), m.ready.begin() + (long)m.head);
        m.head = 0;
    }
    return f;
}

static void fiber_entry() {
    machine &m = own;
#ifdef __SANITIZE_ADDRESS__
    const void *from;
    size_t bytes;
    __sanitizer_finish_switch_fiber(nullptr, &from, &bytes);
    if (!m.main_stack) m.main_stack = from, m.main_stack_bytes = bytes; /* the first one comes from there */
#endif
    (*m.body)();
    thread_end(m.active->state);
    m.running--;
    fiber *next = next_ready(m);
    if (!next && m.running) fatal(&m.block, "threads wait for others that will not come");
    switch_to(m, next, true);
    abort(); /* an ended fiber is not resumed */
}

void block_lock(block_state &) {}
void block_unlock(block_state &) {}
void order_release(void *) {}
void order_acquire(void *) {}

void gate_wait(block_state &b, gate &g) {
    machine &m = own;
    g.waiting.push_back(m.active);
    fiber *next = next_ready(m);
    if (!next) fatal(&b, "threads wait for others that will not come");
    switch_to(m, next, false);
}

void gate_open(gate &g) {
    machine &m = own;
    g.arrived = 0;
    g.generation++;
    m.ready.insert(m.ready.end(), g.waiting.begin(), g.waiting.end());
    g.waiting.clear();
}

static void grow(machine &m, size_t threads) {
    while (m.fibers.size() < threads) {
        m.fibers.emplace_back();
        void *p = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED) fatal(nullptr, "no memory for stacks");
        mprotect(p, GUARD, PROT_NONE);
        m.fibers.back().stack = (unsigned char *)p;
    }
}

struct launch_info {
    const char *kernel;
    dim3 grid, block;
    size_t shared, blocks;
    unsigned threads;
    const std::function<void()> *body;
    std::atomic<size_t> next{0};
};

static void run_block(machine &m, const launch_info &l, size_t index) {
    block_begin(m.block, l.kernel, l.threads, l.shared);
    m.ready.clear();
    m.head = 0;
    m.running = l.threads;
    m.body = l.body;
    for (unsigned i = 0; i < l.threads; i++) {
        const unsigned linear = start_order ? l.threads - 1 - i : i;
        fiber &f = m.fibers[linear];
        thread_begin(f.state, m.block, linear, l.grid, l.block, index);
        /* tops at different offsets, or the frames of all fibers would share a few cache sets */
        unsigned char *top = f.stack + STACK - linear % 32 * 1088;
#ifdef __SANITIZE_ADDRESS__
        __asan_unpoison_memory_region(top - 4096, 4096); /* the frames that the last block's thread ended in */
#endif
        f.sp = first_frame(top, fiber_entry);
        m.ready.push_back(&f);
    }
    m.active = nullptr;
    switch_to(m, next_ready(m), false);
    block_end(m.block);
}

static void run_blocks(launch_info &l) {
    machine &m = own;
    grow(m, l.threads);
    for (size_t i; (i = l.next.fetch_add(1)) < l.blocks;) run_block(m, l, i);
}

/* The other cores: each takes blocks of the launch under way. */
class helpers {
  public:
    explicit helpers(unsigned n) {
        for (unsigned i = 0; i < n; i++) threads_.emplace_back([this] { work(); });
    }
    ~helpers() {
        {
            const std::lock_guard<std::mutex> hold(m_);
            stop_ = true;
        }
        cv_.notify_all();
        for (std::thread &t : threads_) t.join();
    }
    void run(launch_info &l) {
        {
            const std::lock_guard<std::mutex> hold(m_);
            launch_ = &l;
            busy_ = threads_.size();
            turn_++;
        }
        cv_.notify_all();
        run_blocks(l);
        std::unique_lock<std::mutex> hold(m_);
        done_.wait(hold, [this] { return busy_ == 0; });
    }

  private:
    void work() {
        std::unique_lock<std::mutex> hold(m_);
        for (unsigned long seen = 0;;) {
            cv_.wait(hold, [&] { return stop_ || turn_ != seen; });
            if (stop_) return;
            seen = turn_;
            hold.unlock();
            run_blocks(*launch_);
            hold.lock();
            if (--busy_ == 0) done_.notify_one();
        }
    }
    std::mutex m_;
    std::condition_variable cv_, done_;
    std::vector<std::thread> threads_;
    launch_info *launch_ = nullptr;
    size_t busy_ = 0;
    unsigned long turn_ = 0;
    bool stop_ = false;
};

void run_grid(const char *kernel, dim3 grid, dim3 block, size_t shared, const std::function<void()> &body) {
    static helpers others(std::max(1u, std::min(8u, std::thread::hardware_concurrency())) - 1);
    static std::mutex one_at_a_time;
    launch_info l;
    l.kernel = kernel;
    l.grid = grid;
    l.block = block;
    l.shared = shared;
    l.blocks = (size_t)grid.x * grid.y * grid.z;
    l.threads = block.x * block.y * block.z;
    l.body = &body;
    const std::unique_lock<std::mutex> mine(one_at_a_time, std::try_to_lock);
    if (mine.owns_lock() && l.blocks > 1)
        others.run(l);
    else
        run_blocks(l);
}

} // namespace cuda_host
#endif
