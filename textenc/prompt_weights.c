/* textenc/prompt_weights.c - A1111's prompt syntax, its cutting into chunks, and what a weight does. */
#include "textenc/prompt_weights.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/size.h"

enum { COMMA_BACKTRACK = 20, MAX_NUMBER = 64 };

static const double ROUND = 1.1, SQUARE = 1 / 1.1;
static const char BREAK[] = "BREAK";
enum { BREAK_LEN = sizeof BREAK - 1 };

/* ---- parsing ------------------------------------------------------------------------------------------------ */

struct brackets {
    size_t *piece, n; /* the piece that each open bracket starts with */
};

struct parser {
    rung_prompt *out;
    const uint32_t *cp;
    size_t n;
    struct brackets round, square;
    rung_err *err;
};

/* Python's \s and \w, which A1111's expressions are written in. */
static bool is_space(uint32_t cp) { return char_is_space(cp) || (cp >= 0x1c && cp <= 0x1f); }
static bool is_word(uint32_t cp) { return cp == '_' || char_is_letter(cp) || char_is_number(cp); }

static rung_status add_piece(struct parser *p, const uint32_t *cp, size_t n, double weight) {
    rung_prompt *o = p->out;
    if (o->pieces == o->cap) {
        const size_t cap = size_max(16, o->cap * 2);
        prompt_piece *grown = realloc(o->piece, cap * sizeof *grown);
        if (!grown) return rung_fail(p->err, RUNG_ENOMEM, "prompt: no memory for %zu pieces", cap);
        o->piece = grown;
        o->cap = cap;
    }
    o->piece[o->pieces++] = (prompt_piece){.start = o->text.n, .n = n, .weight = weight};
    text_append(&o->text, cp, n);
    return RUNG_OK;
}

static void multiply_from(rung_prompt *o, size_t first, double factor) {
    for (size_t i = first; i < o->pieces; i++) o->piece[i].weight *= factor;
}

/* Where the next BREAK of cp[n] stands that is a word of its own; n: none. */
static size_t find_break(const uint32_t *cp, size_t n, size_t from) {
    for (size_t i = from; i + BREAK_LEN <= n; i++) {
        size_t k = 0;
        while (k < BREAK_LEN && cp[i + k] == (unsigned char)BREAK[k]) k++;
        if (k < BREAK_LEN || (i > 0 && is_word(cp[i - 1]))) continue;
        if (i + BREAK_LEN == n || !is_word(cp[i + BREAK_LEN])) return i;
    }
    return n;
}

/* Plain text, cut at every BREAK together with the white space around it. */
static rung_status add_plain(struct parser *p, const uint32_t *cp, size_t n) {
    size_t from = 0;
    for (;;) {
        const size_t at = find_break(cp, n, from);
        size_t end = at;
        while (at < n && end > from && is_space(cp[end - 1])) end--;
        RUNG_TRY(add_piece(p, cp + from, end - from, 1));
        if (at == n) return RUNG_OK;
        RUNG_TRY(add_piece(p, cp + at, BREAK_LEN, -1));
        from = at + BREAK_LEN;
        while (from < n && is_space(cp[from])) from++;
    }
}

/* ":number)" at i, white space around the number allowed: its length, and the number's place. 0: it is not there. */
static size_t match_weight(const struct parser *p, size_t i, size_t *number, size_t *number_len) {
    size_t at = i + 1;
    while (at < p->n && is_space(p->cp[at])) at++;
    *number = at;
    if (at < p->n && (p->cp[at] == '+' || p->cp[at] == '-')) at++;
    const size_t digits = at;
    while (at < p->n && (p->cp[at] == '.' || (p->cp[at] >= '0' && p->cp[at] <= '9'))) at++;
    *number_len = at - *number;
    if (at == digits) return 0;
    while (at < p->n && is_space(p->cp[at])) at++;
    return at < p->n && p->cp[at] == ')' ? at + 1 - i : 0;
}

/* Not strtod, which goes by the locale. Exact for up to 15 digits, as both steps are then. */
static rung_status read_number(const struct parser *p, size_t at, size_t len, double *out) {
    const bool negative = p->cp[at] == '-';
    double value = 0, scale = 1;
    bool point = false, digit = false, twice = false;
    for (size_t i = negative || p->cp[at] == '+'; i < len; i++) {
        const uint32_t c = p->cp[at + i];
        twice |= c == '.' && point;
        point |= c == '.';
        if (c == '.') continue;
        digit = true;
        value = value * 10 + (c - '0');
        if (point) scale *= 10;
    }
    *out = (negative ? -value : value) / scale;
    if (digit && !twice && len <= MAX_NUMBER) return RUNG_OK;
    char text[MAX_NUMBER + 1] = {0}; /* only ASCII got here */
    for (size_t i = 0; i < size_min(len, MAX_NUMBER); i++) text[i] = (char)p->cp[at + i];
    return rung_fail(p->err, RUNG_EARG, "prompt: weight '%s' is not a number", text);
}

