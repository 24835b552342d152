#include "kernels/row_table.h"

rung_status row_table_of(row_table *out, const rung_tensor *t, rung_err *err) {
    char shape[128];
    if (t->ndim < 2 || t->shape[0] == 0)
        return rung_fail(err, RUNG_ESHAPE, "table is %s, wanted [rows, n] with a row at least",
                         rung_tensor_shape_text(t, shape, sizeof shape));
    if (!rung_dtype_is_float(t->dtype))
        return rung_fail(err, RUNG_EFORMAT, "table is %s, wanted floating-point numbers", rung_dtype_name(t->dtype));
    *out = (row_table){.t = *t, .n = rung_tensor_count(t) / t->shape[0]};
    return RUNG_OK;
}

void row_table_read(const row_table *t, size_t id, float *out) {
    /* Cannot fail: the dtype was looked at when the table was opened. */
    (void)rung_tensor_to_f32(&t->t, id * t->n, t->n, out, NULL);
}
