/* Parts of stored tensors, as a rank loads them: every float dtype, dense and with a bitmap, rows and columns at
 * borders that are and are not those of bytes, against the same part of the whole tensor; and six bits made of wider
 * numbers, whose scale must be the whole row's. */
#include <stdlib.h>
#include <string.h>

#include "assets/tensor_cut.h"
#include "kernels/base/fp6.h"
#include "kernels/sparse.h"
#include "tests/check.h"

enum { ROWS = 24, COLS = 16, TAPS = 9, MOST = ROWS * COLS * TAPS };

static const rung_dtype dtypes[] = {RUNG_F64,     RUNG_F32,     RUNG_F16,     RUNG_BF16,    RUNG_F8_E4M3,
                                    RUNG_F8_E5M2, RUNG_F6_E3M2, RUNG_F6_E2M3, RUNG_F5_E3M1, RUNG_F5_E2M2};

/* A tensor of random bits without infinities, and its memory. */
typedef struct {
    rung_tensor t;
    unsigned char *data, *bitmap;
    size_t row_at[ROWS + 1];
    float scale[ROWS];
} made;

static void make(made *m, rung_dtype type, size_t taps, bool sparse, uint64_t seed) {
    const size_t n = COLS * taps, bits = rung_dtype_bits(type), mask = rung_bitmap_bytes(n);
    m->data = calloc(MOST, 8);
    m->bitmap = calloc(ROWS, rung_bitmap_bytes(MOST));
    for (size_t i = 0; i < MOST * 8; i++) m->data[i] = (unsigned char)(rnd(&seed) * 30 + 31); /* 1..60: small numbers */
    m->t = (rung_tensor){.dtype = type, .ndim = 4, .shape = {ROWS, COLS, taps, 1}, .data = m->data, .scale = m->scale};
    size_t held = 0;
    for (size_t r = 0; r < ROWS; r++) {
        m->scale[r] = 0.5f + (float)r;
        m->row_at[r] = held;
        for (size_t c = 0; c < n; c++) {
            if (rnd(&seed) > 0.2f) continue;
            m->bitmap[r * mask + c / 8] |= (unsigned char)(1u << c % 8);
            held++;
        }
    }
    m->row_at[ROWS] = held;
    if (sparse) {
        m->t.bitmap = m->bitmap;
        m->t.row_at = m->row_at;
    }
    CHECK(bits > 0);
}

static void drop(made *m) {
    free(m->data);
    free(m->bitmap);
}

/* Is `part` the columns `cols` (in elements of a row) of the rows from `row` on of `whole`? */
static int same(const rung_tensor *part, const rung_tensor *whole, size_t row, rung_share cols) {
    static float got[MOST], want[MOST];
    const size_t n = rung_tensor_row(whole);
    if (rung_tensor_to_f32(part, 0, rung_tensor_count(part), got, NULL) ||
        rung_tensor_to_f32(whole, 0, rung_tensor_count(whole), want, NULL))
        return 0;
    for (size_t r = 0; r < part->shape[0]; r++)
        if (memcmp(got + r * cols.count, want + (row + r) * n + cols.first, cols.count * sizeof *got) != 0) return 0;
    return 1;
}

static void test_cuts(rung_dtype type, size_t taps, bool sparse) {
    static const rung_share cuts[] = {{0, 16}, {0, 8}, {8, 8}, {4, 4}, {12, 4}, {3, 5}, {1, 1}, {0, 7}};
    made m;
    make(&m, type, taps, sparse, 5 + (uint64_t)type);
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        rung_tensor part;
        void *owned = NULL;
        const rung_share flat = {cuts[i].first * taps, cuts[i].count * taps};
        const int ok = tensor_cols(&m.t, cuts[i], false, &part, &owned, NULL) == RUNG_OK && part.dtype == type &&
                       (part.bitmap != NULL) == sparse && rung_tensor_row(&part) == flat.count &&
                       same(&part, &m.t, 0, flat);
        if (!CHECK(ok))
            fprintf(stderr, "  %s, taps %zu, sparse %d, columns %zu + %zu\n", rung_dtype_name(type), taps, sparse,
                    cuts[i].first, cuts[i].count);
        free(owned);
        const rung_share rows = cuts[i];
        const rung_share all = {0, COLS * taps};
        CHECK(tensor_rows(&m.t, rows, &part) && part.shape[0] == rows.count && same(&part, &m.t, rows.first, all));
    }
    drop(&m);
}

/* What the backend would make of the whole row: codes and scale alike. */
static void test_quantised(rung_dtype type, bool sparse) {
    made m;
    rung_tensor whole, part;
    void *owned[2] = {NULL, NULL};
    make(&m, type, 1, sparse, 9);
    CHECK(tensor_cols(&m.t, (rung_share){0, COLS}, true, &whole, &owned[0], NULL) == RUNG_OK);
    CHECK(tensor_cols(&m.t, (rung_share){5, 7}, true, &part, &owned[1], NULL) == RUNG_OK);
    CHECK(part.dtype == RUNG_F6_E3M2 && !part.bitmap && same(&part, &whole, 0, (rung_share){5, 7}));
    float row[COLS], scale;
    for (size_t r = 0; r < ROWS; r++) {
        CHECK(rung_tensor_to_f32(&m.t, r * COLS, COLS, row, NULL) == RUNG_OK);
        CHECK(rung_fp6_row_scale(row, COLS, &scale, NULL) == RUNG_OK && scale == part.scale[r]);
    }
    free(owned[0]);
    free(owned[1]);
    drop(&m);
}

static void test_refused(void) {
    float v[COLS * 2] = {0};
    rung_tensor part, t = {.dtype = RUNG_F32, .ndim = 2, .shape = {2, COLS}, .data = v};
    void *owned = NULL;
    rung_err err = {0};
    v[COLS + 3] = INFINITY; /* outside of the part: still of its row */
    CHECK(tensor_cols(&t, (rung_share){8, 8}, true, &part, &owned, &err) == RUNG_EFORMAT &&
          strstr(err.msg, "six bits"));
    free(owned);
    t = (rung_tensor){.dtype = RUNG_F6_E3M2, .ndim = 2, .shape = {2, 6}, .data = v};
    CHECK(!tensor_rows(&t, (rung_share){1, 1}, &part)); /* 36 bits */
}

int main(void) {
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
        for (size_t taps = 1; taps <= TAPS; taps += TAPS - 1)
            for (int sparse = 0; sparse < 2; sparse++) test_cuts(dtypes[i], taps, sparse);
    test_quantised(RUNG_F32, false);
    test_quantised(RUNG_F16, true);
    test_quantised(RUNG_F6_E2M3, false);
    test_refused();
    return check_result();
}
