#include <stdlib.h>

#include "kernels/cpu/cpu_ops.h"

struct rung_table {
    rung_tensor t; /* [rows, n], borrowed bytes */
    size_t n;
};

rung_status cpu_table_open(rung_backend *be, rung_table **out, const rung_tensor *t, rung_err *err) {
    char shape[128];
    (void)be;
    *out = NULL;
    if (t->ndim < 2 || t->shape[0] == 0)
        return rung_fail(err, RUNG_ESHAPE, "table is %s, wanted [rows, n] with a row at least",
                         rung_tensor_shape_text(t, shape, sizeof shape));
    if (!rung_dtype_is_float(t->dtype))
        return rung_fail(err, RUNG_EFORMAT, "table is %s, wanted floating-point numbers", rung_dtype_name(t->dtype));
    rung_table *table = malloc(sizeof *table);
    if (!table) return rung_fail(err, RUNG_ENOMEM, "table: out of memory");
    *table = (rung_table){.t = *t, .n = rung_tensor_count(t) / t->shape[0]};
    *out = table;
    return RUNG_OK;
}

void cpu_table_close(rung_backend *be, rung_table **t) {
    (void)be;
    free(*t);
    *t = NULL;
}

struct lookup_job {
    const rung_table *table;
    const int32_t *ids;
    float *y;
};

static void lookup_row(void *arg, size_t row, void *scratch) {
    const struct lookup_job *j = arg;
    const size_t n = j->table->n;
    (void)scratch;
    /* Cannot fail: the dtype was looked at when the table was opened. */
    (void)rung_tensor_to_f32(&j->table->t, (size_t)j->ids[row] * n, n, j->y + row * n, NULL);
}

void cpu_lookup(rung_backend *be, float *y, const rung_table *t, const int32_t *ids, size_t rows) {
    struct lookup_job j = {t, ids, y};
    rung_pool_run(cpu_of(be)->pool, lookup_row, &j, rows);
}
