/* textenc/special_tokens.c - which tokens a tokenizer's files name, and where a text has them. */
#include "textenc/special_tokens.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/base/size.h"

enum { MAX_SPECIAL = 4096, MAX_CONTENT = 1024 };

static const char *const NAMES[SPECIAL_NAMES] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                                 "pad_token", "cls_token", "mask_token"};

/* One token as a file describes it. */
struct description {
    const char *content;
    bool normalized, lstrip, rstrip, single_word;
};

static bool flag(const cJSON *v, const char *key, bool def) {
    const cJSON *f = cJSON_GetObjectItemCaseSensitive(v, key);
    return cJSON_IsBool(f) ? cJSON_IsTrue(f) : def;
}

/* A string, or {"content": ..., "normalized": ...}. `special` is what an object that does not say is taken for: special
 * tokens are looked for before normalisation. content stays NULL for anything else. */
static struct description describe(const cJSON *v, bool special) {
    struct description d = {.content = cJSON_GetStringValue(v)};
    if (d.content || !cJSON_IsObject(v)) return d;
    d.content = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(v, "content"));
    d.normalized = flag(v, "normalized", !flag(v, "special", special));
    d.lstrip = flag(v, "lstrip", false);
    d.rstrip = flag(v, "rstrip", false);
    d.single_word = flag(v, "single_word", false);
    return d;
}

static const cJSON *get(const cJSON *object, const char *key) {
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsNull(v) ? NULL : v;
}

/* Newer files list every added token with its id, and that list overrides all others. */
static const cJSON *own_list(const special_source *s) { return get(s->config, "added_tokens_decoder"); }

static struct description describe_named(const special_source *s, special_name name) {
    const cJSON *in_map = own_list(s) ? NULL : get(s->map, NAMES[name]);
    if (in_map) return describe(in_map, true);
    const cJSON *in_config = get(s->config, NAMES[name]);
    if (in_config) return describe(in_config, false);
    return (struct description){.content = s->defaults[name]};
}

const char *special_content(const special_source *s, special_name name) { return describe_named(s, name).content; }

void special_tokens_free(special_tokens *s) {
    for (size_t i = 0; i < s->n; i++) text_free(&s->t[i].content);
    free(s->t);
    *s = (special_tokens){0};
}

static bool same_text(const rung_text *a, const rung_text *b) {
    return a->n == b->n && memcmp(a->cp, b->cp, a->n * sizeof *a->cp) == 0;
}

/* The library's rule for a token that the vocabulary lacks. */
static int32_t next_id(const special_tokens *s, const rung_vocab *vocab) {
    int32_t highest = -1;
    for (size_t i = 0; i < s->n; i++) highest = s->t[i].id > highest ? s->t[i].id : highest;
    return highest >= (int32_t)vocab->n ? highest + 1 : (int32_t)vocab->n;
}

/* Adds a token, or gives one that is there already these flags: the last mention counts, but for those in a list. */
static rung_status add(special_tokens *s, const struct description *d, const special_source *src,
                       const rung_vocab *vocab, const char *what, int32_t *id, rung_err *err) {
    if (!d->content || !d->content[0] || strlen(d->content) > MAX_CONTENT)
        return rung_fail(err, RUNG_EFORMAT, "%s: %s is not a token of 1 to %d bytes", src->where, what, MAX_CONTENT);
    if (s->n == MAX_SPECIAL)
        return rung_fail(err, RUNG_EFORMAT, "%s: more than %d special tokens", src->where, MAX_SPECIAL);
    if (s->n == s->cap) {
        const size_t cap = size_max(16, s->cap * 2);
        special_token *p = realloc(s->t, cap * sizeof *p);
        if (!p) return rung_fail(err, RUNG_ENOMEM, "%s: no memory for %zu special tokens", src->where, cap);
        s->t = p;
        s->cap = cap;
    }
    special_token t = {
        .normalized = d->normalized, .lstrip = d->lstrip, .rstrip = d->rstrip, .single_word = d->single_word};
    text_decode(&t.content, d->content, strlen(d->content));
    const rung_status st = text_check(&t.content, err);
    if (st) {
        text_free(&t.content);
        return st;
    }
    size_t i = 0;
    while (i < s->n && !same_text(&s->t[i].content, &t.content)) i++;
    if (i < s->n) {
        t.id = s->t[i].id;
        special_token *old = i < s->listed ? &t : &s->t[i];
        text_free(&old->content);
    } else {
        t.id = vocab_find(vocab, d->content, strlen(d->content));
        if (t.id < 0) t.id = next_id(s, vocab);
        s->n++;
    }
    if (i >= s->listed) s->t[i] = t;
    *id = t.id;
    return RUNG_OK;
}

