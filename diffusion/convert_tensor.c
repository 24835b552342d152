#include "diffusion/convert_tensor.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/fp6.h"
#include "kernels/base/size.h"
#include "kernels/tiled_csl.h"

enum { CHUNK = 1 << 16, CODE_GROUP = 8 }; /* elements in memory, unless a row is longer; codes that are whole bytes */

#define NO_PIECE ((size_t)-1)

static const struct codes {
    rung_dtype dtype;
    float max;
    uint8_t (*encode)(float);
    float (*decode)(uint8_t);
} code_types[] = {
    {RUNG_F6_E3M2, RUNG_E3M2_MAX, rung_f32_to_e3m2, rung_e3m2_to_f32},
    {RUNG_F6_E2M3, RUNG_E2M3_MAX, rung_f32_to_e2m3, rung_e2m3_to_f32},
    {RUNG_F5_E3M1, RUNG_E3M1_MAX, rung_f32_to_e3m1, rung_e3m1_to_f32},
    {RUNG_F5_E2M2, RUNG_E2M2_MAX, rung_f32_to_e2m2, rung_e2m2_to_f32},
};

/* NULL: not a type of few bits. */
static const struct codes *codes_of(rung_dtype t) {
    for (size_t i = 0; i < sizeof code_types / sizeof *code_types; i++)
        if (code_types[i].dtype == t) return &code_types[i];
    return NULL;
}

/* ---- a chunk of rows, each worked on by one task ---- */

enum { ROW_FINE, ROW_NOT_FINITE };

struct chunk {
    const convert_item *it;
    const struct codes *codes; /* NULL: 16 or 32 bits */
    size_t cols, count;        /* count: elements of the tensor; rows may be cut at will when nothing is by row */
    size_t first;              /* row */
    size_t rows, cap;          /* of this chunk; that there is room for */
    float *w, *original, *score, *work; /* [cap, cols] each */
    uint8_t *code;                      /* [cap, cols] */
    uint16_t *word;                     /* [cap, cols] */
    float *scale;                       /* [cap] */
    int *state;
    weight_sums *sums;  /* [cap] */
    prune_curve *curve; /* [cap], for convert_measure; or NULL */
};

static void chunk_free(struct chunk *c) {
    free(c->w);
    free(c->original);
    free(c->score);
    free(c->work);
    free(c->code);
    free(c->word);
    free(c->scale);
    free(c->state);
    free(c->sums);
    free(c->curve);
}

static size_t source_row(const convert_item *it) { return rung_tensor_row(&it->source); }
static size_t source_rows(const convert_item *it) { return it->source.ndim ? it->source.shape[0] : 1; }
static bool is_tiled(const convert_item *it) { return it->form == RUNG_FORM_TILED_CSL; }

/* Its bytes are already what is wanted. */
static bool is_plain_copy(const convert_item *it) {
    return convert_is_copy(it) && it->form == (it->source.bitmap ? RUNG_FORM_BITMAP : RUNG_FORM_DENSE);
}

/* Rows matter when they have a scale, are pruned, or have a mask. */
static bool by_row(const convert_item *it) {
    return codes_of(it->to) || it->sparsity > 0 || it->form != RUNG_FORM_DENSE || it->source.bitmap;
}

static rung_status chunk_open(struct chunk *c, const convert_item *it, bool measure, rung_err *err) {
    const bool rows = measure || by_row(it);
    *c = (struct chunk){.it = it, .codes = codes_of(it->to), .count = rung_tensor_count(&it->source)};
    c->cols = size_max(rows ? source_row(it) : size_min(c->count, 4096), 1);
    c->cap = size_max(CHUNK / c->cols, 1);
    if (is_tiled(it)) c->cap = size_div_up(c->cap, RUNG_CSL_ROWS) * RUNG_CSL_ROWS;
    const size_t n = c->cap * c->cols;
    c->w = malloc(n * sizeof *c->w);
    c->original = malloc(n * sizeof *c->original);
    c->score = malloc(n * sizeof *c->score);
    c->work = malloc(n * sizeof *c->work);
    c->code = malloc(n);
    c->word = malloc(n * sizeof *c->word);
    c->scale = malloc(c->cap * sizeof *c->scale);
    c->state = malloc(c->cap * sizeof *c->state);
    c->sums = malloc(c->cap * sizeof *c->sums);
    c->curve = measure ? malloc(c->cap * sizeof *c->curve) : NULL;
    if (c->w && c->original && c->score && c->work && c->code && c->word && c->scale && c->state && c->sums &&
        (c->curve || !measure))
        return RUNG_OK;
    chunk_free(c);
    return rung_fail(err, RUNG_ENOMEM, "no memory for %zu weights of %s", n, it->name);
}

