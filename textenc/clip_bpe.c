/* textenc/clip_bpe.c - merges as a table of pairs of ids; a word is a linked list of symbols, its possible merges wait
 * in a heap, so that a long word costs O(n log n). */
#include "textenc/clip_bpe.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/base/size.h"

#define END_OF_WORD "</w>"
enum { MAX_MERGES = 1 << 22, MAX_MERGE_BYTES = 4096 };

struct merge {
    int32_t left, right, result; /* result < 0: the slot is free */
    uint32_t rank;
};

struct clip_bpe {
    rung_vocab vocab;
    struct merge *merge; /* open addressing, a power of two of slots */
    size_t slots, merges;
    int32_t symbol[2][256]; /* id of a byte inside a word, and at its end; -1: the vocabulary lacks it */
    int32_t unk;            /* -1: none */
};

/* ---- vocabulary and merges ---------------------------------------------------------------------------------- */

/* GPT-2's printable stand-ins: bytes that are visible in Latin-1 are themselves, the n-th other one is U+0100 + n. */
static bool is_visible(unsigned b) { return (b >= 33 && b <= 126) || (b >= 161 && b != 173); }

static size_t symbol_name(unsigned byte, bool end, char out[16]) {
    uint32_t cp = byte;
    if (!is_visible(byte)) {
        cp = 256;
        for (unsigned b = 0; b < byte; b++) cp += !is_visible(b);
    }
    const size_t len = utf8_encode(cp, (unsigned char *)out);
    memcpy(out + len, END_OF_WORD, sizeof END_OF_WORD);
    return end ? len + strlen(END_OF_WORD) : len;
}

/* The first 512 tokens of CLIP's own order: visible bytes, then the others; then the same as ends of words. */
static rung_status add_byte_symbols(rung_vocab *v, rung_err *err) {
    int32_t id = 0;
    for (int pass = 0; pass < 4; pass++) {
        for (unsigned b = 0; b < 256; b++) {
            if (is_visible(b) != (pass % 2 == 0)) continue;
            char name[16];
            const size_t len = symbol_name(b, pass >= 2, name);
            RUNG_TRY(vocab_add(v, name, len, id++, err));
        }
    }
    return RUNG_OK;
}

static struct merge *merge_slot(const clip_bpe *b, int32_t left, int32_t right) {
    const uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    size_t i = (size_t)(key * 11400714819323198485u >> 32) & (b->slots - 1);
    while (b->merge[i].result >= 0 && (b->merge[i].left != left || b->merge[i].right != right))
        i = (i + 1) & (b->slots - 1);
    return &b->merge[i];
}

static const struct merge *merge_find(const clip_bpe *b, int32_t left, int32_t right) {
    if (left < 0 || right < 0) return NULL;
    const struct merge *m = merge_slot(b, left, right);
    return m->result >= 0 ? m : NULL;
}

static rung_status grow_merges(clip_bpe *b, rung_err *err) {
    clip_bpe bigger = *b;
    bigger.slots = size_max(1024, b->slots * 2);
    bigger.merge = malloc(bigger.slots * sizeof *bigger.merge);
    if (!bigger.merge) return rung_fail(err, RUNG_ENOMEM, "merges: no memory for %zu slots", bigger.slots);
    for (size_t i = 0; i < bigger.slots; i++) bigger.merge[i].result = -1;
    for (size_t i = 0; i < b->slots; i++) {
        if (b->merge[i].result >= 0) *merge_slot(&bigger, b->merge[i].left, b->merge[i].right) = b->merge[i];
    }
    free(b->merge);
    *b = bigger;
    return RUNG_OK;
}

