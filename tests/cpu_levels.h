/* tests/cpu_levels.h - a test walks every instruction set that the machine has, the scalar specification first. */
#ifndef RUNG_CPU_LEVELS_H
#define RUNG_CPU_LEVELS_H
#include <stdio.h>
#include <stdlib.h>

#include "kernels/backend.h"
#include "kernels/base/cpu.h"

static const unsigned cpu_level_masks[] = {0, RUNG_CPU_AVX2, RUNG_CPU_AVX2 | RUNG_CPU_AVX512, RUNG_CPU_ALL};
enum { CPU_LEVELS = sizeof cpu_level_masks / sizeof *cpu_level_masks };

/* Level i into *cpu; 0 and a line when this machine lacks it. */
static inline int cpu_level(size_t i, unsigned *cpu) {
    *cpu = cpu_level_masks[i];
    if ((rung_cpu_detect() & *cpu) == *cpu) return 1;
    fprintf(stderr, "SKIP %s: this machine does not have it\n", rung_cpu_name(*cpu));
    return 0;
}

/* A CPU backend with a pool of its own. Ends the test program when there is no memory for it. */
struct cpu_level_run {
    rung_pool *pool;
    rung_backend *be;
};

static inline struct cpu_level_run cpu_run_open(unsigned cpu, int threads) {
    struct cpu_level_run r = {0};
    rung_err err = {0};
    if (rung_pool_open(&r.pool, threads, &err) || rung_cpu_backend_open(&r.be, r.pool, cpu, &err)) {
        fprintf(stderr, "%s\n", err.msg);
        exit(3);
    }
    return r;
}

static inline void cpu_run_close(struct cpu_level_run *r) {
    rung_backend_close(&r->be);
    rung_pool_close(&r->pool);
}
#endif