/* Elements of the chunk's row i: the last one may be cut. */
static size_t row_count(const struct chunk *c, size_t i) {
    return size_min(c->cols, c->count - (c->first + i) * c->cols);
}

static bool all_finite(const float *w, size_t n) {
    bool fine = true;
    for (size_t i = 0; i < n; i++) fine &= isfinite(w[i]) != 0;
    return fine;
}

/* Divides by the scale that is stored. A row of zeros has a scale above 0, too. */
static void round_codes(const struct chunk *c, size_t i, float *w, size_t n) {
    float top = 1e-12f;
    for (size_t k = 0; k < n; k++) top = fmaxf(top, fabsf(w[k]));
    const float scale = top / c->codes->max;
    uint8_t *code = c->code + i * c->cols;
    for (size_t k = 0; k < n; k++) {
        code[k] = c->codes->encode(w[k] / scale);
        w[k] = c->codes->decode(code[k]) * scale;
    }
    c->scale[i] = scale;
}

static void round_words(const struct chunk *c, size_t i, float *w, size_t n) {
    uint16_t *word = c->word + i * c->cols;
    const bool half = c->it->to == RUNG_F16;
    for (size_t k = 0; k < n; k++) {
        word[k] = half ? rung_f32_to_f16(w[k]) : rung_f32_to_bf16(w[k]);
        w[k] = half ? rung_f16_to_f32(word[k]) : rung_bf16_to_f32(word[k]);
    }
}

/* The codes or words of a row as they are stored. */
static void take_row(const struct chunk *c, size_t i) {
    const rung_tensor *t = &c->it->source;
    const size_t row = c->first + i;
    const uint8_t *mask = t->bitmap ? t->bitmap + row * rung_bitmap_bytes(c->cols) : NULL;
    size_t at = mask ? t->row_at[row] : row * c->cols;
    for (size_t k = 0; k < c->cols; k++) {
        const bool held = !mask || mask[k / 8] >> k % 8 & 1;
        const size_t to = i * c->cols + k;
        if (c->codes)
            c->code[to] = held ? rung_fp6_get(t->data, at) : 0;
        else if (held)
            memcpy(&c->word[to], (const char *)t->data + at * sizeof *c->word, sizeof *c->word);
        else
            c->word[to] = 0;
        at += held;
    }
    if (t->scale) memcpy(&c->scale[i], (const char *)t->scale + row * sizeof *c->scale, sizeof *c->scale);
}

static uint64_t count_held(const struct chunk *c, size_t i, size_t n) {
    uint64_t held = 0;
    for (size_t k = 0; k < n; k++) {
        const size_t at = i * c->cols + k;
        uint32_t bits;
        memcpy(&bits, c->w + at, sizeof bits);
        held += c->codes ? c->code[at] != 0 : c->it->to == RUNG_F32 ? bits != 0 : c->word[at] != 0;
    }
    return held;
}

static void sum_up(const struct chunk *c, size_t i, size_t n) {
    weight_sums s = {.held = count_held(c, i, n)};
    const float *w = c->w + i * c->cols, *original = c->original + i * c->cols;
    const double *norm = c->it->norm;
    for (size_t k = 0; k < n; k++) {
        s.overflows += isinf(w[k]) && isfinite(original[k]);
        const double d = (double)w[k] - original[k], o = original[k], x = norm ? norm[k] * norm[k] : 0;
        s.error += d * d;
        s.square += o * o;
        s.output_error += d * d * x;
        s.output_square += o * o * x;
    }
    c->sums[i] = s;
}

