/* textenc/unicode.c - code points through utf8proc, corrected where the tokenizers library's older tables differ. */
#include "textenc/unicode.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "kernels/base/size.h"
#include "textenc/unicode_pins.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static bool reserve(rung_text *t, size_t more) {
    if (t->failed) return false;
    if (more <= t->cap - t->n) return true;
    const size_t cap = size_max(t->cap * 2, t->n + more + 64);
    uint32_t *p = realloc(t->cp, cap * sizeof *p);
    if (!p) {
        t->failed = true;
        return false;
    }
    t->cp = p;
    t->cap = cap;
    return true;
}

void text_push(rung_text *t, uint32_t cp) {
    if (reserve(t, 1)) t->cp[t->n++] = cp;
}

void text_append(rung_text *t, const uint32_t *cp, size_t n) {
    if (n == 0 || !reserve(t, n)) return;
    memcpy(t->cp + t->n, cp, n * sizeof *cp);
    t->n += n;
}

void text_free(rung_text *t) {
    free(t->cp);
    *t = (rung_text){0};
}

rung_status text_check(const rung_text *t, rung_err *err) {
    return t->failed ? rung_fail(err, RUNG_ENOMEM, "text: no memory beyond %zu characters", t->n) : RUNG_OK;
}

/* One character or one maximal invalid part of s[n]; returns the bytes taken, at least 1. */
static size_t decode_one(const unsigned char *s, size_t n, uint32_t *cp) {
    const unsigned b = s[0];
    *cp = b;
    if (b < 0x80) return 1;
    *cp = 0xFFFD;
    if (b < 0xC2 || b > 0xF4) return 1;
    const size_t len = b < 0xE0 ? 2 : b < 0xF0 ? 3 : 4;
    uint32_t v = b & (0xFFu >> (len + 1));
    for (size_t i = 1; i < len; i++) {
        /* the second byte's range keeps out overlong forms, surrogates and what lies beyond U+10FFFF */
        const unsigned lo = i > 1 ? 0x80 : b == 0xE0 ? 0xA0 : b == 0xF0 ? 0x90 : 0x80;
        const unsigned hi = i > 1 ? 0xBF : b == 0xED ? 0x9F : b == 0xF4 ? 0x8F : 0xBF;
        if (i == n || s[i] < lo || s[i] > hi) return i;
        v = v << 6 | (s[i] & 0x3Fu);
    }
    *cp = v;
    return len;
}

void text_decode(rung_text *t, const char *utf8, size_t bytes) {
    const unsigned char *s = (const unsigned char *)utf8;
    for (size_t i = 0; i < bytes;) {
        uint32_t cp;
        i += decode_one(s + i, bytes - i, &cp);
        text_push(t, cp);
    }
}

size_t utf8_encode(uint32_t cp, unsigned char out[4]) {
    return (size_t)utf8proc_encode_char((utf8proc_int32_t)cp, out);
}

