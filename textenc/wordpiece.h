/* textenc/wordpiece.h - BERT's WordPiece: words of a text into ids.
 * Source: transformers BertTokenizer (5.x) over the tokenizers library's BertNormalizer, BertPreTokenizer, WordPiece.
 */
#ifndef RUNG_WORDPIECE_H
#define RUNG_WORDPIECE_H
#include "textenc/unicode.h"
#include "textenc/vocab.h"

typedef struct {
    rung_vocab vocab; /* owned */
    int32_t unk;
    bool lower_case, strip_accents, split_chinese;
} wordpiece;

void wordpiece_free(wordpiece *w);

/** Appends the normalised form of cp[n]: control characters out, ideographs apart, accents and case as configured. */
void wordpiece_normalize(const wordpiece *w, rung_text *out, const uint32_t *cp, size_t n);

/** Appends the ids of normalised text: longest match first; a word of more than 100 characters is [UNK]. */
void wordpiece_encode(const wordpiece *w, rung_ids *out, const uint32_t *cp, size_t n);
#endif