static void do_row(void *arg, size_t i, void *scratch) {
    const struct chunk *c = arg;
    const convert_item *it = c->it;
    const size_t n = row_count(c, i), at = i * c->cols;
    float *w = c->w + at, *score = c->score + at;
    (void)scratch;
    /* cannot fail: the dtype is a float's */
    (void)rung_tensor_to_f32(&it->source, (c->first + i) * c->cols, n, w, NULL);
    const bool needs_finite = c->codes || c->curve || it->sparsity > 0;
    c->state[i] = needs_finite && !all_finite(w, n) ? ROW_NOT_FINITE : ROW_FINE;
    if (c->state[i]) return;
    if (c->curve || it->sparsity > 0) prune_scores(score, w, it->norm, n);
    if (c->curve) {
        c->curve[i] = (prune_curve){0};
        prune_curve_add(&c->curve[i], score, n);
        return;
    }
    memcpy(c->original + at, w, n * sizeof *w);
    if (it->sparsity > 0) prune_row(w, score, n, prune_count(it->sparsity, n), c->work + at);
    if (convert_is_copy(it) && (it->form != RUNG_FORM_DENSE || it->source.bitmap))
        take_row(c, i);
    else if (c->codes)
        round_codes(c, i, w, n);
    else if (it->to != RUNG_F32)
        round_words(c, i, w, n);
    sum_up(c, i, n);
}

static rung_status refuse_row(const struct chunk *c, size_t i, rung_err *err) {
    return rung_fail(err, RUNG_EFORMAT, "%s: tensor %s holds NaN or infinity in row %zu, which %s",
                     rung_weights_path(c->it->from), c->it->name, c->first + i,
                     c->it->sparsity > 0 || c->curve ? "cannot be pruned" : "few bits cannot hold");
}

/* Bytes of the source that the chunk's rows were read from. */
static void release(const struct chunk *c) {
    const rung_tensor *t = &c->it->source;
    const size_t bits = rung_dtype_bits(t->dtype), first = c->first * c->cols;
    const size_t last = size_min(first + c->rows * c->cols, c->count);
    size_t a = first, b = last;
    if (t->bitmap) {
        const size_t row = source_row(c->it);
        a = t->row_at[first / row];
        b = t->row_at[last / row];
    }
    rung_weights_release(c->it->from, (const char *)t->data + a * bits / 8, (b - a) * bits / 8 + 1);
}

/* The next rows through do_row; c->rows is 0 at the end. */
static rung_status next_rows(const convert_run *run, struct chunk *c, rung_err *err) {
    c->first += c->rows;
    const size_t all = size_div_up(c->count, c->cols);
    c->rows = size_min(c->cap, all - c->first);
    if (c->rows == 0) return RUNG_OK;
    if (run->stop && run->stop(run->user)) return rung_fail(err, RUNG_ECANCELLED, "interrupted in %s", c->it->name);
    rung_pool_run(run->pool, do_row, c, c->rows);
    release(c);
    for (size_t i = 0; i < c->rows; i++)
        if (c->state[i]) return refuse_row(c, i, err);
    return RUNG_OK;
}

/* ---- passes that write nothing ---- */

rung_status convert_measure(const convert_run *run, const convert_item *it, prune_curve *curve, rung_err *err) {
    struct chunk c;
    RUNG_TRY(chunk_open(&c, it, true, err));
    rung_status st;
    while ((st = next_rows(run, &c, err)) == RUNG_OK && c.rows > 0) {
        for (size_t i = 0; i < c.rows; i++) {
            for (int k = 0; k <= PRUNE_LEVELS; k++) curve->lost[k] += c.curve[i].lost[k];
            curve->weights += c.curve[i].weights;
        }
    }
    chunk_free(&c);
    return st;
}

