/* textenc/special_tokens.h - tokens that a text may name outright: <|endoftext|>, [SEP], and what a model's files add.
 * Source: transformers 5.x PreTrainedTokenizerBase._from_pretrained and TokenizersBackend, the tokenizers library's
 * AddedVocabulary. */
#ifndef RUNG_SPECIAL_TOKENS_H
#define RUNG_SPECIAL_TOKENS_H
#include "textenc/unicode.h"
#include "textenc/vocab.h"

/* In the order in which transformers adds them. */
typedef enum {
    SPECIAL_BOS,
    SPECIAL_EOS,
    SPECIAL_UNK,
    SPECIAL_SEP,
    SPECIAL_PAD,
    SPECIAL_CLS,
    SPECIAL_MASK,
    SPECIAL_NAMES,
} special_name;

typedef struct {
    rung_text content;
    int32_t id;
    bool normalized;     /* looked for in the normalised text, else in the text as it came */
    bool lstrip, rstrip; /* takes the white space before, after it */
    bool single_word;    /* only between non-word characters */
} special_token;

typedef struct {
    special_token *t;
    size_t n, cap;
    size_t listed;                /* the first ones come from a list with ids, whose flags hold */
    int32_t named[SPECIAL_NAMES]; /* id; -1: the tokenizer has none */
} special_tokens;

/* Files that speak of special tokens; NULL where there is none. */
typedef struct {
    const cJSON *config;         /* tokenizer_config.json */
    const cJSON *map;            /* special_tokens_map.json: counts only without "added_tokens_decoder" in config */
    const cJSON *added;          /* added_tokens.json, likewise */
    const cJSON *tokenizer_json; /* its "added_tokens", likewise */
    const char *const *defaults; /* [SPECIAL_NAMES] what the class has by itself, NULL: none */
    const char *where;           /* folder, for messages */
} special_source;

/** The text of one named token, borrowed; NULL when there is none or it is malformed (open says which). */
const char *special_content(const special_source *s, special_name name);

/** RUNG_EFORMAT, RUNG_ENOMEM. A token that the vocabulary lacks gets the next free id, as the library does. */
rung_status special_tokens_open(special_tokens *out, const special_source *s, const rung_vocab *vocab, rung_err *err);
void special_tokens_free(special_tokens *s);

typedef struct {
    size_t start, end;
    int32_t id; /* -1: plain text */
} special_span;

/**
 * Cuts cp[n] at the special tokens with this `normalized`: the next span from *at on, empty ones left out; false at
 * the end. Leftmost match, the longest one there.
 */
bool special_next(const special_tokens *s, bool normalized, const uint32_t *cp, size_t n, size_t *at,
                  special_span *out);
#endif
