/* kernels/row_table.h - a table of rows in the mapped file, for every backend. Internal to kernels/. */
#ifndef RUNG_ROW_TABLE_H
#define RUNG_ROW_TABLE_H
#include "kernels/backend.h"

typedef struct {
    rung_tensor t; /* [rows, n], borrowed bytes */
    size_t n;
} row_table;

/** t as a table. RUNG_ESHAPE (no rows), RUNG_EFORMAT (no floats). */
rung_status row_table_of(row_table *out, const rung_tensor *t, rung_err *err);

/** Row `id` into out f32 [n]. */
void row_table_read(const row_table *t, size_t id, float *out);
#endif
