/* textenc/wordpiece.c - BERT's normalisation and greedy longest-match-first splitting. */
#include "textenc/wordpiece.h"

#include <string.h>

enum { MAX_WORD = 100 };

void wordpiece_free(wordpiece *w) { vocab_free(&w->vocab); }

/* The ranges as the tokenizers library has them: U+2B920 instead of U+2B820 in the last but one. */
static bool is_chinese(uint32_t c) {
    return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x20000 && c <= 0x2A6DF) ||
           (c >= 0x2A700 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) || (c >= 0xF900 && c <= 0xFAFF) ||
           (c >= 0x2F800 && c <= 0x2FA1F);
}

static void clean(const wordpiece *w, rung_text *out, const uint32_t *cp, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (char_is_bert_control(cp[i])) continue;
        const bool apart = w->split_chinese && is_chinese(cp[i]);
        if (apart) text_push(out, ' ');
        text_push(out, char_is_space(cp[i]) ? ' ' : cp[i]);
        if (apart) text_push(out, ' ');
    }
}

void wordpiece_normalize(const wordpiece *w, rung_text *out, const uint32_t *cp, size_t n) {
    rung_text cleaned = {0}, apart = {0};
    clean(w, &cleaned, cp, n);
    const rung_text *t = &cleaned;
    if (w->strip_accents) {
        text_normalize(&apart, cleaned.cp, cleaned.n, false);
        t = &apart;
    }
    for (size_t i = 0; i < t->n; i++) {
        if (w->strip_accents && char_is_bert_mark(t->cp[i])) continue;
        if (w->lower_case) {
            text_push_lower(out, t->cp[i]);
        } else {
            text_push(out, t->cp[i]);
        }
    }
    out->failed |= cleaned.failed || apart.failed;
    text_free(&cleaned);
    text_free(&apart);
}

/* Longest known piece at the start of the word's rest [bytes + at[from], bytes + at[n]); 0: none. */
static size_t longest_piece(const wordpiece *w, const unsigned char *bytes, const size_t *at, size_t from, size_t n,
                            int32_t *id) {
    char piece[2 + 4 * MAX_WORD] = "##";
    const size_t prefix = from ? 2 : 0;
    memcpy(piece + prefix, bytes + at[from], at[n] - at[from]);
    for (size_t end = n; end > from; end--) {
        *id = vocab_find(&w->vocab, piece, prefix + at[end] - at[from]);
        if (*id >= 0) return end - from;
    }
    return 0;
}

static void encode_word(const wordpiece *w, rung_ids *out, const uint32_t *cp, size_t n) {
    unsigned char bytes[4 * MAX_WORD];
    size_t at[MAX_WORD + 1] = {0};
    const size_t start = out->n;
    if (n > MAX_WORD) {
        ids_push(out, w->unk);
        return;
    }
    for (size_t i = 0; i < n; i++) at[i + 1] = at[i] + utf8_encode(cp[i], bytes + at[i]);
    for (size_t i = 0; i < n;) {
        int32_t id;
        const size_t len = longest_piece(w, bytes, at, i, n, &id);
        if (!len) { /* one unknown piece makes the whole word unknown */
            out->n = start;
            ids_push(out, w->unk);
            return;
        }
        ids_push(out, id);
        i += len;
    }
}

void wordpiece_encode(const wordpiece *w, rung_ids *out, const uint32_t *cp, size_t n) {
    for (size_t i = 0; i < n;) {
        size_t len = 0;
        if (char_is_bert_punctuation(cp[i])) {
            len = 1;
        } else {
            while (i + len < n && !char_is_space(cp[i + len]) && !char_is_bert_punctuation(cp[i + len])) len++;
        }
        if (len) encode_word(w, out, cp + i, len);
        i += len ? len : 1;
    }
}
