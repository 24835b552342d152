/* kernels/base/arena.h - one block of scratch memory, handed out in order and given back by rewinding. */
#ifndef RUNG_ARENA_H
#define RUNG_ARENA_H
#include <stddef.h>

/**
 * base == NULL is the dry run: nothing is handed out, only `peak` grows. Sizing and running are the same code, so
 * they cannot disagree. Under AddressSanitizer what is not handed out is poisoned.
 */
typedef struct {
    unsigned char *base; /* 64-byte aligned, host or device memory */
    size_t cap, used, peak;
    int failed; /* an allocation did not fit; stays set */
    int device; /* a GPU works on it later than the host hands it out: nothing is poisoned */
} rung_arena;

typedef size_t rung_mark;

/** An arena over the 64-byte aligned [base, base + cap), which stays its owner's. arena_end gives `base` back. */
void arena_begin(rung_arena *a, void *base, size_t cap, int device);
void *arena_end(rung_arena *a);

/** 64-byte aligned bytes; NULL in a dry run, and when full (then a->failed is set). */
void *arena_alloc(rung_arena *a, size_t bytes);

/** arena_alloc of n floats, n = a product that may be large: a wrapped product sets a->failed. */
float *arena_floats(rung_arena *a, size_t rows, size_t cols);

static inline rung_mark arena_mark(const rung_arena *a) { return a->used; }
void arena_rewind(rung_arena *a, rung_mark m);
#endif