struct listed {
    long id;
    struct description d;
};

static int by_id(const void *a, const void *b) {
    const long x = ((const struct listed *)a)->id, y = ((const struct listed *)b)->id;
    return (x > y) - (x < y);
}

/* Only the order of the ids counts: out of range sorts last. */
static long listed_id(const cJSON *id) {
    const double v = cJSON_GetNumberValue(id);
    return v >= 0 && v <= VOCAB_MAX_ID ? (long)v : VOCAB_MAX_ID;
}

/* {"id": {...}} of tokenizer_config.json, {"content": id} of added_tokens.json, [{"id":, "content":}] of tokenizer.json
 */
static struct listed read_listed(const special_source *src, const cJSON *v, const cJSON *list) {
    if (list == src->added) {
        bool named = false; /* a named token is a special one */
        for (int k = 0; k < SPECIAL_NAMES; k++) {
            const char *c = special_content(src, (special_name)k);
            named |= c && v->string && strcmp(c, v->string) == 0;
        }
        return (struct listed){.id = listed_id(v), .d = {.content = v->string, .normalized = !named}};
    }
    const cJSON *id = get(v, "id");
    return (struct listed){.id = id          ? listed_id(id)
                                 : v->string ? strtol(v->string, NULL, 10)
                                             : 0,
                           .d = describe(v, false)};
}

/* The tokens that files list with their ids, by rising id; the ids themselves follow from the order. */
static rung_status add_listed(special_tokens *s, const special_source *src, const rung_vocab *vocab, rung_err *err) {
    const cJSON *const own = own_list(src);
    const cJSON *const lists[] = {own, own ? NULL : src->added, own ? NULL : get(src->tokenizer_json, "added_tokens")};
    struct listed *l = calloc(MAX_SPECIAL, sizeof *l);
    if (!l) return rung_fail(err, RUNG_ENOMEM, "%s: no memory for special tokens", src->where);
    size_t n = 0;
    rung_status st = RUNG_OK;
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        for (const cJSON *v = lists[i] ? lists[i]->child : NULL; v; v = v->next) {
            if (n == MAX_SPECIAL) {
                st = rung_fail(err, RUNG_EFORMAT, "%s: more than %d added tokens", src->where, MAX_SPECIAL);
                goto done;
            }
            l[n++] = read_listed(src, v, lists[i]);
        }
    }
    qsort(l, n, sizeof *l, by_id);
    for (size_t i = 0; i < n; i++) {
        int32_t id;
        RUNG_TRY_GOTO(st, done, add(s, &l[i].d, src, vocab, "an added token", &id, err));
    }
done:
    free(l);
    return st;
}

static rung_status add_named(special_tokens *s, const special_source *src, const rung_vocab *vocab, rung_err *err) {
    for (int k = 0; k < SPECIAL_NAMES; k++) {
        const struct description d = describe_named(src, (special_name)k);
        s->named[k] = -1;
        if (!d.content && !get(src->config, NAMES[k])) continue;
        RUNG_TRY(add(s, &d, src, vocab, NAMES[k], &s->named[k], err));
    }
    return RUNG_OK;
}

