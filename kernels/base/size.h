/* kernels/base/size.h - products of sizes that came from a file or a caller. */
#ifndef RUNG_SIZE_H
#define RUNG_SIZE_H
#include <stdbool.h>
#include <stddef.h>

/** a * b into *out; false (and *out untouched) when it does not fit a size_t. */
static inline bool size_mul(size_t a, size_t b, size_t *out) {
    size_t r;
    if (__builtin_mul_overflow(a, b, &r)) return false;
    *out = r;
    return true;
}

static inline size_t size_min(size_t a, size_t b) { return a < b ? a : b; }
static inline size_t size_max(size_t a, size_t b) { return a > b ? a : b; }
static inline size_t size_div_up(size_t a, size_t b) { return a / b + (a % b != 0); }
#endif