/* Merge number `rank`, left and right as strings. `build`: the result becomes the vocabulary's next token. */
static rung_status add_merge(clip_bpe *b, const clip_bpe_source *s, uint32_t rank, const char *left, size_t left_len,
                             const char *right, size_t right_len, rung_err *err) {
    char joined[2 * MAX_MERGE_BYTES];
    if (left_len > MAX_MERGE_BYTES || right_len > MAX_MERGE_BYTES || rank >= MAX_MERGES)
        return rung_fail(err, RUNG_EFORMAT, "%s: merge %u is too long, or one too many (limits %d bytes, %d merges)",
                         s->where, rank + 1, MAX_MERGE_BYTES, MAX_MERGES);
    memcpy(joined, left, left_len);
    memcpy(joined + left_len, right, right_len);
    const size_t len = left_len + right_len;
    if (!s->vocab) RUNG_TRY(vocab_add(&b->vocab, joined, len, (int32_t)(512 + rank), err));
    const int32_t l = vocab_find(&b->vocab, left, left_len), r = vocab_find(&b->vocab, right, right_len);
    const int32_t both = vocab_find(&b->vocab, joined, len);
    if (l < 0 || r < 0 || both < 0)
        return rung_fail(err, RUNG_EFORMAT, "%s: merge %u: '%.*s' is not in the vocabulary", s->where, rank + 1,
                         (int)size_min(len, 80), joined);
    if (b->merges >= b->slots / 2) RUNG_TRY(grow_merges(b, err));
    struct merge *m = merge_slot(b, l, r);
    b->merges += m->result < 0;
    *m = (struct merge){.left = l, .right = r, .result = both, .rank = rank};
    return RUNG_OK;
}

static rung_status add_merge_line(clip_bpe *b, const clip_bpe_source *s, uint32_t rank, const char *line, size_t len,
                                  rung_err *err) {
    const char *space = memchr(line, ' ', len);
    const char *right = space ? space + 1 : NULL;
    const size_t right_len = right ? (size_t)(line + len - right) : 0;
    if (!right || memchr(right, ' ', right_len))
        return rung_fail(err, RUNG_EFORMAT, "%s: merge %u is not two tokens with a space between: '%.*s'", s->where,
                         rank + 1, (int)size_min(len, 80), line);
    return add_merge(b, s, rank, line, (size_t)(space - line), right, right_len, err);
}

static rung_status read_merges_text(clip_bpe *b, const clip_bpe_source *s, uint32_t *count, rung_err *err) {
    static const char version[] = "#version";
    const char *at = s->merges_text, *line;
    size_t len;
    while (next_line(&at, s->merges_text + s->merges_bytes, &line, &len)) {
        if (len == 0 || (len >= strlen(version) && memcmp(line, version, strlen(version)) == 0)) continue;
        RUNG_TRY(add_merge_line(b, s, (*count)++, line, len, err));
    }
    return RUNG_OK;
}

static rung_status read_merges_list(clip_bpe *b, const clip_bpe_source *s, uint32_t *count, rung_err *err) {
    for (const cJSON *m = s->merges_list->child; m; m = m->next) {
        const char *line = cJSON_GetStringValue(m);
        const cJSON *pair = cJSON_IsArray(m) ? m->child : NULL;
        const char *left = pair ? cJSON_GetStringValue(pair) : NULL;
        const char *right = left && pair->next ? cJSON_GetStringValue(pair->next) : NULL;
        if (line) {
            RUNG_TRY(add_merge_line(b, s, (*count)++, line, strlen(line), err));
        } else if (right && !pair->next->next) {
            RUNG_TRY(add_merge(b, s, (*count)++, left, strlen(left), right, strlen(right), err));
        } else {
            return rung_fail(err, RUNG_EFORMAT, "%s: merge %u is neither a string nor a pair of strings", s->where,
                             *count + 1);
        }
    }
    return RUNG_OK;
}

