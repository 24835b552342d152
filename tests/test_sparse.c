/* tests/test_sparse.c - bitmap + values: nothing lost at any density, read back from any element on, the choice of
 * form. */
#include "kernels/sparse.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/base/fp6.h"
#include "tests/check.h"

static uint64_t seed = 7;

typedef struct {
    size_t rows, cols;
    rung_tensor t;
    uint16_t *words; /* [rows, cols]: f16, or six-bit codes */
    uint8_t *bitmap;
    unsigned char *values;
    size_t *row_at;
    float *scale;
} matrix;

static uint16_t word(rung_dtype dtype, double density) {
    if ((rnd(&seed) + 1) / 2 >= density) return 0;
    const uint16_t w = (uint16_t)(seed >> 20);
    if (dtype == RUNG_F16) return seed >> 60 == 3 ? 0x7e01 : seed >> 60 == 4 ? 0x8000 : w ? w : 1; /* NaN, -0 */
    return w % 64 ? w % 64 : 32;                                                                   /* code 32 is -0 */
}

static matrix make(rung_dtype dtype, size_t rows, size_t cols, double density) {
    matrix m = {.rows = rows, .cols = cols, .words = malloc(rows * cols * 2 + 2)};
    const size_t mask = rung_bitmap_bytes(cols);
    m.bitmap = malloc(rows * mask);
    m.values = calloc(rows * cols + 4, 2);
    m.row_at = malloc((rows + 1) * sizeof *m.row_at);
    m.scale = dtype == RUNG_F16 ? NULL : malloc(rows * sizeof *m.scale);
    uint16_t *held = malloc(cols * 2);
    uint8_t *codes = malloc(cols), *held_codes = malloc(cols);
    size_t at = 0, bad;
    for (size_t r = 0; r < rows; r++) {
        uint16_t *w = m.words + r * cols;
        if (m.scale) m.scale[r] = 0.5f + (float)r;
        for (size_t c = 0; c < cols; c++) codes[c] = (uint8_t)(w[c] = word(dtype, r == 0 ? 1 : r == 1 ? 0 : density));
        const size_t n = dtype == RUNG_F16 ? rung_sparse_pack_words(m.bitmap + r * mask, held, w, cols)
                                           : rung_sparse_pack_codes(m.bitmap + r * mask, held_codes, codes, cols);
        for (size_t i = 0; i < n; i++, at++) {
            if (dtype == RUNG_F16)
                memcpy(m.values + 2 * at, &held[i], 2);
            else
                rung_fp6_put(m.values, at, held_codes[i]);
        }
    }
    CHECK(rung_sparse_rows(m.row_at, m.bitmap, rows, cols, &bad) && m.row_at[rows] == at);
    m.t = (rung_tensor){.dtype = dtype, .ndim = 2, .shape = {rows, cols}, .data = m.values, .scale = m.scale};
    m.t.bitmap = m.bitmap;
    m.t.row_at = m.row_at;
    free(held);
    free(codes);
    free(held_codes);
    return m;
}

static void release(matrix *m) {
    free(m->words);
    free(m->bitmap);
    free(m->values);
    free(m->row_at);
    free(m->scale);
}

static float value(const matrix *m, size_t i) {
    const uint16_t w = m->words[i];
    if (m->t.dtype == RUNG_F16) return rung_f16_to_f32(w);
    return (m->t.dtype == RUNG_F6_E3M2 ? rung_e3m2_to_f32((uint8_t)w) : rung_e2m3_to_f32((uint8_t)w)) *
           m->scale[i / m->cols];
}

/* To the bit: NaN and -0 too. */
static void read_back(rung_dtype dtype, size_t rows, size_t cols, double density) {
    matrix m = make(dtype, rows, cols, density);
    const size_t count = rows * cols;
    float *out = malloc(count * sizeof *out);
    rung_err e = {0};
    for (int i = 0; i < 20; i++) {
        rnd(&seed);
        const size_t first = i == 0 ? 0 : (size_t)(seed >> 33) % count;
        rnd(&seed);
        const size_t n = i == 0 ? count : (size_t)(seed >> 33) % (count - first + 1);
        size_t wrong = 0;
        CHECK(rung_tensor_to_f32(&m.t, first, n, out, &e) == RUNG_OK);
        for (size_t k = 0; k < n; k++) {
            const float want = value(&m, first + k);
            wrong += isnan(want) ? !isnan(out[k]) : memcmp(&want, &out[k], sizeof want) != 0;
        }
        if (!CHECK(wrong == 0))
            fprintf(stderr, "  %s [%zu, %zu] density %g from %zu: %zu of %zu wrong\n", rung_dtype_name(dtype), rows,
                    cols, density, first, wrong, n);
    }
    const size_t held = m.row_at[rows], bits = rung_dtype_bits(dtype);
    CHECK(rung_tensor_bytes(&m.t) == (held * bits + 7) / 8 + rows * rung_bitmap_bytes(cols) + (m.scale ? 4 * rows : 0));
    free(out);
    release(&m);
}

static void bits_behind_the_last_column(void) {
    uint8_t bitmap[6] = {0xff, 0x03, 0xff, 0x01, 0xff, 0x07}; /* 10 columns */
    size_t row_at[4], bad = 9;
    CHECK(!rung_sparse_rows(row_at, bitmap, 3, 10, &bad) && bad == 2);
    bitmap[5] = 0x02;
    CHECK(rung_sparse_rows(row_at, bitmap, 3, 10, &bad) && row_at[1] == 10 && row_at[2] == 19 && row_at[3] == 28);
}

static rung_form choose(double density) {
    return rung_form_choose(RUNG_F6_E3M2, 1280, 1280, (size_t)(1280 * 1280 * density), NULL);
}

static void forms(void) {
    CHECK(choose(1) == RUNG_FORM_DENSE && choose(0.85) == RUNG_FORM_DENSE);
    CHECK(choose(0.7) == RUNG_FORM_BITMAP && choose(0.5) == RUNG_FORM_BITMAP && choose(0.1) == RUNG_FORM_BITMAP);
    CHECK(choose(0.03) == RUNG_FORM_TILED_CSL);
    CHECK(rung_form_bytes(RUNG_FORM_BITMAP, RUNG_F6_E3M2, 1280, 1280, 1280 * 640) == 1280 * 1280 / 2);
    CHECK(rung_form_bytes(RUNG_FORM_DENSE, RUNG_F6_E3M2, 4, 4, 0) == 12);
}

int main(void) {
    static const rung_dtype dtypes[] = {RUNG_F6_E3M2, RUNG_F6_E2M3, RUNG_F16};
    static const double densities[] = {0, 1.0 / 8192, 0.2, 0.3, 0.49, 0.5, 0.51, 0.8, 1};
    for (size_t d = 0; d < 3; d++)
        for (size_t i = 0; i < sizeof densities / sizeof *densities; i++) {
            read_back(dtypes[d], 5, 64, densities[i]);
            read_back(dtypes[d], 37, 1 + i * 13, densities[i]);
        }
    bits_behind_the_last_column();
    forms();
    return check_result();
}