rung_status convert_fit(const convert_run *run, convert_item *it, rung_err *err) {
    if (it->to != RUNG_F16 || it->source.dtype == RUNG_F16) return RUNG_OK;
    struct chunk c;
    RUNG_TRY(chunk_open(&c, it, false, err));
    rung_status st;
    uint64_t overflows = 0;
    while ((st = next_rows(run, &c, err)) == RUNG_OK && c.rows > 0)
        for (size_t i = 0; i < c.rows; i++) overflows += c.sums[i].overflows;
    chunk_free(&c);
    if (overflows) it->to = it->source.dtype == RUNG_BF16 ? RUNG_BF16 : RUNG_F32;
    return st;
}

/* Pieces of rows here and there; the steps are odd, so that every other row or column may be the one that went. */
bool convert_has_zeros(const convert_item *it) {
    enum { SAMPLES = 32, PART = 128, LEAST = 20 /* one of so many */, ROW_STEP = 7919, COL_STEP = 104729 };
    const size_t rows = source_rows(it), cols = source_row(it), n = size_min(cols, PART);
    size_t zeros = 0;
    if (rows == 0 || cols == 0) return false;
    for (size_t i = 0; i < SAMPLES; i++) {
        float w[PART];
        const size_t row = i * ROW_STEP % rows, col = i * COL_STEP % (cols - n + 1);
        (void)rung_tensor_to_f32(&it->source, row * cols + col, n, w, NULL); /* cannot fail: the dtype is a float's */
        for (size_t k = 0; k < n; k++) zeros += w[k] == 0;
        rung_weights_release(it->from, it->source.data, rung_tensor_bytes(&it->source)); /* what was read around it */
    }
    return zeros * LEAST > SAMPLES * n;
}

/* Of the tile that begins in the chunk's row i and in column k: [*rows, *cols] of it lie in the matrix. */
static void tile_size(const struct chunk *c, size_t i, size_t k, size_t *rows, size_t *cols) {
    *rows = size_min(RUNG_CSL_ROWS, c->rows - i);
    *cols = size_min(RUNG_CSL_COLS, c->cols - k);
}

static size_t tile_items(const struct chunk *c, size_t i, size_t k) {
    size_t rows, cols, held = 0;
    tile_size(c, i, k, &rows, &cols);
    for (size_t r = i; r < i + rows; r++)
        for (size_t at = r * c->cols + k; at < r * c->cols + k + cols; at++)
            held += c->codes ? c->code[at] != 0 : c->word[at] != 0;
    return size_div_up(held, RUNG_CSL_UNIT) * RUNG_CSL_UNIT;
}

rung_status convert_count(const convert_run *run, convert_item *it, rung_err *err) {
    struct chunk c;
    RUNG_TRY(chunk_open(&c, it, false, err));
    rung_status st;
    it->held = 0;
    while ((st = next_rows(run, &c, err)) == RUNG_OK && c.rows > 0) {
        for (size_t i = 0; !is_tiled(it) && i < c.rows; i++) it->held += c.sums[i].held;
        for (size_t i = 0; is_tiled(it) && i < c.rows; i += RUNG_CSL_ROWS)
            for (size_t k = 0; k < c.cols; k += RUNG_CSL_COLS) it->held += tile_items(&c, i, k);
    }
    chunk_free(&c);
    return st;
}

/* ---- what a tensor is in the file: docs/WEIGHT_FILES.md ---- */

static bool five_bits(rung_dtype t) { return rung_dtype_bits(t) == 5; }

/* Elements of the stream of values, filled up to whole bytes. */
static size_t stream_count(const convert_item *it) {
    return it->form == RUNG_FORM_DENSE || !codes_of(it->to) ? it->held : size_div_up(it->held, 4) * 4;
}

static rung_status add_piece(st_writer *w, const convert_item *it, const char *ending, rung_tensor t, size_t *id,
                             rung_err *err) {
    char name[600];
    const int n = snprintf(name, sizeof name, "%s%s", it->name, ending);
    if (n < 0 || (size_t)n >= sizeof name)
        return rung_fail(err, RUNG_EFORMAT, "tensor name is too long: %.100s...", it->name);
    return st_writer_add(w, &t, name, id, err);
}

