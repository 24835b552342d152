/* tests/test_backend.c - the backend's table and memory, arenas in it, and the calls that the networks make. */
#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define POISONED(p) __asan_address_is_poisoned(p)
#else
#define POISONED(p) ((void)(p), 1) /* nothing to look at without the sanitizer */
#endif

#include "kernels/ops.h"
#include "tests/check.h"
#include "tests/cpu_levels.h"

static void test_table_is_full(const rung_backend *be) {
    const rung_backend_ops *o = be->ops;
    CHECK(strcmp(o->name, "cpu") == 0);
    CHECK(o->close && o->sync && o->mem_alloc && o->mem_free && o->upload && o->download);
    CHECK(o->linear_open && o->linear_close && o->conv_open && o->conv_close && o->table_open && o->table_close);
    CHECK(o->linear && o->conv && o->attention && o->layer_norm && o->rms_norm && o->group_norm);
    CHECK(o->group_norm_affine && o->act && o->add && o->add_rows && o->copy2d && o->lookup && o->unpatchify);
}

static void test_memory(rung_backend *be) {
    static const size_t sizes[] = {0, 1, 63, 64, 65, 100000};
    rung_err err = {0};
    void *p;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        CHECK(be->ops->mem_alloc(be, &p, sizes[i], &err) == RUNG_OK);
        CHECK(p != NULL && (uintptr_t)p % 64 == 0);
        memset(p, 1, sizes[i]);
        be->ops->mem_free(be, p);
    }
    CHECK(be->ops->mem_alloc(be, &p, SIZE_MAX, &err) == RUNG_ENOMEM && p == NULL);
    CHECK(be->ops->mem_alloc(be, &p, SIZE_MAX / 2, NULL) == RUNG_ENOMEM && p == NULL);
    CHECK(err.code == RUNG_ENOMEM && strstr(err.msg, "bytes wanted") != NULL);
    be->ops->mem_free(be, NULL);
}

static void test_arena(rung_backend *be) {
    rung_err err = {0};
    rung_arena a;
    CHECK(rung_arena_open(&a, be, 1000, &err) == RUNG_OK && a.base && a.cap == 1000 && !a.failed);
    CHECK(POISONED(a.base) && POISONED(a.base + 999));
    char *p = arena_alloc(&a, 100);
    CHECK(p == (char *)a.base);
    memset(p, 1, 100);
    CHECK(POISONED(p + 100));
    const rung_mark m = arena_mark(&a);
    char *q = arena_alloc(&a, 100);
    memset(q, 2, 100);
    arena_rewind(&a, m);
    CHECK(POISONED(q) && p[99] == 1);
    CHECK(arena_alloc(&a, 2000) == NULL && a.failed);
    rung_arena_close(&a, be);
    CHECK(a.base == NULL && a.cap == 0);
    rung_arena_close(&a, be);                                     /* nothing there any more */
    CHECK(rung_arena_open(&a, be, 0, &err) == RUNG_OK && a.base); /* not to be taken for a dry run */
    rung_arena_close(&a, be);
    CHECK(rung_arena_open(&a, be, SIZE_MAX, NULL) == RUNG_ENOMEM && a.base == NULL);
}

/* A network in small: the dry run computes nothing and sizes the arena that the run then fills exactly. */
static float *add_twice(const rung_exec *x, const float *in, size_t n) {
    float *a = exec_floats(x, 1, n), *b = exec_floats(x, 1, n);
    op_upload(x, a, in, n * sizeof *in);
    op_add(x, b, a, a, n);
    op_act(x, b, b, n, RUNG_ACT_RELU);
    return b;
}

static void test_dry_run(rung_backend *be) {
    static const float in[3] = {1, -2, 3};
    float out[3] = {0};
    rung_err err = {0};
    rung_arena a = {0};
    const rung_exec dry = {.be = be, .arena = &a};
    CHECK(add_twice(&dry, in, 3) == NULL && exec_check(&dry, "test", &err) == RUNG_OK && a.peak == 128);
    const size_t need = a.peak;
    CHECK(rung_arena_open(&a, be, need, &err) == RUNG_OK);
    const rung_exec x = {.be = be, .arena = &a};
    float *b = add_twice(&x, in, 3);
    CHECK(exec_check(&x, "test", &err) == RUNG_OK);
    op_download(&x, out, b, sizeof out);
    CHECK(be->ops->sync(be, &err) == RUNG_OK && out[0] == 2 && out[1] == 0 && out[2] == 6);
    rung_arena_close(&a, be);
    CHECK(rung_arena_open(&a, be, need - 1, &err) == RUNG_OK);
    add_twice(&(rung_exec){.be = be, .arena = &a}, in, 3); /* touches nothing once the arena is full */
    CHECK(exec_check(&(rung_exec){.be = be, .arena = &a}, "test", &err) == RUNG_ENOMEM &&
          strstr(err.msg, "test") != NULL);
    rung_arena_close(&a, be);
}

int main(void) {
    for (size_t i = 0; i < CPU_LEVELS; i++) {
        unsigned cpu;
        if (!cpu_level(i, &cpu)) continue;
        struct cpu_level_run r = cpu_run_open(cpu, 1);
        test_table_is_full(r.be);
        test_memory(r.be);
        test_arena(r.be);
        test_dry_run(r.be);
        cpu_run_close(&r);
        cpu_run_close(&r); /* both are gone already */
    }
    return check_result();
}