static rung_status fill(clip_bpe *b, const clip_bpe_source *s, rung_err *err) {
    uint32_t count = 0;
    RUNG_TRY(grow_merges(b, err));
    RUNG_TRY(s->vocab ? vocab_add_json(&b->vocab, s->vocab, s->where, err) : add_byte_symbols(&b->vocab, err));
    if (s->merges_text) {
        RUNG_TRY(read_merges_text(b, s, &count, err));
    } else {
        if (!cJSON_IsArray(s->merges_list)) return rung_fail(err, RUNG_EFORMAT, "%s: no list of merges", s->where);
        RUNG_TRY(read_merges_list(b, s, &count, err));
    }
    if (!s->vocab) {
        static const char start[] = "<|startoftext|>", end[] = "<|endoftext|>";
        RUNG_TRY(vocab_add(&b->vocab, start, strlen(start), (int32_t)(512 + count), err));
        RUNG_TRY(vocab_add(&b->vocab, end, strlen(end), (int32_t)(513 + count), err));
    }
    for (unsigned byte = 0; byte < 256; byte++) {
        for (int end = 0; end < 2; end++) {
            char name[16];
            const size_t len = symbol_name(byte, end, name);
            b->symbol[end][byte] = vocab_find(&b->vocab, name, len);
        }
    }
    b->unk = s->unk ? vocab_find(&b->vocab, s->unk, strlen(s->unk)) : -1;
    return RUNG_OK;
}

rung_status clip_bpe_open(clip_bpe **out, const clip_bpe_source *s, rung_err *err) {
    *out = NULL;
    clip_bpe *b = calloc(1, sizeof *b);
    if (!b) return rung_fail(err, RUNG_ENOMEM, "%s: no memory for a tokenizer", s->where);
    const rung_status st = fill(b, s, err);
    if (st) {
        clip_bpe_close(&b);
        return st;
    }
    *out = b;
    return RUNG_OK;
}

void clip_bpe_close(clip_bpe **b) {
    if (!b || !*b) return;
    vocab_free(&(*b)->vocab);
    free((*b)->merge);
    free(*b);
    *b = NULL;
}

const rung_vocab *clip_bpe_vocab(const clip_bpe *b) { return &b->vocab; }

/* ---- one word ----------------------------------------------------------------------------------------------- */

enum { NONE = -1 };

struct symbol {
    int32_t id;
    int32_t prev, next; /* NONE at the ends */
    bool dead;          /* merged into an earlier one */
};

struct candidate {
    uint32_t rank;
    int32_t at; /* the left symbol */
    int32_t result;
};

/* Room for the longest word of a text; made once for each text. */
struct work {
    struct symbol *symbol;
    struct candidate *heap; /* the smallest (rank, at) on top */
    size_t heap_n;
};

static bool before(struct candidate a, struct candidate b) { return a.rank != b.rank ? a.rank < b.rank : a.at < b.at; }

static void heap_push(struct work *w, struct candidate c) {
    size_t i = w->heap_n++;
    for (; i > 0 && before(c, w->heap[(i - 1) / 2]); i = (i - 1) / 2) w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = c;
}

static struct candidate heap_pop(struct work *w) {
    const struct candidate top = w->heap[0], last = w->heap[--w->heap_n];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= w->heap_n) break;
        if (child + 1 < w->heap_n && before(w->heap[child + 1], w->heap[child])) child++;
        if (!before(w->heap[child], last)) break;
        w->heap[i] = w->heap[child];
        i = child;
    }
    w->heap[i] = last;
    return top;
}

static void propose(const clip_bpe *b, struct work *w, int32_t left) {
    const int32_t right = left == NONE ? NONE : w->symbol[left].next;
    if (right == NONE) return;
    const struct merge *m = merge_find(b, w->symbol[left].id, w->symbol[right].id);
    if (m) heap_push(w, (struct candidate){.rank = m->rank, .at = left, .result = m->result});
}

static void merge_all(const clip_bpe *b, struct work *w) {
    while (w->heap_n) {
        const struct candidate c = heap_pop(w);
        struct symbol *left = &w->symbol[c.at];
        if (left->dead || left->next == NONE) continue;
        struct symbol *right = &w->symbol[left->next];
        const struct merge *m = merge_find(b, left->id, right->id);
        if (!m || m->result != c.result) continue; /* one of the two has changed since */
        left->id = c.result;
        left->next = right->next;
        right->dead = true;
        if (left->next != NONE) w->symbol[left->next].prev = c.at;
        propose(b, w, left->prev);
        propose(b, w, c.at);
    }
}