static rung_tensor vector_of(rung_dtype dtype, size_t n) {
    return (rung_tensor){.dtype = dtype, .ndim = 1, .shape = {n}};
}

rung_status convert_declare(st_writer *w, convert_item *it, rung_err *err) {
    const rung_tensor *s = &it->source;
    const size_t rows = source_rows(it);
    it->scale = it->map = it->positions = it->shape = NO_PIECE;
    if (it->form == RUNG_FORM_BITMAP) {
        const rung_tensor map = {.dtype = RUNG_U8, .ndim = 2, .shape = {rows, rung_bitmap_bytes(source_row(it))}};
        RUNG_TRY(add_piece(w, it, ".values", vector_of(it->to, stream_count(it)), &it->values, err));
        RUNG_TRY(add_piece(w, it, ".bitmap", map, &it->map, err));
    } else if (is_tiled(it)) {
        const size_t tiles = rung_csl_tiles(rows, source_row(it));
        RUNG_TRY(add_piece(w, it, ".values", vector_of(it->to, it->held), &it->values, err));
        RUNG_TRY(add_piece(w, it, ".tiles", vector_of(RUNG_U32, tiles + 1), &it->map, err));
        RUNG_TRY(add_piece(w, it, ".positions", vector_of(RUNG_U16, it->held), &it->positions, err));
    } else if (five_bits(it->to)) {
        const size_t bytes = size_div_up(it->held * 5, 8);
        RUNG_TRY(
            add_piece(w, it, it->to == RUNG_F5_E2M2 ? ".e2m2" : ".e3m1", vector_of(RUNG_U8, bytes), &it->values, err));
    } else {
        rung_tensor t = *s;
        t.dtype = it->to;
        RUNG_TRY(add_piece(w, it, "", t, &it->values, err));
    }
    if (it->form != RUNG_FORM_DENSE || five_bits(it->to))
        RUNG_TRY(add_piece(w, it, ".shape", vector_of(RUNG_U32, (size_t)s->ndim), &it->shape, err));
    if (convert_is_copy(it) ? s->scale != NULL : codes_of(it->to) != NULL)
        RUNG_TRY(add_piece(w, it, ".scale", vector_of(RUNG_F32, rows), &it->scale, err));
    return RUNG_OK;
}

size_t convert_bytes(const convert_item *it) {
    const size_t rows = source_rows(it);
    size_t bytes = size_div_up(stream_count(it) * rung_dtype_bits(it->to), 8);
    if (is_tiled(it))
        bytes += it->held * sizeof(uint16_t) + (rung_csl_tiles(rows, source_row(it)) + 1) * sizeof(uint32_t);
    else if (it->map != NO_PIECE)
        bytes += rows * rung_bitmap_bytes(source_row(it));
    if (it->shape != NO_PIECE) bytes += (size_t)it->source.ndim * 4;
    return bytes + (it->scale != NO_PIECE ? rows * sizeof(float) : 0);
}

/* ---- writing ---- */

/* Where the next bytes of each piece go, and codes that are no whole bytes yet. */
struct sink {
    st_writer *w;
    const convert_item *it;
    size_t values_at, map_at, positions_at, scale_at;
    uint32_t tile_end; /* of the last tile */
    uint8_t *codes;    /* [CODE_GROUP + elements of a chunk] */
    size_t waiting;
    uint8_t *bytes; /* the same codes as a stream */
    uint8_t *mask;  /* bitmap of a chunk */
};

static rung_status put_values(struct sink *s, const void *bytes, size_t n, rung_err *err) {
    RUNG_TRY(st_writer_put(s->w, s->it->values, s->values_at, bytes, n, err));
    s->values_at += n;
    return RUNG_OK;
}

