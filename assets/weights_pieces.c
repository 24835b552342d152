#include "assets/weights_pieces.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/fp6.h"
#include "kernels/base/size.h"
#include "kernels/sparse.h"
#include "kernels/tiled_csl.h"

/* The tensor under way. */
struct pieces {
    rung_weights *w;
    const char *stem;
    rung_tensor *out;
    rung_err *err;
};

#define REFUSE(p, format, ...)                                                                                         \
    rung_fail((p)->err, RUNG_EFORMAT, "%s: tensor %s" format, rung_weights_path((p)->w), (p)->stem, __VA_ARGS__)

static rung_status no_memory(const struct pieces *p) {
    return rung_fail(p->err, RUNG_ENOMEM, "%s: no memory for tensor %s", rung_weights_path(p->w), p->stem);
}

/* NULL: there is none. */
static const rung_tensor *find_piece(const struct pieces *p, const char *ending) {
    char name[PIECES_NAME];
    const int n = snprintf(name, sizeof name, "%s%s", p->stem, ending);
    return n > 0 && n < PIECES_NAME ? weights_file_tensor(p->w, name) : NULL;
}

/* A list of `dtype`, of any length; NULL with the reason in p->err. */
static const rung_tensor *need_list(const struct pieces *p, const char *ending, rung_dtype dtype) {
    char shape[100];
    const rung_tensor *t = find_piece(p, ending);
    if (!t) {
        REFUSE(p, "%s is missing", ending);
    } else if (t->dtype != dtype || t->ndim != 1) {
        REFUSE(p, "%s is %s of %s, wanted a list of %s", ending, rung_tensor_shape_text(t, shape, sizeof shape),
               rung_dtype_name(t->dtype), rung_dtype_name(dtype));
        t = NULL;
    }
    return t;
}

static uint32_t u32_at(const rung_tensor *t, size_t i) {
    uint32_t v;
    memcpy(&v, (const char *)t->data + i * sizeof v, sizeof v);
    return v;
}

static uint16_t u16_at(const rung_tensor *t, size_t i) {
    uint16_t v;
    memcpy(&v, (const char *)t->data + i * sizeof v, sizeof v);
    return v;
}

static bool six_bit(const rung_tensor *t) { return rung_dtype_bits(t->dtype) == 6; }

/* ---- scales ---- */

static rung_status check_scales(const struct pieces *p) {
    for (size_t r = 0; r < p->out->shape[0]; r++) {
        float s;
        memcpy(&s, (const char *)p->out->scale + r * sizeof s, sizeof s);
        if (!(s >= 0 && isfinite(s)))
            return REFUSE(p, ".scale is %g in row %zu, wanted a finite number >= 0", (double)s, r);
    }
    return RUNG_OK;
}

/* Row scales are borrowed when the file holds them as f32, else converted once. */
static rung_status fold_scale(const struct pieces *p) {
    const rung_tensor *s = find_piece(p, ".scale");
    const size_t rows = p->out->shape[0];
    char shape[100];
    if (!s) return RUNG_OK;
    if ((s->dtype != RUNG_F32 && s->dtype != RUNG_F16) || s->ndim != 1 || s->shape[0] != rows)
        return REFUSE(p, ".scale is %s of %s, wanted [%zu] of F32", rung_tensor_shape_text(s, shape, sizeof shape),
                      rung_dtype_name(s->dtype), rows);
    p->out->scale = s->data;
    if (s->dtype == RUNG_F16) {
        float *own = malloc(size_max(rows, 1) * sizeof *own);
        if (!own || !weights_keep(p->w, own)) {
            free(own);
            return no_memory(p);
        }
        RUNG_TRY(rung_tensor_to_f32(s, 0, rows, own, p->err));
        p->out->scale = own;
    }
    return check_scales(p);
}

/* ---- what all forms but the dense six-bit one have: a shape beside them ---- */

static rung_status read_shape(const struct pieces *p) {
    const rung_tensor *s = need_list(p, ".shape", RUNG_U32);
    size_t count = 1;
    if (!s) return RUNG_EFORMAT;
    if (s->shape[0] < 1 || s->shape[0] > RUNG_MAX_DIMS)
        return REFUSE(p, ".shape has %zu dimensions, wanted 1 to %d", s->shape[0], RUNG_MAX_DIMS);
    p->out->ndim = (int)s->shape[0];
    for (int i = 0; i < p->out->ndim; i++) {
        p->out->shape[i] = u32_at(s, (size_t)i);
        if (p->out->shape[i] == 0 || !size_mul(count, p->out->shape[i], &count) || count > SIZE_MAX / 64)
            return REFUSE(p, ".shape has %zu in place %d: empty or too large", p->out->shape[i], i);
    }
    return RUNG_OK;
}