static bool in_ranges(const uint32_t (*r)[2], size_t n, uint32_t cp) {
    size_t lo = 0, hi = n;
    while (lo < hi) {
        const size_t mid = (lo + hi) / 2;
        if (cp > r[mid][1]) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo < n && cp >= r[lo][0];
}
#define IN(table, cp) in_ranges(table, COUNT(table), cp)

static utf8proc_category_t category(uint32_t cp) { return utf8proc_category((utf8proc_int32_t)cp); }

bool char_is_letter(uint32_t cp) {
    if (cp < 0x80) return (cp | 32) >= 'a' && (cp | 32) <= 'z';
    if (IN(LETTER_YES, cp)) return true;
    const utf8proc_category_t c = category(cp);
    return c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO && !IN(LETTER_NO, cp);
}

bool char_is_number(uint32_t cp) {
    if (cp < 0x80) return cp >= '0' && cp <= '9';
    if (IN(NUMBER_YES, cp)) return true;
    const utf8proc_category_t c = category(cp);
    return c >= UTF8PROC_CATEGORY_ND && c <= UTF8PROC_CATEGORY_NO && !IN(NUMBER_NO, cp);
}

bool char_is_space(uint32_t cp) {
    if (cp < 0x80) return cp == ' ' || (cp >= 9 && cp <= 13);
    const utf8proc_category_t c = category(cp);
    return cp == 0x85 || (c >= UTF8PROC_CATEGORY_ZS && c <= UTF8PROC_CATEGORY_ZP);
}

bool char_is_word(uint32_t cp) {
    const utf8proc_category_t c = category(cp);
    return char_is_letter(cp) || (c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_PC && c != UTF8PROC_CATEGORY_NO);
}

bool char_is_bert_mark(uint32_t cp) {
    if (IN(BERT_MARK_YES, cp)) return true;
    return category(cp) == UTF8PROC_CATEGORY_MN && !IN(BERT_MARK_NO, cp);
}

bool char_is_bert_control(uint32_t cp) {
    if (IN(BERT_CONTROL_YES, cp)) return true;
    const utf8proc_category_t c = category(cp);
    return c >= UTF8PROC_CATEGORY_CC && c <= UTF8PROC_CATEGORY_CO && !IN(BERT_CONTROL_NO, cp);
}

bool char_is_bert_punctuation(uint32_t cp) {
    if (IN(BERT_PUNCTUATION_YES, cp)) return true;
    const utf8proc_category_t c = category(cp);
    return c >= UTF8PROC_CATEGORY_PC && c <= UTF8PROC_CATEGORY_PO && !IN(BERT_PUNCTUATION_NO, cp);
}

void text_push_lower(rung_text *t, uint32_t cp) {
    if (cp == 0x130) { /* the one lower case of two characters: i and a combining dot */
        text_push(t, 'i');
        text_push(t, 0x307);
        return;
    }
    for (size_t i = 0; i < COUNT(LOWER); i++) {
        if (cp >= LOWER[i][0] && cp <= LOWER[i][1]) {
            text_push(t, cp + LOWER[i][2]);
            return;
        }
    }
    text_push(t, (uint32_t)utf8proc_tolower((utf8proc_int32_t)cp));
}

static unsigned combining_class(uint32_t cp) {
    return (unsigned)utf8proc_get_property((utf8proc_int32_t)cp)->combining_class;
}

/* Marks after a starter, cp[n], into the order of their classes; equal classes keep theirs. Counting, as a hostile
 * text is one long run. */
static bool order_marks(uint32_t *cp, size_t n) {
    bool ordered = true;
    for (size_t i = 1; i < n; i++) ordered &= combining_class(cp[i - 1]) <= combining_class(cp[i]);
    if (ordered) return true;
    uint32_t *tmp = malloc(n * sizeof *tmp);
    if (!tmp) return false;
    size_t at[256] = {0};
    for (size_t i = 0; i < n; i++) {
        for (unsigned c = combining_class(cp[i]) + 1; c < 256; c++) at[c]++;
    }
    for (size_t i = 0; i < n; i++) tmp[at[combining_class(cp[i])]++] = cp[i];
    memcpy(cp, tmp, n * sizeof *cp);
    free(tmp);
    return true;
}

static void decompose(rung_text *t, const uint32_t *cp, size_t n) {
    for (size_t i = 0; i < n; i++) {
        utf8proc_int32_t part[32]; /* the longest canonical decomposition has 4 */
        const utf8proc_ssize_t m =
            utf8proc_decompose_char((utf8proc_int32_t)cp[i], part, COUNT(part), UTF8PROC_DECOMPOSE, NULL);
        for (utf8proc_ssize_t k = 0; k < m && (size_t)k < COUNT(part); k++) text_push(t, (uint32_t)part[k]);
    }
}

/* A stretch without opaque characters: taken apart, ordered, and with `compose` put together again. */
static void normalize_stretch(rung_text *t, const uint32_t *cp, size_t n, bool compose) {
    const size_t start = t->n;
    decompose(t, cp, n);
    if (t->failed || t->n == start) return;
    for (size_t i = start; i < t->n;) {
        size_t end = i;
        while (end < t->n && combining_class(t->cp[end]) != 0) end++;
        if (end > i + 1 && !order_marks(t->cp + i, end - i)) {
            t->failed = true;
            return;
        }
        i = end + (end == i);
    }
    if (!compose) return;
    const utf8proc_ssize_t m = utf8proc_normalize_utf32(
        (utf8proc_int32_t *)(t->cp + start), (utf8proc_ssize_t)(t->n - start), UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    if (m >= 0) t->n = start + (size_t)m;
}

void text_normalize(rung_text *t, const uint32_t *cp, size_t n, bool compose) {
    for (size_t i = 0; i < n;) {
        size_t end = i;
        while (end < n && !IN(NORM_OPAQUE, cp[end])) end++;
        normalize_stretch(t, cp + i, end - i, compose);
        if (end < n) text_push(t, cp[end++]);
        i = end;
    }
}