/* "..._token" keys beyond the seven names. */
static rung_status add_other_named(special_tokens *s, const special_source *src, const rung_vocab *vocab,
                                   rung_err *err) {
    static const char suffix[] = "_token";
    for (const cJSON *v = src->config ? src->config->child : NULL; v; v = v->next) {
        const size_t len = v->string ? strlen(v->string) : 0;
        if (len < strlen(suffix) || strcmp(v->string + len - strlen(suffix), suffix) != 0 || !cJSON_IsString(v))
            continue;
        bool named = false;
        for (int k = 0; k < SPECIAL_NAMES; k++) named |= strcmp(v->string, NAMES[k]) == 0;
        if (named) continue;
        const struct description d = describe(v, true);
        int32_t id;
        RUNG_TRY(add(s, &d, src, vocab, v->string, &id, err));
    }
    return RUNG_OK;
}

/* "extra_special_tokens", older "additional_special_tokens": a list, or an object of names and tokens. */
static rung_status add_extra(special_tokens *s, const special_source *src, const rung_vocab *vocab, rung_err *err) {
    static const char *const lists[] = {"extra_special_tokens", "additional_special_tokens"};
    const cJSON *const files[] = {src->config, own_list(src) ? NULL : src->map};
    for (size_t f = 0; f < 2; f++) {
        for (size_t i = 0; i < 2; i++) {
            const cJSON *list = get(files[f], lists[i]);
            for (const cJSON *v = list ? list->child : NULL; v; v = v->next) {
                const struct description d = describe(v, true);
                int32_t id;
                RUNG_TRY(add(s, &d, src, vocab, lists[i], &id, err));
            }
        }
    }
    return RUNG_OK;
}

rung_status special_tokens_open(special_tokens *out, const special_source *s, const rung_vocab *vocab, rung_err *err) {
    *out = (special_tokens){0};
    rung_status st;
    RUNG_TRY_GOTO(st, done, add_listed(out, s, vocab, err));
    out->listed = out->n;
    RUNG_TRY_GOTO(st, done, add_named(out, s, vocab, err));
    RUNG_TRY_GOTO(st, done, add_other_named(out, s, vocab, err));
    RUNG_TRY_GOTO(st, done, add_extra(out, s, vocab, err));
done:
    if (st) special_tokens_free(out);
    return st;
}

static bool matches(const special_token *t, const uint32_t *cp, size_t n, size_t at) {
    const size_t len = t->content.n;
    if (len == 0 || len > n - at || memcmp(t->content.cp, cp + at, len * sizeof *cp) != 0) return false;
    if (!t->single_word) return true;
    return (at == 0 || !char_is_word(cp[at - 1])) && (at + len == n || !char_is_word(cp[at + len]));
}

static const special_token *longest_match(const special_tokens *s, bool normalized, const uint32_t *cp, size_t n,
                                          size_t at) {
    const special_token *best = NULL;
    for (size_t i = 0; i < s->n; i++) {
        const special_token *t = &s->t[i];
        if (t->normalized != normalized || !matches(t, cp, n, at)) continue;
        if (!best || t->content.n > best->content.n) best = t;
    }
    return best;
}

bool special_next(const special_tokens *s, bool normalized, const uint32_t *cp, size_t n, size_t *at,
                  special_span *out) {
    const size_t from = *at;
    if (from >= n) return false;
    const special_token *t = NULL;
    size_t i = from;
    while (i < n && !(t = longest_match(s, normalized, cp, n, i))) i++;
    size_t start = i;
    while (t && t->lstrip && start > from && char_is_space(cp[start - 1])) start--;
    if (start > from) { /* the match is found again by the next call */
        *out = (special_span){from, start, -1};
    } else {
        size_t end = i + t->content.n;
        while (t->rstrip && end < n && char_is_space(cp[end])) end++;
        *out = (special_span){start, end, t->id};
    }
    *at = out->end;
    return true;
}
