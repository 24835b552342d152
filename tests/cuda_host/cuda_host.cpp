#include <cstdio>
#include <cstdlib>
#include <set>
#include <string>

#include "cuda_fp16.h"
#include "cuda_host_ptx.h"
#include "cuda_runtime.h"
#include "executor.h"

__thread cuda_host::thread_state *cuda_host::current;

namespace cuda_host {
namespace {

/* A barrier orders memory, in ThreadSanitizer's eyes too: what was before it is seen behind it. Two tags in turn, so
 * that a thread that is already on its way to the next barrier adds nothing to this one. */
struct barrier_order {
    void *tag;
    barrier_order(block_state &b, gate &g) {
        block_lock(b);
        tag = &g.tags[g.generation % 2];
        block_unlock(b);
        order_release(tag);
    }
    ~barrier_order() { order_acquire(tag); }
};

enum { CANARY = 256, CANARY_BYTE = 0xa5, GARBAGE = 0xff };

std::mutex sites_lock;
std::set<std::string> sites_seen;
std::vector<std::string> sites_list;
bool recording;
std::string dropped_file;
int dropped_line;

std::string base_name(const char *file) {
    const std::string s = file;
    return s.substr(s.find_last_of('/') + 1);
}

/* True when the call at this site is to be left out. */
bool is_dropped(const char *file, int line) {
    if (recording) {
        const std::string name = base_name(file) + ":" + std::to_string(line);
        const std::lock_guard<std::mutex> hold(sites_lock);
        if (sites_seen.insert(name).second) sites_list.push_back(name);
    }
    return dropped_line == line && base_name(file) == dropped_file;
}

/* Expected to be there: the threads of the block that still run. */
void sync_arrive(block_state &b, site at) {
    if (b.sync.arrived == 0) b.sync.at = at;
    if (b.sync.at.line != at.line || strcmp(b.sync.at.file, at.file) != 0)
        fatal(&b, "threads of one block wait at different barriers");
    if (++b.sync.arrived < b.live) return gate_wait(b, b.sync);
    b.votes_result = b.votes;
    b.votes = 0;
    gate_open(b.sync);
}

warp_group &find_group(block_state &b, warp_state &w, unsigned mask) {
    warp_group *free_group = nullptr;
    for (warp_group &g : w.groups) {
        if (g.mask == mask) return g;
        if (!g.mask && !free_group) free_group = &g;
    }
    if (!free_group) fatal(&b, "more than 8 different masks in one warp");
    free_group->mask = mask;
    return *free_group;
}

void group_complete(warp_group &g) {
    if (g.op) g.op(g.slots, g.arrived_lanes);
    g.arrived_lanes = 0;
    gate_open(g.g);
}

warp_group &own_group(unsigned mask) {
    block_state &b = *current->block;
    block_lock(b);
    warp_group &g = find_group(b, b.warps[current->linear / WARP], mask);
    block_unlock(b);
    return g;
}

void meet(unsigned mask, const void *in, size_t in_bytes, void *out, size_t out_bytes, warp_op *op) {
    thread_state &t = *current;
    block_state &b = *t.block;
    warp_state &w = b.warps[t.linear / WARP];
    block_lock(b);
    if (!(mask >> t.lane & 1)) fatal(&b, "a lane is not in the mask that it names");
    warp_group &g = find_group(b, w, mask);
    if (g.arrived_lanes && g.op != op) fatal(&b, "lanes of one warp meet in different operations");
    g.op = op;
    if (in_bytes) memcpy(g.slots.in[t.lane], in, in_bytes);
    g.arrived_lanes |= 1u << t.lane;
    g.g.arrived++;
    if (g.arrived_lanes == (mask & w.live))
        group_complete(g);
    else
        gate_wait(b, g.g);
    if (out_bytes) memcpy(out, g.slots.out[t.lane], out_bytes);
    block_unlock(b);
}

void finish_copies(copies &c, size_t end) {
    for (size_t i = 0; i < end; i++) {
        const copy &k = c.list[i];
        if (k.src_bytes) memcpy(k.dst, k.src, k.src_bytes);
        if (k.src_bytes < k.bytes) memset((unsigned char *)k.dst + k.src_bytes, 0, k.bytes - k.src_bytes);
    }
    c.list.erase(c.list.begin(), c.list.begin() + (long)end);
}

cudaError_t last_error;
} // namespace

void fatal(const block_state *b, const char *what) {
    if (b)
        fprintf(stderr, "cuda_host: %s, block %u,%u,%u: %s\n", b->kernel, b->idx.x, b->idx.y, b->idx.z, what);
    else
        fprintf(stderr, "cuda_host: %s\n", what);
    if (b && b->sync.arrived)
        fprintf(stderr, "  %u of %u threads at %s:%d\n", b->sync.arrived, b->live, b->sync.at.file, b->sync.at.line);
    for (size_t i = 0; b && i < b->warps.size(); i++)
        for (const warp_group &g : b->warps[i].groups)
            if (g.arrived_lanes)
                fprintf(stderr, "  warp %zu: lanes %08x of mask %08x in a warp operation\n", i, g.arrived_lanes,
                        g.mask);
    abort();
}

void block_begin(block_state &b, const char *kernel, unsigned threads, size_t shared) {
    b.kernel = kernel;
    b.live = threads;
    b.votes = 0;
    b.warps.resize((threads + WARP - 1) / WARP);
    for (size_t i = 0; i < b.warps.size(); i++) {
        const unsigned lanes = threads - (unsigned)i * WARP;
        b.warps[i].live = lanes >= WARP ? 0xffffffffu : (1u << lanes) - 1;
        for (warp_group &g : b.warps[i].groups) g.mask = 0;
    }
    b.shared_bytes = shared;
    if (!b.shared) b.shared = (unsigned char *)aligned_alloc(128, SHARED_MAX + CANARY + 128);
    memset(b.shared, GARBAGE, shared);
    memset(b.shared + shared, CANARY_BYTE, CANARY);
}

void block_end(block_state &b) {
    for (size_t i = 0; i < CANARY; i++)
        if (b.shared[b.shared_bytes + i] != CANARY_BYTE) fatal(&b, "wrote past the dynamic shared memory");
}

void thread_begin(thread_state &t, block_state &b, unsigned linear, dim3 grid, dim3 block, size_t block_index) {
    t.block = &b;
    t.linear = linear;
    t.lane = linear % WARP;
    t.thread_idx = {linear % block.x, linear / block.x % block.y, linear / block.x / block.y};
    t.block_dim = block;
    t.grid_dim = grid;
    const size_t plane = (size_t)grid.x * grid.y;
    t.block_idx = {(unsigned)(block_index % grid.x), (unsigned)(block_index % plane / grid.x),
                   (unsigned)(block_index / plane)};
    b.idx = t.block_idx;
}

/* A thread that has returned is waited for no longer. */
void thread_end(thread_state &t) {
    block_state &b = *t.block;
    block_lock(b);
    if (t.pending && !t.pending->list.empty()) fatal(&b, "a thread ends with asynchronous copies under way");
    if (t.pending) t.pending->groups.clear();
    warp_state &w = b.warps[t.linear / WARP];
    w.live &= ~(1u << t.lane);
    b.live--;
    if (b.sync.arrived && b.sync.arrived == b.live) {
        b.votes_result = b.votes;
        b.votes = 0;
        gate_open(b.sync);
    }
    for (warp_group &g : w.groups)
        if (g.arrived_lanes && g.arrived_lanes == (g.mask & w.live)) group_complete(g);
    block_unlock(b);
}

bool run(const char *kernel, dim3 grid, dim3 block, size_t shared, const std::function<void()> &body) {
    const size_t threads = (size_t)block.x * block.y * block.z;
    if (threads == 0 || threads > MAX_THREADS || block.z > 64 || shared > SHARED_MAX) return false;
    if (!grid.x || !grid.y || !grid.z || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535) return false;
    run_grid(kernel, grid, block, shared, body);
    return true;
}

void __attribute__((weak)) enqueue(cudaStream_t, std::function<void()> work) { work(); }
void __attribute__((weak)) launch_refused() { last_error = cudaErrorInvalidConfiguration; }

int sync_threads_count(int predicate, const char *file, int line) {
    block_state &b = *current->block;
    if (is_dropped(file, line)) return predicate != 0;
    const barrier_order order(b, b.sync);
    block_lock(b);
    b.votes += predicate != 0;
    sync_arrive(b, {file, line});
    const int result = b.votes_result;
    block_unlock(b);
    return result;
}

void sync_threads(const char *file, int line) {
    block_state &b = *current->block;
    if (is_dropped(file, line)) return;
    const barrier_order order(b, b.sync);
    block_lock(b);
    sync_arrive(b, {file, line});
    block_unlock(b);
}

void sync_warp(unsigned mask, const char *file, int line) {
    if (is_dropped(file, line)) return;
    const barrier_order order(*current->block, own_group(mask).g);
    meet(mask, nullptr, 0, nullptr, 0, nullptr);
}

void collective(unsigned mask, const void *in, size_t in_bytes, void *out, size_t out_bytes, warp_op *op) {
    meet(mask, in, in_bytes, out, out_bytes, op);
}

void *dynamic_shared() { return current->block->shared; }

void check_aligned(const void *p, size_t bytes, const char *what) {
    if ((uintptr_t)p % bytes) fatal(current->block, (std::string(what) + ": misaligned address").c_str());
}

void copy_async(void *dst, const void *src, unsigned bytes, unsigned src_bytes, const char *file, int line) {
    (void)file, (void)line;
    check_aligned(dst, bytes, "cp.async, shared");
    if (src_bytes) check_aligned(src, bytes, "cp.async, global");
    memset(dst, GARBAGE, bytes);
    if (!current->pending) current->pending = new copies;
    current->pending->list.push_back({dst, src, bytes, src_bytes});
}

void copy_commit() {
    if (!current->pending) current->pending = new copies;
    current->pending->groups.push_back(current->pending->list.size());
}

void copy_wait(unsigned newest_groups_left, const char *file, int line) {
    copies *c = current->pending;
    if (is_dropped(file, line) || !c || c->groups.size() <= newest_groups_left) return;
    const size_t done = c->groups.size() - newest_groups_left, end = c->groups[done - 1];
    finish_copies(*c, end);
    c->groups.erase(c->groups.begin(), c->groups.begin() + (long)done);
    for (size_t &g : c->groups) g -= end;
}

void record_sites(bool on) { recording = on; }
size_t site_count() { return sites_list.size(); }
const char *site_name(size_t i) { return sites_list[i].c_str(); }
void drop_site(const char *name) {
    dropped_line = 0;
    if (!name) return;
    const std::string s = name;
    dropped_file = s.substr(0, s.find(':'));
    dropped_line = atoi(s.c_str() + s.find(':') + 1);
}

/* The warp operations. */

void shuffle_op(warp_slots &w, unsigned mask) {
    for (int lane = 0; lane < WARP; lane++) {
        if (!(mask >> lane & 1)) continue;
        shuffle_in in;
        memcpy(&in, w.in[lane], sizeof in);
        const int first = lane & ~(in.width - 1), at = lane - first;
        int from = at;
        if (in.kind == SHFL_IDX) from = in.arg & (in.width - 1);
        if (in.kind == SHFL_UP) from = at - in.arg;
        if (in.kind == SHFL_DOWN) from = at + in.arg;
        if (in.kind == SHFL_XOR) from = at ^ in.arg;
        if (from < 0 || from >= in.width || !(mask >> (first + from) & 1)) from = at;
        memcpy(w.out[lane], w.in[first + from], sizeof in.value);
    }
}

void ballot_op(warp_slots &w, unsigned mask) {
    unsigned votes = 0;
    for (int lane = 0; lane < WARP; lane++) {
        int p;
        memcpy(&p, w.in[lane], sizeof p);
        if (mask >> lane & 1 && p) votes |= 1u << lane;
    }
    for (int lane = 0; lane < WARP; lane++) memcpy(w.out[lane], &votes, sizeof votes);
}

/* PTX ISA: element i of a fragment, i / 2 its register, i % 2 the half. */
template <bool BF16> void mma_op(warp_slots &w, unsigned mask) {
    static_assert(sizeof(mma_in) <= SLOT, "fits a slot");
    if (mask != 0xffffffffu) fatal(current->block, "mma.sync without the whole warp");
    float a[16][16], b[16][8], d[16][8];
    const auto value = [](uint32_t reg, int half) {
        const uint16_t h = (uint16_t)(reg >> 16 * half);
        return BF16 ? bf16_to_f32(h) : f16_to_f32(h);
    };
    for (int lane = 0; lane < WARP; lane++) {
        const int group = lane >> 2, in_group = lane % 4;
        mma_in in;
        memcpy(&in, w.in[lane], sizeof in);
        for (int i = 0; i < 8; i++) {
            const int row = i < 2 || (i >= 4 && i < 6) ? group : group + 8;
            const int col = in_group * 2 + (i & 1) + (i >= 4 ? 8 : 0);
            a[row][col] = value(in.a[i / 2], i % 2);
        }
        for (int i = 0; i < 4; i++) b[in_group * 2 + (i & 1) + (i >= 2 ? 8 : 0)][group] = value(in.b[i / 2], i % 2);
        for (int i = 0; i < 4; i++) d[i < 2 ? group : group + 8][in_group * 2 + (i & 1)] = in.c[i];
    }
    for (int r = 0; r < 16; r++)
        for (int k = 0; k < 16; k++)
            for (int c = 0; c < 8; c++) d[r][c] += a[r][k] * b[k][c];
    for (int lane = 0; lane < WARP; lane++) {
        float out[4];
        for (int i = 0; i < 4; i++) out[i] = d[(lane >> 2) + (i < 2 ? 0 : 8)][lane % 4 * 2 + (i & 1)];
        memcpy(w.out[lane], out, sizeof out);
    }
}
template void mma_op<false>(warp_slots &, unsigned);
template void mma_op<true>(warp_slots &, unsigned);

/* Element (row, col) of matrix i: two bytes of what lane 8 i + row handed in. */
static uint32_t matrix_element(const warp_slots &w, int i, int row, int col) {
    uint16_t h;
    memcpy(&h, w.in[8 * i + row] + 2 * col, 2);
    return h;
}
static void ldmatrix_any(warp_slots &w, unsigned mask, bool trans) {
    if (mask != 0xffffffffu) fatal(current->block, "ldmatrix.sync without the whole warp");
    for (int lane = 0; lane < WARP; lane++)
        for (int i = 0; i < 4; i++) {
            const int row = lane / 4, col = lane % 4 * 2;
            const uint32_t lo = trans ? matrix_element(w, i, col, row) : matrix_element(w, i, row, col);
            const uint32_t hi = trans ? matrix_element(w, i, col + 1, row) : matrix_element(w, i, row, col + 1);
            const uint32_t r = lo | hi << 16;
            memcpy(w.out[lane] + 4 * i, &r, 4);
        }
}
void ldmatrix_op(warp_slots &w, unsigned mask) { ldmatrix_any(w, mask, false); }
void ldmatrix_trans_op(warp_slots &w, unsigned mask) { ldmatrix_any(w, mask, true); }

} // namespace cuda_host

cudaError_t __attribute__((weak)) cudaPeekAtLastError() { return cuda_host::last_error; }
cudaError_t __attribute__((weak)) cudaGetLastError() {
    const cudaError_t e = cuda_host::last_error;
    cuda_host::last_error = cudaSuccess;
    return e;
}
const char *__attribute__((weak)) cudaGetErrorString(cudaError_t e) {
    return e == cudaSuccess ? "no error" : e == cudaErrorInvalidValue ? "invalid argument" : "invalid configuration";
}
