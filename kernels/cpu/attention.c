#include "kernels/cpu/attention.h"

#include "kernels/base/size.h"
#include "kernels/cpu/cpu_ops.h"

enum { WANTED_TASKS = 16 };

static const attention_kernels *kernels_for(unsigned cpu, size_t d) {
    const attention_kernels *k = &attention_ref;
#ifdef __x86_64__
    if (cpu & RUNG_CPU_AVX2) k = &attention_avx2;
    if (cpu & RUNG_CPU_AVX512) k = &attention_avx512;
#endif
    (void)cpu;
    return d <= k->max_d ? k : &attention_ref;
}

struct job {
    const rung_attention_args *a;
    const attention_kernels *k;
    size_t queries, blocks; /* of a block; of one head */
};

static void task(void *arg, size_t number, void *scratch) {
    const struct job *j = arg;
    const size_t head = number / j->blocks % j->a->heads, picture = number / j->blocks / j->a->heads;
    const size_t i0 = number % j->blocks * j->queries;
    j->k->block(j->a, picture, head, i0, size_min(j->queries, j->a->lq - i0), scratch);
}

void cpu_attention(rung_backend *be, const rung_attention_args *a) {
    const attention_kernels *k = kernels_for(cpu_of(be)->cpu, a->d);
    struct job j = {.a = a, .k = k, .queries = k->queries};
    /* By shape alone: few heads of few tokens still keep several workers busy. */
    while (j.queries > k->step && a->batch * a->heads * size_div_up(a->lq, j.queries) < WANTED_TASKS) j.queries /= 2;
    j.blocks = size_div_up(a->lq, j.queries);
    rung_pool_run(cpu_of(be)->pool, task, &j, a->batch * a->heads * j.blocks);
}