static void encode_word(const clip_bpe *b, struct work *w, rung_ids *out, const uint32_t *cp, size_t n) {
    int32_t count = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned char byte[4];
        const size_t len = utf8_encode(cp[i], byte);
        for (size_t k = 0; k < len; k++) {
            const bool end = i + 1 == n && k + 1 == len;
            const int32_t id = b->symbol[end][byte[k]] >= 0 ? b->symbol[end][byte[k]] : b->unk;
            if (id < 0) continue;
            w->symbol[count] = (struct symbol){.id = id, .prev = count - 1, .next = count + 1};
            count++;
        }
    }
    if (count == 0) return;
    w->symbol[count - 1].next = NONE;
    w->heap_n = 0;
    for (int32_t i = 0; i < count; i++) propose(b, w, i);
    merge_all(b, w);
    for (int32_t i = 0; i != NONE; i = w->symbol[i].next) ids_push(out, w->symbol[i].id);
}

/* ---- text --------------------------------------------------------------------------------------------------- */

void clip_bpe_normalize(rung_text *out, const uint32_t *cp, size_t n) {
    rung_text composed = {0};
    text_normalize(&composed, cp, n, true);
    bool in_space = false;
    for (size_t i = 0; i < composed.n; i++) {
        const bool space = char_is_space(composed.cp[i]);
        if (!space) {
            text_push_lower(out, composed.cp[i]);
        } else if (!in_space) {
            text_push(out, ' ');
        }
        in_space = space;
    }
    out->failed |= composed.failed;
    text_free(&composed);
}

static bool is_other(uint32_t cp) { return !char_is_space(cp) && !char_is_letter(cp) && !char_is_number(cp); }

/* Length of `word` when cp[n] starts with it, else 0. */
static size_t starts_with(const uint32_t *cp, size_t n, const char *word) {
    size_t len = 0;
    for (; word[len]; len++) {
        if (len == n || cp[len] != (unsigned char)word[len]) return 0;
    }
    return len;
}

/* The word at the start of cp[n], in the order of CLIP's regular expression; 0: white space, which separates. */
static size_t word_length(const uint32_t *cp, size_t n) {
    static const char *const contraction[] = {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"};
    for (size_t i = 0; i < sizeof contraction / sizeof *contraction; i++) {
        const size_t len = starts_with(cp, n, contraction[i]);
        if (len) return len;
    }
    if (char_is_number(cp[0])) return 1;
    size_t len = 0;
    while (len < n && char_is_letter(cp[len])) len++;
    if (len) return len;
    while (len < n && is_other(cp[len])) len++;
    return len;
}

void clip_bpe_encode(const clip_bpe *b, rung_ids *out, const uint32_t *cp, size_t n) {
    size_t bytes;
    if (n == 0) return;
    /* every symbol proposes a merge once, and every one of the n - 1 merges two more */
    if (n > INT32_MAX / 16 || !size_mul(n, 4, &bytes)) {
        out->failed = true;
        return;
    }
    struct work w = {.symbol = malloc(bytes * sizeof *w.symbol), .heap = malloc(3 * bytes * sizeof *w.heap)};
    out->failed |= !w.symbol || !w.heap;
    for (size_t i = 0; i < n && !out->failed;) {
        /* a special token's text that was not taken as one (other case) is a match of its own, then three words */
        size_t len = starts_with(cp + i, n - i, "<|startoftext|>");
        if (!len) len = starts_with(cp + i, n - i, "<|endoftext|>");
        if (len) {
            encode_word(b, &w, out, cp + i, 2);
            encode_word(b, &w, out, cp + i + 2, len - 4);
            encode_word(b, &w, out, cp + i + len - 2, 2);
        } else {
            len = word_length(cp + i, n - i);
            encode_word(b, &w, out, cp + i, len);
        }
        i += len ? len : 1;
    }
    free(w.symbol);
    free(w.heap);
}
