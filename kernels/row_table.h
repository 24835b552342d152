/* kernels/row_table.h - a table of rows that stays in the mapped file, for every backend. Internal to kernels/. */
#ifndef RUNG_ROW_TABLE_H
#define RUNG_ROW_TABLE_H
#include "kernels/backend.h"

struct rung_table {
    rung_tensor t; /* [rows, n], borrowed bytes */
    size_t n;
};

/** table_open and table_close of kernels/backend.h. RUNG_ESHAPE (no rows), RUNG_EFORMAT (no floats), RUNG_ENOMEM. */
rung_status row_table_open(rung_backend *be, rung_table **out, const rung_tensor *t, rung_err *err);
void row_table_close(rung_backend *be, rung_table **t);

/** Row `id` into out f32 [n]. */
void row_table_read(const rung_table *t, int32_t id, float *out);
#endif
