/* tests/test_base.c - errors, arena, CPU mask, thread pool. */
#define _POSIX_C_SOURCE 200809L /* setenv */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/arena.h"
#include "kernels/base/cpu.h"
#include "kernels/base/pool.h"
#include "tests/check.h"

static void first_cause_is_kept(void) {
    rung_err e = {0};
    CHECK(rung_fail(&e, RUNG_EIO, "file %s", "a") == RUNG_EIO);
    CHECK(rung_fail(&e, RUNG_ESHAPE, "later") == RUNG_ESHAPE);
    CHECK(e.code == RUNG_EIO && strcmp(e.msg, "file a") == 0);
    CHECK(rung_fail(NULL, RUNG_ENOMEM, "nobody listens") == RUNG_ENOMEM);
}

static void arena_sizes_itself(void) {
    rung_arena plan = {0};
    const rung_mark m = arena_mark(&plan);
    CHECK(arena_alloc(&plan, 1) == NULL && arena_floats(&plan, 3, 5) == NULL && !plan.failed);
    arena_rewind(&plan, m);
    CHECK(arena_alloc(&plan, 64) == NULL && plan.peak == 128);

    rung_arena a = {.base = aligned_alloc(64, plan.peak), .cap = plan.peak};
    CHECK(arena_alloc(&a, 1) == a.base && (unsigned char *)arena_floats(&a, 3, 5) == a.base + 64 && !a.failed);
    CHECK(arena_alloc(&a, 1) == NULL && a.failed);
    free(a.base);

    rung_arena wrapped = {0};
    CHECK(arena_floats(&wrapped, SIZE_MAX / 2, 4) == NULL && wrapped.failed);
    rung_arena huge = {0};
    CHECK(arena_alloc(&huge, SIZE_MAX - 3) == NULL && huge.failed);
}

static void cpu_mask_reads_environment(void) {
    unsigned mask = 0;
    rung_err e = {0};
    setenv("RUNG_CPU", "avx2", 1);
    CHECK(rung_cpu_mask(&mask, &e) == RUNG_OK && mask == RUNG_CPU_AVX2);
    setenv("RUNG_CPU", "scalar", 1);
    CHECK(rung_cpu_mask(&mask, &e) == RUNG_OK && mask == 0 && strcmp(rung_cpu_name(mask), "scalar") == 0);
    setenv("RUNG_CPU", "sse9", 1);
    CHECK(rung_cpu_mask(&mask, &e) == RUNG_EARG && strstr(e.msg, "sse9") && strstr(e.msg, "avx512"));
    unsetenv("RUNG_CPU");
    rung_err none = {0};
    CHECK(rung_cpu_mask(&mask, &none) == RUNG_OK && mask == RUNG_CPU_ALL);
}

struct tally {
    atomic_int seen[1000];
};

static void count_task(void *arg, size_t task, void *scratch) {
    struct tally *t = arg;
    memset(scratch, (int)task, RUNG_POOL_SCRATCH / 64);
    atomic_fetch_add(&t->seen[task], 1);
}

static void pool_runs_each_task_once(int threads) {
    rung_err e = {0};
    rung_pool *p;
    if (!CHECK(rung_pool_open(&p, threads, &e) == RUNG_OK)) return;
    CHECK(rung_pool_threads(p) == threads);
    struct tally *t = calloc(1, sizeof *t);
    for (int round = 0; round < 200; round++) rung_pool_run(p, count_task, t, (size_t)round % 1000);
    int wrong = 0;
    for (int i = 0; i < 1000; i++) wrong += t->seen[i] != (i < 199 ? 199 - i : 0);
    CHECK(wrong == 0);
    free(t);
    rung_pool_close(&p);
    CHECK(p == NULL);
    rung_pool_close(&p);
}

int main(void) {
    first_cause_is_kept();
    arena_sizes_itself();
    cpu_mask_reads_environment();
    for (int threads = 1; threads <= 4; threads++) pool_runs_each_task_once(threads);
    rung_err e = {0};
    rung_pool *p;
    CHECK(rung_pool_open(&p, -1, &e) == RUNG_EARG && p == NULL);
    return check_result();
}
