/* textenc/vocab.h - token strings and their ids, read from files that nobody vouches for; and lists of ids. */
#ifndef RUNG_VOCAB_H
#define RUNG_VOCAB_H
#include <stdint.h>

#include "assets/json.h"

enum { VOCAB_MAX_ID = (1 << 24) - 1, VOCAB_MAX_TOKENS = 1 << 22 };

/* A hash table from UTF-8 strings to ids. Zeroed: empty. */
typedef struct {
    char *bytes; /* all strings, one after the other */
    size_t used, bytes_cap;
    struct vocab_slot *slot; /* open addressing, a power of two of slots */
    size_t slots, n;
} rung_vocab;

void vocab_free(rung_vocab *v);
/** A string that is there already gets the new id. RUNG_ENOMEM, RUNG_EFORMAT (more than VOCAB_MAX_TOKENS). */
rung_status vocab_add(rung_vocab *v, const char *s, size_t len, int32_t id, rung_err *err);
/** The id, or -1. */
int32_t vocab_find(const rung_vocab *v, const char *s, size_t len);

/** {"token": id, ...}, ids 0..VOCAB_MAX_ID; or a list of tokens, whose places are the ids. RUNG_EFORMAT otherwise. */
rung_status vocab_add_json(rung_vocab *v, const cJSON *tokens, const char *where, rung_err *err);
/** One token a line, its number the id; white space at the end of a line is dropped, as in vocab.txt's reader. */
rung_status vocab_add_lines(rung_vocab *v, const char *text, size_t bytes, const char *where, rung_err *err);

/** Next line of [*at, end): its bytes without the line end, into *line and *len; false when there is none. */
bool next_line(const char **at, const char *end, const char **line, size_t *len);

/* A growing list of token ids. Zeroed: empty. `failed` is set when memory ran out and stays set. */
typedef struct {
    int32_t *id;
    size_t n, cap;
    bool failed;
} rung_ids;

void ids_push(rung_ids *l, int32_t id);
void ids_free(rung_ids *l);
rung_status ids_check(const rung_ids *l, rung_err *err);
#endif
