/* diffusion/embed_cache.h - embeddings of the prompts seen last: a batch's negative prompt is encoded once. */
#ifndef RUNG_EMBED_CACHE_H
#define RUNG_EMBED_CACHE_H
#include "textenc/textenc.h"

enum { EMBED_CACHE_SLOTS = 32 };

typedef struct {
    struct embed_slot {
        char *key;
        rung_embeds embeds;
        unsigned long used; /* when: the smallest one is replaced */
    } slots[EMBED_CACHE_SLOTS];
    unsigned long clock;
} embed_cache;

/** rung_textenc_encode through the cache; *out is the caller's own copy. */
rung_status embed_cache_encode(embed_cache *c, rung_textenc *t, const char *prompt, const rung_text_options *o,
                               rung_embeds *out, rung_err *err);
void embed_cache_clear(embed_cache *c);
#endif