/* One token of the grammar at i; its length. */
static rung_status parse_one(struct parser *p, size_t i, size_t *len) {
    const uint32_t c = p->cp[i];
    *len = 1;
    if (c == '\\') { /* the bracket after it is plain; a backslash before anything else just goes */
        const uint32_t next = i + 1 < p->n ? p->cp[i + 1] : 0;
        const bool escape = next && next < 0x80 && strchr("()[]\\", (int)next);
        *len += escape;
        return add_piece(p, p->cp + i + 1, escape, 1);
    }
    if (c == '(' || c == '[') {
        struct brackets *b = c == '(' ? &p->round : &p->square;
        b->piece[b->n++] = p->out->pieces;
        return RUNG_OK;
    }
    if (c == ':') {
        size_t number, number_len;
        double weight;
        const size_t match = match_weight(p, i, &number, &number_len);
        if (match) *len = match;
        if (!match || !p->round.n) return add_plain(p, p->cp + i, *len);
        RUNG_TRY(read_number(p, number, number_len, &weight));
        multiply_from(p->out, p->round.piece[--p->round.n], weight);
        return RUNG_OK;
    }
    if (c == ')' && p->round.n) {
        multiply_from(p->out, p->round.piece[--p->round.n], ROUND);
        return RUNG_OK;
    }
    if (c == ']' && p->square.n) {
        multiply_from(p->out, p->square.piece[--p->square.n], SQUARE);
        return RUNG_OK;
    }
    while (c != ')' && c != ']' && i + *len < p->n &&
           !(p->cp[i + *len] < 0x80 && strchr("\\()[]:", (int)p->cp[i + *len])))
        ++*len;
    return add_plain(p, p->cp + i, *len);
}

/* Neighbours of equal weight become one piece: words are then tokenised together. */
static void merge_equal(rung_prompt *o) {
    size_t kept = 0;
    for (size_t i = 1; i < o->pieces; i++) {
        if (o->piece[i].weight == o->piece[kept].weight) {
            o->piece[kept].n += o->piece[i].n;
        } else {
            o->piece[++kept] = o->piece[i];
        }
    }
    o->pieces = kept + 1;
}

static rung_status finish(struct parser *p) {
    rung_prompt *o = p->out;
    for (size_t i = 0; i < p->round.n; i++) multiply_from(o, p->round.piece[i], ROUND);
    for (size_t i = 0; i < p->square.n; i++) multiply_from(o, p->square.piece[i], SQUARE);
    if (o->pieces == 0) RUNG_TRY(add_piece(p, NULL, 0, 1));
    text_push(&o->text, 0); /* so that even an empty text has an address for pieces to be sums of */
    RUNG_TRY(text_check(&o->text, p->err));
    o->text.n--;
    merge_equal(o);
    for (size_t i = 0; i < o->pieces; i++) {
        prompt_piece *piece = &o->piece[i];
        piece->is_break =
            piece->weight == -1 && piece->n == BREAK_LEN && find_break(o->text.cp + piece->start, piece->n, 0) == 0;
        if (!isfinite((float)piece->weight))
            return rung_fail(p->err, RUNG_EARG, "prompt: a weight of %g is out of range", piece->weight);
    }
    return RUNG_OK;
}

rung_status prompt_parse(rung_prompt *out, const char *utf8, size_t bytes, rung_err *err) {
    *out = (rung_prompt){0};
    rung_text text = {0};
    text_decode(&text, utf8, bytes);
    struct parser p = {.out = out, .cp = text.cp, .n = text.n, .err = err};
    p.round.piece = malloc(size_max(text.n, 1) * sizeof *p.round.piece);
    p.square.piece = malloc(size_max(text.n, 1) * sizeof *p.square.piece);
    rung_status st;
    RUNG_TRY_GOTO(st, done, text_check(&text, err));
    if (!p.round.piece || !p.square.piece) {
        st = rung_fail(err, RUNG_ENOMEM, "prompt: no memory for the brackets of %zu characters", text.n);
        goto done;
    }
    for (size_t i = 0, len; i < p.n; i += len) RUNG_TRY_GOTO(st, done, parse_one(&p, i, &len));
    st = finish(&p);
done:
    free(p.square.piece);
    free(p.round.piece);
    text_free(&text);
    if (st) prompt_free(out);
    return st;
}

