#include "kernels/cpu/attention.h"

#include "kernels/base/size.h"
#include "kernels/cpu/cpu_ops.h"

static const attention_kernels *kernels_for(unsigned cpu, size_t d) {
    const attention_kernels *k = &attention_ref;
    (void)cpu;
    return d <= k->max_d ? k : &attention_ref;
}

struct job {
    const rung_attention_args *a;
    const attention_kernels *k;
    size_t blocks; /* of one head */
};

static void task(void *arg, size_t number, void *scratch) {
    const struct job *j = arg;
    const size_t block = number % j->blocks, head = number / j->blocks % j->a->heads;
    const size_t i0 = block * j->k->queries;
    j->k->block(j->a, number / j->blocks / j->a->heads, head, i0, size_min(j->k->queries, j->a->lq - i0), scratch);
}

void cpu_attention(rung_backend *be, const rung_attention_args *a) {
    struct job j = {.a = a, .k = kernels_for(cpu_of(be)->cpu, a->d)};
    j.blocks = size_div_up(a->lq, j.k->queries);
    rung_pool_run(cpu_of(be)->pool, task, &j, a->batch * a->heads * j.blocks);
}
