/* textenc/clip_bpe.h - CLIP's byte-level BPE: words of a text into ids.
 * Source: transformers CLIPTokenizer (5.x) over the tokenizers library: NFC, white space to one space, lower case;
 * split into contractions, letters, single digits and the rest; bytes as symbols; "</w>" ends a word. */
#ifndef RUNG_CLIP_BPE_H
#define RUNG_CLIP_BPE_H
#include "textenc/unicode.h"
#include "textenc/vocab.h"

typedef struct clip_bpe clip_bpe;

/* Where the vocabulary comes from; what is not there is NULL. */
typedef struct {
    const cJSON *vocab;      /* {"token": id}; NULL: built from the merges, in CLIP's order */
    const char *merges_text; /* merges.txt: "left right" a line, lines that start with #version skipped */
    size_t merges_bytes;
    const cJSON *merges_list; /* or a list of "left right" strings or of [left, right] pairs */
    const char *unk;          /* token of a byte that the vocabulary lacks; NULL: such a byte gives nothing */
    const char *where;        /* for messages */
} clip_bpe_source;

/**
 * RUNG_EFORMAT (a merge whose parts or result are not in the vocabulary, with its number), RUNG_ENOMEM.
 * Built from the merges: 256 byte symbols, the same with "</w>", the merges in order, then <|startoftext|> and
 * <|endoftext|>: 49408 tokens for CLIP's 48894 merges.
 */
rung_status clip_bpe_open(clip_bpe **out, const clip_bpe_source *s, rung_err *err);
void clip_bpe_close(clip_bpe **b);
const rung_vocab *clip_bpe_vocab(const clip_bpe *b);

/** Appends the normalised form of cp[n]. */
void clip_bpe_normalize(rung_text *out, const uint32_t *cp, size_t n);

/** Appends the ids of normalised text. O(n log n). out->failed when memory ran out. */
void clip_bpe_encode(const clip_bpe *b, rung_ids *out, const uint32_t *cp, size_t n);
#endif