void prompt_free(rung_prompt *p) {
    text_free(&p->text);
    free(p->piece);
    *p = (rung_prompt){0};
}

/* ---- chunks ------------------------------------------------------------------------------------------------- */

static const size_t NO_COMMA = SIZE_MAX;

void chunks_start(prompt_chunks *c, size_t room, int32_t comma) {
    *c = (prompt_chunks){.room = room, .comma = comma, .last_comma = NO_COMMA};
}

void chunks_free(prompt_chunks *c) {
    free(c->id);
    free(c->weight);
    free(c->used);
    *c = (prompt_chunks){0};
}

/* Room for the chunk being filled and one more, into which a comma may move words. */
static rung_status reserve(prompt_chunks *c, rung_err *err) {
    if (c->chunks + 2 <= c->cap) return RUNG_OK;
    const size_t cap = c->cap * 2 + 2;
    int32_t *id = realloc(c->id, cap * c->room * sizeof *id);
    if (id) c->id = id;
    float *weight = realloc(c->weight, cap * c->room * sizeof *weight);
    if (weight) c->weight = weight;
    size_t *used = realloc(c->used, cap * sizeof *used);
    if (used) c->used = used;
    if (!id || !weight || !used) return rung_fail(err, RUNG_ENOMEM, "prompt: no memory for %zu chunks", cap);
    c->cap = cap;
    return RUNG_OK;
}

static void end_chunk(prompt_chunks *c) {
    c->used[c->chunks++] = c->open_used;
    c->open_used = 0;
    c->last_comma = NO_COMMA;
}

/* The full chunk ends after its last comma; the rest of it opens the next one. */
static void end_chunk_at_comma(prompt_chunks *c) {
    const size_t keep = c->last_comma + 1, moved = c->open_used - keep;
    const size_t from = c->chunks * c->room + keep, to = (c->chunks + 1) * c->room;
    memcpy(c->id + to, c->id + from, moved * sizeof *c->id);
    memcpy(c->weight + to, c->weight + from, moved * sizeof *c->weight);
    c->open_used = keep;
    end_chunk(c);
    c->open_used = moved;
}

rung_status chunks_add(prompt_chunks *c, const int32_t *id, size_t n, double weight, rung_err *err) {
    for (size_t i = 0; i < n; i++) {
        RUNG_TRY(reserve(c, err));
        const bool full = c->open_used == c->room;
        if (id[i] == c->comma) {
            c->last_comma = c->open_used;
        } else if (full && c->last_comma != NO_COMMA && c->open_used - c->last_comma <= COMMA_BACKTRACK) {
            end_chunk_at_comma(c);
        }
        if (c->open_used == c->room) end_chunk(c);
        RUNG_TRY(reserve(c, err));
        const size_t at = c->chunks * c->room + c->open_used++;
        c->id[at] = id[i];
        c->weight[at] = (float)weight;
    }
    return RUNG_OK;
}

rung_status chunks_break(prompt_chunks *c, rung_err *err) {
    RUNG_TRY(reserve(c, err));
    end_chunk(c);
    return RUNG_OK;
}

rung_status chunks_finish(prompt_chunks *c, rung_err *err) {
    return c->open_used || !c->chunks ? chunks_break(c, err) : RUNG_OK;
}

/* ---- weights ------------------------------------------------------------------------------------------------ */

static double mean(const float *z, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += z[i];
    return sum / (double)n;
}

rung_status prompt_apply_weights(float *z, const float *weight, size_t n, size_t d, rung_err *err) {
    bool plain = true;
    for (size_t i = 0; i < n; i++) plain &= weight[i] == 1;
    if (plain) return RUNG_OK;
    const double before = mean(z, n * d);
    for (size_t i = 0; i < n * d; i++) z[i] *= weight[i / d];
    const float scale = (float)(before / mean(z, n * d));
    if (!isfinite(scale))
        return rung_fail(err, RUNG_EARG, "prompt: the weights cancel out, the mean of the embedding cannot be kept");
    for (size_t i = 0; i < n * d; i++) z[i] *= scale;
    return RUNG_OK;
}