static rung_status five_bits(const struct pieces *p, const rung_tensor *stream, rung_dtype dtype) {
    char shape[100];
    RUNG_TRY(read_shape(p));
    const size_t count = rung_tensor_count(p->out), bytes = size_div_up(count * 5, 8);
    if (stream->dtype != RUNG_U8 || stream->ndim != 1 || stream->shape[0] != bytes)
        return REFUSE(p, "'s stream is %s of %s, wanted [%zu] of U8",
                      rung_tensor_shape_text(stream, shape, sizeof shape), rung_dtype_name(stream->dtype), bytes);
    const unsigned used = count * 5 % 8;
    if (used && ((const uint8_t *)stream->data)[bytes - 1] & (0xffu >> used))
        return REFUSE(p, "'s stream ends in 0x%02x: bits behind the last code are set",
                      ((const uint8_t *)stream->data)[bytes - 1]);
    p->out->dtype = dtype;
    p->out->data = stream->data;
    return fold_scale(p);
}

/* The list of values, of a dtype that sparse forms may have. */
static const rung_tensor *need_values(const struct pieces *p) {
    const rung_tensor *t = find_piece(p, ".values");
    if (!t)
        REFUSE(p, "%s is missing", ".values");
    else if (t->ndim != 1 || !(six_bit(t) || t->dtype == RUNG_F16 || t->dtype == RUNG_BF16))
        REFUSE(p, ".values is %s of %d dimensions, wanted a list of F6_E3M2, F6_E2M3, F16 or BF16",
               rung_dtype_name(t->dtype), t->ndim);
    else
        return t;
    return NULL;
}

/* ---- bitmap and values ---- */

/* p->out->bitmap and ->dtype are set. */
static rung_status index_rows(const struct pieces *p) {
    const size_t rows = p->out->shape[0];
    size_t bad, *row_at = malloc((rows + 1) * sizeof *row_at);
    if (!row_at || !weights_keep(p->w, row_at)) {
        free(row_at);
        return no_memory(p);
    }
    p->out->row_at = row_at;
    if (!rung_sparse_rows(row_at, p->out->bitmap, rows, rung_tensor_row(p->out), &bad))
        return REFUSE(p, ".bitmap has a bit behind the last column in row %zu", bad);
    return RUNG_OK;
}

static rung_status bitmap(const struct pieces *p, const rung_tensor *mask) {
    enum { FILL = 4 }; /* six-bit codes are stored in fours */
    char shape[100];
    RUNG_TRY(read_shape(p));
    const rung_tensor *values = need_values(p);
    if (!values) return RUNG_EFORMAT;
    const size_t rows = p->out->shape[0], bytes = rung_bitmap_bytes(rung_tensor_row(p->out));
    if (mask->dtype != RUNG_U8 || mask->ndim != 2 || mask->shape[0] != rows || mask->shape[1] != bytes)
        return REFUSE(p, ".bitmap is %s of %s, wanted [%zu, %zu] of U8",
                      rung_tensor_shape_text(mask, shape, sizeof shape), rung_dtype_name(mask->dtype), rows, bytes);
    p->out->dtype = values->dtype;
    p->out->data = values->data;
    p->out->bitmap = mask->data;
    RUNG_TRY(index_rows(p));
    const size_t held = p->out->row_at[rows], want = six_bit(values) ? size_div_up(held, FILL) * FILL : held;
    if (values->shape[0] != want)
        return REFUSE(p, ".values has %zu values, wanted %zu for the %zu bits of the bitmap", values->shape[0], want,
                      held);
    for (size_t i = held; i < want; i++)
        if (rung_fp6_get(values->data, i)) return REFUSE(p, ".values has a value behind the %zu of the bitmap", held);
    return fold_scale(p);
}

/* ---- Tiled-CSL: becomes bitmap and values ---- */

struct tiles {
    const rung_tensor *tiles, *positions, *values;
    size_t rows, cols, mask; /* mask: bytes of a row of the bitmap */
    uint8_t *bitmap;         /* being made */
};

/* An item: where it lies in the matrix, and its value as the file has it. */
struct item {
    size_t row, col;
    unsigned value;
};

