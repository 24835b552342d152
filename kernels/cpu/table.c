/* kernels/cpu/table.c - tables stay in the mapped file. */
#include <stdlib.h>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/row_table.h"

struct rung_table {
    row_table rows;
};

struct lookup_job {
    const row_table *table;
    const int32_t *ids;
    float *y;
};

rung_status cpu_table_open(rung_backend *be, rung_table **out, const rung_tensor *t, rung_err *err) {
    row_table rows;
    (void)be;
    *out = NULL;
    RUNG_TRY(row_table_of(&rows, t, err));
    rung_table *table = malloc(sizeof *table);
    if (!table) return rung_fail(err, RUNG_ENOMEM, "table: out of memory");
    table->rows = rows;
    *out = table;
    return RUNG_OK;
}

void cpu_table_close(rung_backend *be, rung_table **t) {
    (void)be;
    free(*t);
    *t = NULL;
}

static void lookup_row(void *arg, size_t row, void *scratch) {
    const struct lookup_job *j = arg;
    (void)scratch;
    row_table_read(j->table, (size_t)j->ids[row], j->y + row * j->table->n);
}

void cpu_lookup(rung_backend *be, float *y, const rung_table *t, const int32_t *ids, size_t rows) {
    struct lookup_job j = {&t->rows, ids, y};
    rung_pool_run(cpu_of(be)->pool, lookup_row, &j, rows);
}
