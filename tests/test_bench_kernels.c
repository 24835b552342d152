/* tests/test_bench_kernels.c - the measurements run and are made of sane numbers; how fast is not a test's business. */
#include <string.h>

#include "bench/bench_kernels.h"
#include "kernels/base/cpu.h"
#include "tests/check.h"

static void count(void *arg, const rung_bench_row *row) {
    *(int *)arg += 1;
    CHECK(strstr(row->name, "288") != NULL && row->isa[0]);
    CHECK(row->seconds > 0 && row->seconds < 60 && row->gflops > 0 && row->peak_gflops > 0 && row->gbps > 0);
}

static void count_op(void *arg, const rung_bench_row *row) {
    *(int *)arg += 1;
    CHECK(row->seconds > 0 && row->seconds < 60 && row->peak_gflops > 0 && row->gbps > 0);
    CHECK((row->gflops > 0) == (strstr(row->name, "attention") != NULL)); /* the others are measured in bytes */
    CHECK((row->copy_gbps > 0) == (row->gflops == 0));
}

int main(void) {
    rung_err e = {0};
    rung_pool *pool;
    int rows = 0;
    if (!CHECK(rung_pool_open(&pool, 2, &e) == RUNG_OK)) return 1;
    CHECK(rung_bench_kernels(pool, rung_cpu_detect(), "288", 0, count, &rows, &e) == RUNG_OK && rows == 3);
    CHECK(rung_bench_kernels(pool, rung_cpu_detect(), "77x77", 0, count_op, &rows, &e) == RUNG_OK && rows == 4);
    CHECK(rung_bench_kernels(pool, rung_cpu_detect(), "layer_norm", 0, count_op, &rows, &e) == RUNG_OK && rows == 6);
    CHECK(rung_bench_kernels(pool, rung_cpu_detect(), "no such", 0, count, &rows, &e) == RUNG_EARG);
    CHECK(strstr(e.msg, "no such") && rows == 6);
    rung_pool_close(&pool);
    return check_result();
}
