/* tests/guard.h - float buffers that end at a page nobody may touch: an overrun of one element is a SIGSEGV, also for
 * masked vector loads, which AddressSanitizer does not see. */
#define _GNU_SOURCE /* MAP_ANONYMOUS; so include this header first */
#ifndef RUNG_GUARD_H
#define RUNG_GUARD_H
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

typedef struct {
    float *p; /* [n], p + n is the guard page */
    void *map;
    size_t bytes;
} guard;

/* n floats, NaN-filled: what a test forgets to write shows. Ends the test program when the system gives no memory. */
static inline guard guard_floats(size_t n) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t body = (n * sizeof(float) + page - 1) / page * page;
    guard g = {.bytes = body + page};
    g.map = mmap(NULL, g.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (g.map == MAP_FAILED || mprotect((char *)g.map + body, page, PROT_NONE) != 0) exit(3);
    g.p = (float *)((char *)g.map + body) - n;
    for (size_t i = 0; i < n; i++) g.p[i] = __builtin_nanf("");
    return g;
}

static inline void guard_free(guard *g) {
    munmap(g->map, g->bytes);
    *g = (guard){0};
}
#endif
