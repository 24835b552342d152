/* tests/cuda_bed.h - a CUDA backend beside the CPU's specification: the same call on both, the results compared. Only
 * the backend's table is used, so that the same test runs on host threads and on a GPU. */
#ifndef RUNG_CUDA_BED_H
#define RUNG_CUDA_BED_H
#include <functional>
#include <string>
#include <vector>

extern "C" {
#include "kernels/base/tensor.h"
#include "kernels/cuda/cuda.h"
}
#include "tests/check.h"

typedef std::vector<float> floats;

/* Both backends; ends the test when there is no GPU. */
struct bed {
    rung_pool *pool = nullptr;
    rung_backend *cpu = nullptr, *gpu = nullptr;
    rung_err err = {};
    bed() {
        rung_status st = rung_pool_open(&pool, 2, &err);
        if (!st) st = rung_cpu_backend_open(&cpu, pool, 0, &err);
        if (!st) st = rung_cuda_backend_open(&gpu, 0, &err);
        if (!CHECK(st == RUNG_OK)) fprintf(stderr, "  %s\n", err.msg);
    }
    ~bed() {
        rung_backend_close(&gpu);
        rung_backend_close(&cpu);
        rung_pool_close(&pool);
    }
};

/* Numbers in a backend's memory. */
struct memory {
    rung_backend *be;
    float *p = nullptr;
    size_t n;
    memory(rung_backend *b, const floats &v) : be(b), n(v.size()) {
        rung_err e = {};
        void *any = nullptr;
        if (!CHECK(be->ops->mem_alloc(be, &any, n * sizeof(float), &e) == RUNG_OK)) fprintf(stderr, "  %s\n", e.msg);
        p = (float *)any;
        be->ops->upload(be, p, v.data(), n * sizeof(float));
    }
    memory(const memory &) = delete;
    ~memory() { be->ops->mem_free(be, p); }
    floats read() const {
        floats v(n);
        rung_err e = {};
        be->ops->download(be, v.data(), p, n * sizeof(float));
        if (!CHECK(be->ops->sync(be, &e) == RUNG_OK)) fprintf(stderr, "  %s\n", e.msg);
        return v;
    }
};

/* Multiples of 1/32 in [-2, 2): exact in f32, TF32, f16 and bf16, so that only the order of sums differs. */
static inline floats exact_numbers(size_t n, uint64_t *seed) {
    floats v(n);
    for (float &x : v) x = floorf(rnd(seed) * 64) / 32;
    return v;
}
static inline floats random_numbers(size_t n, float mean, float size, uint64_t *seed) {
    floats v(n);
    for (float &x : v) x = mean + size * rnd(seed);
    return v;
}

static inline rung_tensor tensor_of(rung_dtype type, std::initializer_list<size_t> shape, const void *data) {
    rung_tensor t = {};
    t.dtype = type;
    for (size_t n : shape) t.shape[t.ndim++] = n;
    t.data = data;
    return t;
}

/* Runs `call` on each backend over its own copies of `inputs`; compares what is in inputs[out] afterwards. */
typedef std::function<void(rung_backend *be, const std::vector<float *> &p)> table_call;
static inline void same_on_both(bed &b, const std::vector<floats> &inputs, size_t out, float tol,
                                const std::string &what, const table_call &call) {
    floats result[2];
    rung_backend *const each[] = {b.cpu, b.gpu};
    for (int i = 0; i < 2; i++) {
        std::vector<memory *> held;
        std::vector<float *> p;
        for (const floats &v : inputs) {
            held.push_back(new memory(each[i], v));
            p.push_back(v.empty() ? nullptr : held.back()->p);
        }
        call(each[i], p);
        result[i] = held[out]->read();
        for (memory *m : held) delete m;
    }
    if (!CHECK(close_all(result[1].data(), result[0].data(), result[0].size(), tol)))
        fprintf(stderr, "  %s\n", what.c_str());
}

static inline std::string label(const char *what, std::initializer_list<size_t> numbers) {
    std::string s = what;
    for (size_t n : numbers) s += " " + std::to_string(n);
    return s;
}
#endif