static struct item item_at(const struct tiles *t, size_t tile, size_t i) {
    const size_t across = size_div_up(t->cols, RUNG_CSL_COLS);
    const uint32_t position = u16_at(t->positions, i);
    return (struct item){.row = tile / across * RUNG_CSL_ROWS + rung_csl_row(position),
                         .col = tile % across * RUNG_CSL_COLS + rung_csl_col(position),
                         .value = six_bit(t->values) ? rung_fp6_get(t->values->data, i) : u16_at(t->values, i)};
}

static bool inside(const struct tiles *t, const struct item *x) { return x->row < t->rows && x->col < t->cols; }

static bool is_set(const struct tiles *t, const struct item *x) {
    return inside(t, x) && t->bitmap[x->row * t->mask + x->col / 8] >> x->col % 8 & 1;
}

static rung_status check_tiles(const struct pieces *p, const struct tiles *t) {
    char positions[100], values[100];
    const size_t tiles = rung_csl_tiles(t->rows, t->cols);
    if (t->tiles->shape[0] != tiles + 1)
        return REFUSE(p, ".tiles has %zu numbers, wanted %zu for %zu tiles", t->tiles->shape[0], tiles + 1, tiles);
    for (size_t i = 0; i <= tiles; i++) {
        const uint32_t at = u32_at(t->tiles, i), before = i ? u32_at(t->tiles, i - 1) : 0;
        if (at < before || at - before > RUNG_CSL_TILE / RUNG_CSL_UNIT || (i == 0 && at != 0))
            return REFUSE(p, ".tiles is %u after %u in place %zu: falls, or more than a tile", at, before, i);
    }
    const size_t items = (size_t)u32_at(t->tiles, tiles) * RUNG_CSL_UNIT;
    if (t->positions->shape[0] != items || t->values->shape[0] != items)
        return REFUSE(p, ".tiles ends at item %zu, but .positions is %s and .values %s", items,
                      rung_tensor_shape_text(t->positions, positions, sizeof positions),
                      rung_tensor_shape_text(t->values, values, sizeof values));
    for (size_t i = 0; i < items; i++)
        if (u16_at(t->positions, i) >= RUNG_CSL_TILE)
            return REFUSE(p, ".positions is %u in place %zu, which is outside of a tile", u16_at(t->positions, i), i);
    return RUNG_OK;
}

static rung_status set_bits(const struct pieces *p, const struct tiles *t, size_t tile, size_t begin, size_t end) {
    for (size_t i = begin; i < end; i++) {
        const struct item x = item_at(t, tile, i);
        if (!x.value) continue;
        if (!inside(t, &x) || is_set(t, &x))
            return REFUSE(p, ".positions: item %zu is %s", i,
                          inside(t, &x) ? "another item's" : "outside of the tensor");
        t->bitmap[x.row * t->mask + x.col / 8] |= (uint8_t)(1u << x.col % 8);
    }
    for (size_t i = begin; i < end; i++) { /* what fills a tile up stands where nothing is */
        const struct item x = item_at(t, tile, i);
        if (!x.value && is_set(t, &x)) return REFUSE(p, ".positions: item %zu, a 0, is another item's", i);
    }
    return RUNG_OK;
}

static void put_values(const struct pieces *p, const struct tiles *t, size_t tile, size_t begin, size_t end,
                       unsigned char *data) {
    for (size_t i = begin; i < end; i++) {
        const struct item x = item_at(t, tile, i);
        if (!x.value) continue;
        const uint8_t *mask = t->bitmap + x.row * t->mask;
        size_t at = p->out->row_at[x.row];
        for (size_t b = 0; b < x.col / 8; b++) at += (size_t)__builtin_popcount(mask[b]);
        at += (size_t)__builtin_popcount(mask[x.col / 8] & ((1u << x.col % 8) - 1));
        const uint16_t word = (uint16_t)x.value;
        if (six_bit(t->values))
            rung_fp6_put(data, at, (uint8_t)x.value);
        else
            memcpy(data + at * sizeof word, &word, sizeof word);
    }
}

