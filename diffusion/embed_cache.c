#define _GNU_SOURCE /* asprintf */
#include "diffusion/embed_cache.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static rung_status copy_embeds(rung_embeds *out, const rung_embeds *e, rung_err *err) {
    const size_t bytes = e->n * e->d * sizeof *e->data;
    *out = (rung_embeds){.n = e->n, .d = e->d, .data = malloc(bytes), .mask = e->mask ? malloc(e->n) : NULL};
    if (!out->data || (e->mask && !out->mask)) {
        rung_embeds_free(out);
        return rung_fail(err, RUNG_ENOMEM, "no memory for %zu embeddings", e->n);
    }
    memcpy(out->data, e->data, bytes);
    if (e->mask) memcpy(out->mask, e->mask, e->n);
    return RUNG_OK;
}

static struct embed_slot *oldest(embed_cache *c) {
    struct embed_slot *s = &c->slots[0];
    for (size_t i = 1; i < EMBED_CACHE_SLOTS; i++)
        if (c->slots[i].used < s->used) s = &c->slots[i];
    return s;
}

rung_status embed_cache_encode(embed_cache *c, rung_textenc *t, const char *prompt, const rung_text_options *o,
                               rung_embeds *out, rung_err *err) {
    char *key = NULL;
    if (asprintf(&key, "%d %d %zu %s", o->clip_skip, o->literal, o->min_n, prompt) < 0)
        return rung_fail(err, RUNG_ENOMEM, "no memory for a prompt");
    struct embed_slot *s = NULL;
    for (size_t i = 0; !s && i < EMBED_CACHE_SLOTS; i++)
        if (c->slots[i].key && strcmp(c->slots[i].key, key) == 0) s = &c->slots[i];
    if (s) {
        free(key);
    } else {
        rung_embeds fresh = {0};
        const rung_status st = rung_textenc_encode(t, prompt, o, &fresh, err);
        if (st) {
            free(key);
            return st;
        }
        s = oldest(c);
        free(s->key);
        rung_embeds_free(&s->embeds);
        s->key = key;
        s->embeds = fresh;
    }
    s->used = ++c->clock;
    return copy_embeds(out, &s->embeds, err);
}

void embed_cache_clear(embed_cache *c) {
    for (size_t i = 0; i < EMBED_CACHE_SLOTS; i++) {
        free(c->slots[i].key);
        rung_embeds_free(&c->slots[i].embeds);
    }
    memset(c, 0, sizeof *c);
}
