#include "kernels/sparse_sample.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/base/fp6.h"
#include "kernels/sparse.h"

/* Each weight is there or not by a generator of its own. */
static bool is_held(uint32_t *state, unsigned zeros) {
    *state = *state * 1664525u + 1013904223u;
    return (uint64_t)(*state >> 8) * 100 >> 24 >= zeros;
}

/* Of six bits any code but the two zeros; of sixteen a number from 1 to 2, or from -2 to -1. */
static void put_value(const sparse_sample *s, size_t at, uint32_t random) {
    if (rung_dtype_bits(s->t.dtype) == 6) {
        const unsigned magnitude = 1 + random % 31, sign = random >> 8 & 1;
        rung_fp6_put(s->values, at, (uint8_t)(sign << 5 | magnitude));
        return;
    }
    const float v = (1 + (float)(random % 1024) / 1024) * (random >> 12 & 1 ? -1.0f : 1.0f);
    const uint16_t word = s->t.dtype == RUNG_F16 ? rung_f32_to_f16(v) : rung_f32_to_bf16(v);
    memcpy(s->values + at * sizeof word, &word, sizeof word);
}

static void fill(sparse_sample *s, unsigned zeros) {
    const size_t rows = s->t.shape[0], cols = s->t.shape[1], mask = rung_bitmap_bytes(cols);
    uint32_t state = 1;
    size_t at = 0;
    for (size_t r = 0; r < rows; r++) {
        s->scale[r] = 0.01f;
        for (size_t c = 0; c < cols; c++) {
            if (!is_held(&state, zeros)) continue;
            s->bitmap[r * mask + c / 8] |= (uint8_t)(1u << c % 8);
            put_value(s, at++, state >> 9);
        }
        s->row_at[r + 1] = at;
    }
}

rung_status sparse_sample_open(sparse_sample *s, rung_dtype dtype, size_t rows, size_t cols, unsigned zeros,
                               rung_err *err) {
    *s = (sparse_sample){.t = {.dtype = dtype, .ndim = 2, .shape = {rows, cols}}};
    s->scale = malloc(rows * sizeof *s->scale);
    s->bitmap = calloc(rows, rung_bitmap_bytes(cols));
    s->values = calloc(rows * cols, sizeof(uint16_t));
    s->row_at = calloc(rows + 1, sizeof *s->row_at);
    if (!s->scale || !s->bitmap || !s->values || !s->row_at)
        return rung_fail(err, RUNG_ENOMEM, "no memory for a sample of [%zu, %zu] weights", rows, cols);
    fill(s, zeros);
    s->t.data = s->values;
    s->t.scale = rung_dtype_bits(dtype) == 6 ? s->scale : NULL;
    s->t.bitmap = zeros ? s->bitmap : NULL;
    s->t.row_at = zeros ? s->row_at : NULL;
    return RUNG_OK;
}

void sparse_sample_close(sparse_sample *s) {
    free(s->scale);
    free(s->bitmap);
    free(s->values);
    free(s->row_at);
    *s = (sparse_sample){0};
}
