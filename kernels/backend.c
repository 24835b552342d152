#include "kernels/backend.h"

rung_status rung_arena_open(rung_arena *a, rung_backend *be, size_t bytes, rung_err *err) {
    void *base = NULL;
    *a = (rung_arena){0};
    const rung_status st = be->ops->mem_alloc(be, &base, bytes, err);
    if (st == RUNG_OK) arena_begin(a, base, bytes, be->ops->on_device);
    return st;
}

void rung_arena_close(rung_arena *a, rung_backend *be) {
    void *base = arena_end(a);
    if (base) be->ops->mem_free(be, base);
}
