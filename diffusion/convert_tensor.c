#include "diffusion/convert_tensor.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/fp6.h"
#include "kernels/base/size.h"

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

/* Rows matter when they have a scale, are pruned, or have a mask. */
static bool by_row(const convert_item *it) {
    return codes_of(it->to) || it->sparsity > 0 || it->form != RUNG_FORM_DENSE;
}

static rung_status chunk_open(struct chunk *c, const convert_item *it, bool measure, rung_err *err) {
    const bool rows = measure || by_row(it);
    *c = (struct chunk){.it = it, .codes = codes_of(it->to), .count = rung_tensor_count(&it->source)};
    c->cols = size_max(rows ? source_row(it) : size_min(c->count, 4096), 1);
    c->cap = size_max(CHUNK / c->cols, 1);
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
    if (c->codes)
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

rung_status convert_count(const convert_run *run, convert_item *it, rung_err *err) {
    struct chunk c;
    RUNG_TRY(chunk_open(&c, it, false, err));
    rung_status st;
    it->held = 0;
    while ((st = next_rows(run, &c, err)) == RUNG_OK && c.rows > 0)
        for (size_t i = 0; i < c.rows; i++) it->held += c.sums[i].held;
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
    const size_t rows = s->ndim ? s->shape[0] : 1;
    it->scale = it->map = it->shape = NO_PIECE;
    if (it->form == RUNG_FORM_BITMAP) {
        const rung_tensor map = {.dtype = RUNG_U8, .ndim = 2, .shape = {rows, rung_bitmap_bytes(source_row(it))}};
        RUNG_TRY(add_piece(w, it, ".values", vector_of(it->to, stream_count(it)), &it->values, err));
        RUNG_TRY(add_piece(w, it, ".bitmap", map, &it->map, err));
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
    const size_t rows = it->source.ndim ? it->source.shape[0] : 1;
    size_t bytes = size_div_up(stream_count(it) * rung_dtype_bits(it->to), 8);
    if (it->map != NO_PIECE) bytes += rows * rung_bitmap_bytes(source_row(it));
    if (it->shape != NO_PIECE) bytes += (size_t)it->source.ndim * 4;
    return bytes + (it->scale != NO_PIECE ? rows * sizeof(float) : 0);
}

/* ---- writing ---- */

/* Where the next bytes of each piece go, and codes that are no whole bytes yet. */
struct sink {
    st_writer *w;
    const convert_item *it;
    size_t values_at, map_at, scale_at;
    uint8_t *codes; /* [CODE_GROUP + elements of a chunk] */
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

static rung_status put_chunk(struct sink *s, const struct chunk *c, rung_err *err) {
    const size_t n = size_min(c->rows * c->cols, c->count - c->first * c->cols);
    if (s->it->scale != NO_PIECE) {
        RUNG_TRY(st_writer_put(s->w, s->it->scale, s->scale_at, c->scale, c->rows * sizeof *c->scale, err));
        s->scale_at += c->rows * sizeof *c->scale;
    }
    if (s->it->form == RUNG_FORM_BITMAP) return put_masked(s, c, err);
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
    const size_t rows = t->ndim ? t->shape[0] : 1;
    const size_t bytes = size_div_up(stream_count(it) * rung_dtype_bits(it->to), 8);
    RUNG_TRY(copy_bytes(run, w, it, it->values, t->data, bytes, err));
    if (it->map != NO_PIECE)
        RUNG_TRY(copy_bytes(run, w, it, it->map, t->bitmap, rows * rung_bitmap_bytes(source_row(it)), err));
    it->sums = (weight_sums){.held = it->held};
    return it->scale == NO_PIECE ? RUNG_OK : st_writer_put(w, it->scale, 0, t->scale, rows * sizeof *t->scale, err);
}

rung_status convert_write(const convert_run *run, st_writer *w, convert_item *it, rung_err *err) {
    if (it->shape != NO_PIECE) RUNG_TRY(put_shape(w, it, err));
    return convert_is_copy(it) ? write_copy(run, w, it, err) : write_rounded(run, w, it, err);
}
