/* kernels/cuda/cuda_table.c - token embeddings: tables in the device's memory, in the bits that they are
 * stored in where the kernel reads those (f32, f16, bf16, E3M2), else as f32. */
#include <stdlib.h>

#include "kernels/base/size.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/row_table.h"

enum { STRIPE = 4 << 20 };

struct rung_table {
    row_table rows; /* as in the file */
    void *numbers;  /* on the device */
    float *scale;   /* on the device; NULL: none */
    cuda_row_kind kind;
};

/* False: no kind of the kernel's. */
static bool kind_of(const rung_tensor *t, cuda_row_kind *kind) {
    if (t->bitmap) return false;
    *kind = t->dtype == RUNG_F32    ? CUDA_ROWS_F32
            : t->dtype == RUNG_F16  ? CUDA_ROWS_F16
            : t->dtype == RUNG_BF16 ? CUDA_ROWS_BF16
                                    : CUDA_ROWS_E3M2;
    return *kind != CUDA_ROWS_E3M2 || t->dtype == RUNG_F6_E3M2;
}

/* The file's bytes, and the rows' factors. */
static rung_status send_as_stored(cuda_backend *c, rung_table *t, rung_err *err) {
    const rung_tensor *from = &t->rows.t;
    const size_t rows = from->shape[0];
    size_t bits;
    if (!size_mul(rung_tensor_count(from), rung_dtype_bits(from->dtype), &bits))
        return rung_fail(err, RUNG_ESHAPE, "a table of %zu rows is too large", rows);
    RUNG_TRY(cuda_alloc(&c->base, &t->numbers, size_div_up(bits, 8), err));
    cuda_upload(&c->base, t->numbers, from->data, size_div_up(bits, 8));
    if (!from->scale) return RUNG_OK;
    RUNG_TRY(cuda_alloc(&c->base, (void **)&t->scale, rows * sizeof *t->scale, err));
    cuda_upload(&c->base, t->scale, from->scale, rows * sizeof *t->scale);
    return RUNG_OK;
}

/* A few megabytes of rows at a time. */
static rung_status send_as_f32(cuda_backend *c, rung_table *t, rung_err *err) {
    const size_t rows = t->rows.t.shape[0], n = t->rows.n;
    size_t bytes;
    t->kind = CUDA_ROWS_F32;
    if (!size_mul(rung_tensor_count(&t->rows.t), sizeof(float), &bytes))
        return rung_fail(err, RUNG_ESHAPE, "a table of %zu rows is too large", rows);
    if (bytes == 0) return RUNG_OK;
    RUNG_TRY(cuda_alloc(&c->base, &t->numbers, bytes, err));
    const size_t room = size_min(size_max(STRIPE / (n * sizeof(float)), 1), rows);
    float *stripe = malloc(room * n * sizeof *stripe);
    if (!stripe) return rung_fail(err, RUNG_ENOMEM, "no memory for rows of a table");
    for (size_t first = 0, held; first < rows; first += held) {
        held = size_min(room, rows - first);
        for (size_t r = 0; r < held; r++) row_table_read(&t->rows, first + r, stripe + r * n);
        cuda_upload(&c->base, (float *)t->numbers + first * n, stripe, held * n * sizeof *stripe);
    }
    free(stripe);
    return RUNG_OK;
}

rung_status cuda_table_open(rung_backend *be, rung_table **out, const rung_tensor *t, rung_err *err) {
    cuda_backend *c = cuda_of(be);
    row_table rows;
    *out = NULL;
    RUNG_TRY(row_table_of(&rows, t, err));
    rung_table *table = calloc(1, sizeof *table);
    if (!table) return rung_fail(err, RUNG_ENOMEM, "table: out of memory");
    table->rows = rows;
    const rung_status st = kind_of(t, &table->kind) ? send_as_stored(c, table, err) : send_as_f32(c, table, err);
    if (st)
        cuda_table_close(be, &table);
    else
        *out = table;
    return st;
}

void cuda_table_close(rung_backend *be, rung_table **t) {
    if (!*t) return;
    cuda_free(be, (*t)->numbers);
    cuda_free(be, (*t)->scale);
    free(*t);
    *t = NULL;
}

void cuda_lookup(rung_backend *be, float *y, const rung_table *t, const int32_t *ids, size_t rows) {
    cuda_backend *c = cuda_of(be);
    const cuda_row_source from = {t->numbers, t->scale, t->kind, t->rows.n};
    if (rows == 0 || t->rows.n == 0) return;
    pthread_mutex_lock(&c->lock); /* the scratch is this lookup's until its kernel is queued */
    int32_t *far = cuda_scratch(c, SCRATCH_X, rows * sizeof *far);
    if (far) {
        cuda_upload(be, far, ids, rows * sizeof *far);
        if (CUDA_BEGIN(c, KEY_LOOKUP, cuda_key_of(y), cuda_key_of(t->numbers), cuda_key_of(t->scale), t->kind,
                       t->rows.n, cuda_key_of(far), rows)) {
            cuda_k_lookup(c->stream, y, &from, far, rows);
            cuda_end(c, "lookup");
        }
    }
    pthread_mutex_unlock(&c->lock);
}
