#include "kernels/base/arena.h"

#include <stdint.h>

#include "kernels/base/size.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define POISON(p, n)   ASAN_POISON_MEMORY_REGION(p, n)
#define UNPOISON(p, n) ASAN_UNPOISON_MEMORY_REGION(p, n)
#else
#define POISON(p, n)   ((void)(p), (void)(n))
#define UNPOISON(p, n) ((void)(p), (void)(n))
#endif

enum { ALIGN = 64 };

void arena_begin(rung_arena *a, void *base, size_t cap, int device) {
    *a = (rung_arena){.base = base, .cap = cap, .device = device};
    if (base && !device) POISON(base, cap);
}

void *arena_end(rung_arena *a) {
    void *base = a->base;
    if (base && !a->device) UNPOISON(base, a->cap);
    *a = (rung_arena){0};
    return base;
}

void *arena_alloc(rung_arena *a, size_t bytes) {
    if (a->failed || bytes > SIZE_MAX - (ALIGN - 1) - a->used) {
        a->failed = 1;
        return NULL;
    }
    const size_t at = a->used;
    a->used += (bytes + ALIGN - 1) & ~(size_t)(ALIGN - 1);
    if (a->used > a->peak) a->peak = a->used;
    if (!a->base) return NULL;
    if (a->used > a->cap) {
        a->failed = 1;
        return NULL;
    }
    if (!a->device) UNPOISON(a->base + at, bytes);
    return a->base + at;
}

float *arena_floats(rung_arena *a, size_t rows, size_t cols) {
    size_t n, bytes;
    if (!size_mul(rows, cols, &n) || !size_mul(n, sizeof(float), &bytes)) {
        a->failed = 1;
        return NULL;
    }
    return arena_alloc(a, bytes);
}

void arena_rewind(rung_arena *a, rung_mark m) {
    if (a->base && !a->device && m < a->used && a->used <= a->cap) POISON(a->base + m, a->used - m);
    a->used = m;
}
