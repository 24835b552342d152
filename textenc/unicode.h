/* textenc/unicode.h - text as code points, and the character properties that tokenizers go by. */
#ifndef RUNG_UNICODE_H
#define RUNG_UNICODE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/err.h"

/* A growing list of code points. Zeroed: empty. `failed` is set when memory ran out and stays set. */
typedef struct {
    uint32_t *cp;
    size_t n, cap;
    bool failed;
} rung_text;

void text_push(rung_text *t, uint32_t cp);
void text_append(rung_text *t, const uint32_t *cp, size_t n);
void text_free(rung_text *t);

/** Appends UTF-8. Each maximal invalid part becomes one U+FFFD (Unicode 3.9, table 3-7). */
void text_decode(rung_text *t, const char *utf8, size_t bytes);

/** RUNG_ENOMEM when t->failed. */
rung_status text_check(const rung_text *t, rung_err *err);

/** UTF-8 of one code point into out; its length, 1 to 4. */
size_t utf8_encode(uint32_t cp, unsigned char out[4]);

/** Appends the normal form of cp[n]: NFC with `compose`, else NFD. */
void text_normalize(rung_text *t, const uint32_t *cp, size_t n, bool compose);

/** Appends the lower case of one character, without regard to its neighbours: no final sigma; U+0130 gives two. */
void text_push_lower(rung_text *t, uint32_t cp);

/* Properties as the tokenizers library 0.23 has them, whatever Unicode version utf8proc knows (15 to 17). */
bool char_is_letter(uint32_t cp);           /* \p{L} */
bool char_is_number(uint32_t cp);           /* \p{N} */
bool char_is_space(uint32_t cp);            /* White_Space */
bool char_is_word(uint32_t cp);             /* \w: letters, marks, digits, letter-like numbers, connectors */
bool char_is_bert_mark(uint32_t cp);        /* Mn */
bool char_is_bert_control(uint32_t cp);     /* what BERT drops: Cc but \t \n \r, Cf, Co, U+FFFD */
bool char_is_bert_punctuation(uint32_t cp); /* P, and ASCII symbols */
#endif
