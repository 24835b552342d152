/* textenc/vocab.c - the hash table of a vocabulary (FNV-1a, linear probing, at most half full). */
#include "textenc/vocab.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/base/size.h"

struct vocab_slot {
    size_t at, len; /* the string is bytes[at, at + len) */
    int32_t id;
    bool taken;
};

void vocab_free(rung_vocab *v) {
    free(v->bytes);
    free(v->slot);
    *v = (rung_vocab){0};
}

/* The slot that holds the string, or the free one where it belongs. */
static struct vocab_slot *slot_of(const rung_vocab *v, const char *s, size_t len) {
    uint64_t h = 14695981039346656037u;
    for (size_t i = 0; i < len; i++) h = (h ^ (unsigned char)s[i]) * 1099511628211u;
    size_t i = (size_t)(h ^ h >> 32) & (v->slots - 1);
    while (v->slot[i].taken && (v->slot[i].len != len || memcmp(v->bytes + v->slot[i].at, s, len) != 0))
        i = (i + 1) & (v->slots - 1);
    return &v->slot[i];
}

static rung_status grow_slots(rung_vocab *v, rung_err *err) {
    rung_vocab bigger = *v;
    bigger.slots = size_max(1024, v->slots * 2);
    bigger.slot = calloc(bigger.slots, sizeof *bigger.slot);
    if (!bigger.slot) return rung_fail(err, RUNG_ENOMEM, "vocabulary: no memory for %zu slots", bigger.slots);
    for (size_t i = 0; i < v->slots; i++) {
        const struct vocab_slot *s = &v->slot[i];
        if (s->taken) *slot_of(&bigger, v->bytes + s->at, s->len) = *s;
    }
    free(v->slot);
    *v = bigger;
    return RUNG_OK;
}

rung_status vocab_add(rung_vocab *v, const char *s, size_t len, int32_t id, rung_err *err) {
    if (v->n >= v->slots / 2) RUNG_TRY(grow_slots(v, err));
    struct vocab_slot *slot = slot_of(v, s, len);
    if (slot->taken) {
        slot->id = id;
        return RUNG_OK;
    }
    if (v->n == VOCAB_MAX_TOKENS)
        return rung_fail(err, RUNG_EFORMAT, "vocabulary: more than %d tokens", VOCAB_MAX_TOKENS);
    if (!v->bytes || len > v->bytes_cap - v->used) {
        const size_t cap = size_max(v->bytes_cap * 2, v->used + len + 4096);
        char *p = realloc(v->bytes, cap);
        if (!p) return rung_fail(err, RUNG_ENOMEM, "vocabulary: no memory for %zu bytes of tokens", cap);
        v->bytes = p;
        v->bytes_cap = cap;
    }
    if (len) memcpy(v->bytes + v->used, s, len);
    *slot = (struct vocab_slot){.at = v->used, .len = len, .id = id, .taken = true};
    v->used += len;
    v->n++;
    return RUNG_OK;
}

int32_t vocab_find(const rung_vocab *v, const char *s, size_t len) {
    if (v->n == 0) return -1;
    const struct vocab_slot *slot = slot_of(v, s, len);
    return slot->taken ? slot->id : -1;
}

rung_status vocab_add_json(rung_vocab *v, const cJSON *tokens, const char *where, rung_err *err) {
    const bool list = cJSON_IsArray(tokens);
    if (!list && !cJSON_IsObject(tokens))
        return rung_fail(err, RUNG_EFORMAT, "%s: the vocabulary is neither an object nor a list", where);
    int32_t place = 0;
    for (const cJSON *t = tokens->child; t; t = t->next, place++) {
        const char *s = list ? cJSON_GetStringValue(t) : t->string;
        const double id = list ? place : cJSON_GetNumberValue(t);
        if (!s) return rung_fail(err, RUNG_EFORMAT, "%s: vocabulary entry %d is no string", where, (int)place);
        if (!(id >= 0 && id <= VOCAB_MAX_ID) || id != (double)(int32_t)id)
            return rung_fail(err, RUNG_EFORMAT, "%s: id of token '%.40s' is not an integer in 0..%d", where, s,
                             VOCAB_MAX_ID);
        RUNG_TRY(vocab_add(v, s, strlen(s), (int32_t)id, err));
    }
    return RUNG_OK;
}

bool next_line(const char **at, const char *end, const char **line, size_t *len) {
    if (*at == end) return false;
    const char *stop = memchr(*at, '\n', (size_t)(end - *at));
    *line = *at;
    *len = (size_t)((stop ? stop : end) - *at);
    *at = stop ? stop + 1 : end;
    if (*len && (*line)[*len - 1] == '\r') --*len;
    return true;
}

rung_status vocab_add_lines(rung_vocab *v, const char *text, size_t bytes, const char *where, rung_err *err) {
    const char *at = text, *line;
    size_t len;
    for (int32_t id = 0; next_line(&at, text + bytes, &line, &len); id++) {
        if (id > VOCAB_MAX_ID) return rung_fail(err, RUNG_EFORMAT, "%s: more than %d lines", where, VOCAB_MAX_ID);
        while (len && strchr(" \t\r\f\v", line[len - 1]) && line[len - 1]) len--;
        RUNG_TRY(vocab_add(v, line, len, id, err));
    }
    return RUNG_OK;
}

void ids_push(rung_ids *l, int32_t id) {
    if (l->failed) return;
    if (l->n == l->cap) {
        const size_t cap = size_max(64, l->cap * 2);
        int32_t *p = realloc(l->id, cap * sizeof *p);
        if (!p) {
            l->failed = true;
            return;
        }
        l->id = p;
        l->cap = cap;
    }
    l->id[l->n++] = id;
}

void ids_free(rung_ids *l) {
    free(l->id);
    *l = (rung_ids){0};
}

rung_status ids_check(const rung_ids *l, rung_err *err) {
    return l->failed ? rung_fail(err, RUNG_ENOMEM, "tokens: no memory beyond %zu", l->n) : RUNG_OK;
}
