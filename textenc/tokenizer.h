/* textenc/tokenizer.h - a model's tokenizer: text to ids, whichever kind it is. */
#ifndef RUNG_TOKENIZER_H
#define RUNG_TOKENIZER_H
#include "assets/model.h"
#include "textenc/special_tokens.h"

typedef struct rung_tokenizer rung_tokenizer;
typedef enum { TOKENIZER_CLIP, TOKENIZER_BERT } tokenizer_kind;

/* A text may be this long: 64 KiB of UTF-8. */
enum { TOKENIZER_MAX_BYTES = 65536 };

/* The files of a tokenizer's folder, NULL where there is none. Borrowed, and only while opening. */
typedef struct {
    const char *where; /* the folder, for messages */
    const cJSON *config, *special_map, *added, *tokenizer_json, *vocab_json;
    const char *merges, *vocab_txt;
    size_t merges_bytes, vocab_txt_bytes;
} tokenizer_files;

/**
 * The vocabulary is tokenizer.json's when there is one, as in transformers; else that of vocab.json and merges.txt, of
 * merges.txt alone (CLIP) or of vocab.txt (BERT). RUNG_EFORMAT, RUNG_ENOMEM.
 */
rung_status tokenizer_open(rung_tokenizer **out, tokenizer_kind kind, const tokenizer_files *f, rung_err *err);
/** The same over the model's "tokenizer". RUNG_EFORMAT also for a class that is neither CLIP's nor BERT's. */
rung_status tokenizer_open_model(rung_tokenizer **out, tokenizer_kind kind, rung_model *m, rung_err *err);
void tokenizer_close(rung_tokenizer **t);

/** Appends the ids of text[bytes], UTF-8 with invalid parts read as U+FFFD, without the tokens around it.
 *  RUNG_EARG (longer than TOKENIZER_MAX_BYTES), RUNG_ENOMEM. */
rung_status tokenizer_encode(const rung_tokenizer *t, const char *text, size_t bytes, rung_ids *out, rung_err *err);

/** The same for text that is decoded already, of any length. RUNG_ENOMEM. */
rung_status tokenizer_encode_text(const rung_tokenizer *t, const uint32_t *cp, size_t n, rung_ids *out, rung_err *err);

int32_t tokenizer_first(const rung_tokenizer *t); /* what stands before a text: <|startoftext|>, [CLS] */
int32_t tokenizer_last(const rung_tokenizer *t);  /* and after it: <|endoftext|>, [SEP] */
int32_t tokenizer_pad(const rung_tokenizer *t);
int32_t tokenizer_comma(const rung_tokenizer *t);     /* a comma as a word, -1: none */
size_t tokenizer_max_length(const rung_tokenizer *t); /* model_max_length; SIZE_MAX: not limited */
#endif