/* Of the codes that wait, whole groups; at the end all, filled up with zeros. */
static rung_status put_codes(struct sink *s, bool end, rung_err *err) {
    const bool five = five_bits(s->it->to);
    const size_t whole = end ? s->waiting : s->waiting / CODE_GROUP * CODE_GROUP;
    const size_t codes = end && !five ? size_div_up(whole, 4) * 4 : whole;
    const size_t bytes = size_div_up(codes * (five ? 5 : 6), 8);
    memset(s->bytes, 0, bytes);
    for (size_t i = 0; i < whole; i++) (five ? rung_fp5_put : rung_fp6_put)(s->bytes, i, s->codes[i]);
    RUNG_TRY(put_values(s, s->bytes, bytes, err));
    memmove(s->codes, s->codes + whole, s->waiting - whole);
    s->waiting -= whole;
    return RUNG_OK;
}

static rung_status put_masked(struct sink *s, const struct chunk *c, rung_err *err) {
    const size_t row_bytes = rung_bitmap_bytes(c->cols);
    size_t words = 0;
    for (size_t i = 0; i < c->rows; i++) {
        uint8_t *mask = s->mask + i * row_bytes;
        const size_t at = i * c->cols;
        if (c->codes)
            s->waiting += rung_sparse_pack_codes(mask, s->codes + s->waiting, c->code + at, c->cols);
        else /* in place: packed words never pass those that are read */
            words += rung_sparse_pack_words(mask, c->word + words, c->word + at, c->cols);
    }
    RUNG_TRY(st_writer_put(s->w, s->it->map, s->map_at, s->mask, c->rows * row_bytes, err));
    s->map_at += c->rows * row_bytes;
    return c->codes ? put_codes(s, false, err) : put_values(s, c->word, words * sizeof *c->word, err);
}

/* The tile's words: codes are widened. */
static size_t pack_tile(const struct chunk *c, size_t i, size_t k, uint32_t *items) {
    uint16_t words[RUNG_CSL_TILE];
    size_t rows, cols;
    tile_size(c, i, k, &rows, &cols);
    if (!c->codes) return rung_csl_pack_tile(items, c->word + i * c->cols + k, c->cols, rows, cols);
    for (size_t r = 0; r < rows; r++)
        for (size_t j = 0; j < cols; j++) words[r * cols + j] = c->code[(i + r) * c->cols + k + j];
    return rung_csl_pack_tile(items, words, cols, rows, cols);
}

static rung_status put_tile(struct sink *s, const struct chunk *c, size_t i, size_t k, rung_err *err) {
    uint32_t items[RUNG_CSL_TILE];
    uint16_t half[RUNG_CSL_TILE];
    const size_t n = pack_tile(c, i, k, items);
    s->tile_end += (uint32_t)(n / RUNG_CSL_UNIT);
    s->map_at += sizeof s->tile_end;
    RUNG_TRY(st_writer_put(s->w, s->it->map, s->map_at, &s->tile_end, sizeof s->tile_end, err));
    for (size_t t = 0; t < n; t++) half[t] = (uint16_t)(items[t] >> 16);
    RUNG_TRY(st_writer_put(s->w, s->it->positions, s->positions_at, half, n * sizeof *half, err));
    s->positions_at += n * sizeof *half;
    for (size_t t = 0; t < n; t++) half[t] = (uint16_t)items[t];
    if (!c->codes) return put_values(s, half, n * sizeof *half, err);
    for (size_t t = 0; t < n; t++) s->codes[s->waiting++] = (uint8_t)half[t];
    return put_codes(s, false, err);
}

static rung_status put_tiles(struct sink *s, const struct chunk *c, rung_err *err) {
    if (c->first == 0) RUNG_TRY(st_writer_put(s->w, s->it->map, 0, &s->tile_end, sizeof s->tile_end, err)); /* 0 */
    for (size_t i = 0; i < c->rows; i += RUNG_CSL_ROWS)
        for (size_t k = 0; k < c->cols; k += RUNG_CSL_COLS) RUNG_TRY(put_tile(s, c, i, k, err));
    return RUNG_OK;
}