/* data: the values in the order of rows, room for as many as there are items. */
static rung_status tiles_to_rows(const struct pieces *p, const struct tiles *t, unsigned char *data) {
    const size_t tiles = rung_csl_tiles(t->rows, t->cols);
    for (size_t i = 0; i < tiles; i++)
        RUNG_TRY(set_bits(p, t, i, (size_t)u32_at(t->tiles, i) * RUNG_CSL_UNIT,
                          (size_t)u32_at(t->tiles, i + 1) * RUNG_CSL_UNIT));
    p->out->bitmap = t->bitmap;
    RUNG_TRY(index_rows(p));
    for (size_t i = 0; i < tiles; i++)
        put_values(p, t, i, (size_t)u32_at(t->tiles, i) * RUNG_CSL_UNIT,
                   (size_t)u32_at(t->tiles, i + 1) * RUNG_CSL_UNIT, data);
    return RUNG_OK;
}

static rung_status tiled_csl(const struct pieces *p, const rung_tensor *head) {
    RUNG_TRY(read_shape(p));
    struct tiles t = {.rows = p->out->shape[0], .cols = rung_tensor_row(p->out)};
    t.mask = rung_bitmap_bytes(t.cols);
    t.values = need_values(p);
    t.tiles = t.values ? need_list(p, ".tiles", RUNG_U32) : NULL;
    t.positions = t.tiles ? need_list(p, ".positions", RUNG_U16) : NULL;
    if (!t.positions || head != t.tiles) return RUNG_EFORMAT;
    RUNG_TRY(check_tiles(p, &t));
    const size_t bits = rung_dtype_bits(t.values->dtype);
    unsigned char *data = calloc(t.values->shape[0] * bits / 8 + 1, 1);
    t.bitmap = calloc(t.rows, t.mask);
    const bool kept = data && weights_keep(p->w, data), both = kept && t.bitmap && weights_keep(p->w, t.bitmap);
    if (!kept) free(data);
    if (!both) {
        free(t.bitmap);
        return no_memory(p);
    }
    p->out->dtype = t.values->dtype;
    p->out->data = data;
    p->out->tiled = true;
    RUNG_TRY(tiles_to_rows(p, &t, data));
    return fold_scale(p);
}

/* ---- names ---- */

static const struct {
    const char *ending;
    rung_dtype dtype; /* of the five-bit forms */
} heads[] = {{".bitmap", RUNG_DTYPES}, {".tiles", RUNG_DTYPES}, {".e3m1", RUNG_F5_E3M1}, {".e2m2", RUNG_F5_E2M2}};
enum { BITMAP, TILES, HEADS = sizeof heads / sizeof *heads };

/* `name` without `ending`, when it has it. */
static bool cut(const char *name, const char *ending, char stem[PIECES_NAME]) {
    const size_t n = strlen(name), m = strlen(ending);
    if (n <= m || n - m >= PIECES_NAME || strcmp(name + n - m, ending) != 0) return false;
    memcpy(stem, name, n - m);
    stem[n - m] = 0;
    return true;
}

static bool has_head(const struct pieces *p) {
    for (int i = 0; i < HEADS; i++)
        if (find_piece(p, heads[i].ending)) return true;
    return false;
}

/* ".scale" belongs to a six-bit tensor too; one of a name that nobody has is a tensor of its own. */
static bool follows(rung_weights *w, const char *name) {
    static const char *const endings[] = {".values", ".positions", ".shape", ".scale"};
    enum { ENDINGS = sizeof endings / sizeof *endings };
    char stem[PIECES_NAME];
    for (int i = 0; i < ENDINGS; i++) {
        if (!cut(name, endings[i], stem)) continue;
        const struct pieces p = {.w = w, .stem = stem};
        const rung_tensor *owner = find_piece(&p, "");
        if (has_head(&p) || (i == ENDINGS - 1 && owner && six_bit(owner))) return true;
    }
    return false;
}

rung_status pieces_read(rung_weights *w, const char *name, const rung_tensor *t, char stem[PIECES_NAME],
                        rung_tensor *out, rung_err *err) {
    const struct pieces p = {.w = w, .stem = stem, .out = out, .err = err};
    *out = (rung_tensor){0};
    for (int i = 0; i < HEADS; i++) {
        if (!cut(name, heads[i].ending, stem)) continue;
        if (i == BITMAP) return bitmap(&p, t);
        if (i == TILES) return tiled_csl(&p, t);
        return five_bits(&p, t, heads[i].dtype);
    }
    *stem = 0;
    if (follows(w, name)) return RUNG_OK;
    if (snprintf(stem, PIECES_NAME, "%s", name) >= PIECES_NAME)
        return rung_fail(err, RUNG_EFORMAT, "%s: tensor name is too long: %.100s...", rung_weights_path(w), name);
    *out = *t;
    return six_bit(t) && t->ndim ? fold_scale(&p) : RUNG_OK;
}
