#include "kernels/cpu/cpu_ops.h"
#include "kernels/row_table.h"

struct lookup_job {
    const rung_table *table;
    const int32_t *ids;
    float *y;
};

static void lookup_row(void *arg, size_t row, void *scratch) {
    const struct lookup_job *j = arg;
    (void)scratch;
    row_table_read(j->table, j->ids[row], j->y + row * j->table->n);
}

void cpu_lookup(rung_backend *be, float *y, const rung_table *t, const int32_t *ids, size_t rows) {
    struct lookup_job j = {t, ids, y};
    rung_pool_run(cpu_of(be)->pool, lookup_row, &j, rows);
}