static rung_status put_chunk(struct sink *s, const struct chunk *c, rung_err *err) {
    const size_t n = size_min(c->rows * c->cols, c->count - c->first * c->cols);
    if (s->it->scale != NO_PIECE) {
        RUNG_TRY(st_writer_put(s->w, s->it->scale, s->scale_at, c->scale, c->rows * sizeof *c->scale, err));
        s->scale_at += c->rows * sizeof *c->scale;
    }
    if (s->it->form == RUNG_FORM_BITMAP) return put_masked(s, c, err);
    if (is_tiled(s->it)) return put_tiles(s, c, err);
    if (s->it->to == RUNG_F32) return put_values(s, c->w, n * sizeof *c->w, err);
    if (!c->codes) return put_values(s, c->word, n * sizeof *c->word, err);
    memcpy(s->codes + s->waiting, c->code, n);
    s->waiting += n;
    return put_codes(s, false, err);
}

static rung_status put_shape(st_writer *w, const convert_item *it, rung_err *err) {
    uint32_t shape[RUNG_MAX_DIMS];
    for (int i = 0; i < it->source.ndim; i++) shape[i] = (uint32_t)it->source.shape[i];
    return st_writer_put(w, it->shape, 0, shape, (size_t)it->source.ndim * sizeof *shape, err);
}

static void add_sums(weight_sums *to, const weight_sums *s) {
    to->error += s->error;
    to->square += s->square;
    to->output_error += s->output_error;
    to->output_square += s->output_square;
    to->held += s->held;
}

static rung_status write_rounded(const convert_run *run, st_writer *w, convert_item *it, rung_err *err) {
    struct chunk c;
    struct sink s = {.w = w, .it = it};
    RUNG_TRY(chunk_open(&c, it, false, err));
    const size_t n = c.cap * c.cols;
    s.codes = malloc(CODE_GROUP + n);
    s.bytes = malloc(CODE_GROUP + n);
    s.mask = malloc(c.cap * rung_bitmap_bytes(c.cols));
    rung_status st = s.codes && s.bytes && s.mask ? RUNG_OK : rung_fail(err, RUNG_ENOMEM, "no memory for %s", it->name);
    it->sums = (weight_sums){0};
    while (!st && (st = next_rows(run, &c, err)) == RUNG_OK && c.rows > 0) {
        st = put_chunk(&s, &c, err);
        for (size_t i = 0; i < c.rows; i++) add_sums(&it->sums, &c.sums[i]);
    }
    if (!st && s.waiting) st = put_codes(&s, true, err);
    free(s.codes);
    free(s.bytes);
    free(s.mask);
    chunk_free(&c);
    return st;
}

/* Bytes of a mapped file to a piece, a part at a time. */
static rung_status copy_bytes(const convert_run *run, st_writer *w, const convert_item *it, size_t id, const void *from,
                              size_t n, rung_err *err) {
    const size_t part = 1 << 20;
    for (size_t at = 0; at < n; at += part) {
        const size_t k = size_min(part, n - at);
        if (run->stop && run->stop(run->user)) return rung_fail(err, RUNG_ECANCELLED, "interrupted in %s", it->name);
        RUNG_TRY(st_writer_put(w, id, at, (const char *)from + at, k, err));
        rung_weights_release(it->from, (const char *)from + at, k);
    }
    return RUNG_OK;
}

static rung_status write_copy(const convert_run *run, st_writer *w, convert_item *it, rung_err *err) {
    const rung_tensor *t = &it->source;
    const size_t rows = source_rows(it);
    const size_t bytes = size_div_up(stream_count(it) * rung_dtype_bits(it->to), 8);
    RUNG_TRY(copy_bytes(run, w, it, it->values, t->data, bytes, err));
    if (it->map != NO_PIECE)
        RUNG_TRY(copy_bytes(run, w, it, it->map, t->bitmap, rows * rung_bitmap_bytes(source_row(it)), err));
    it->sums = (weight_sums){.held = it->held};
    return it->scale == NO_PIECE ? RUNG_OK : st_writer_put(w, it->scale, 0, t->scale, rows * sizeof *t->scale, err);
}

rung_status convert_write(const convert_run *run, st_writer *w, convert_item *it, rung_err *err) {
    if (it->shape != NO_PIECE) RUNG_TRY(put_shape(w, it, err));
    return is_plain_copy(it) ? write_copy(run, w, it, err) : write_rounded(run, w, it, err);
}
