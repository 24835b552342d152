#define _POSIX_C_SOURCE 200809L /* strdup, strndup */
#include "diffusion/prompt_file.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <utf8proc.h>

#include "assets/json.h"

typedef enum { WORDS, NAME, SIZE, INTEGER, SEED, REAL } key_kind;

struct key {
    const char *name;
    key_kind kind;
    size_t at; /* offset in struct line */
    double lo, hi;
};

/* A line while it is read. Values are strings of the line's own text until apply() checks them. */
struct line {
    rung_request request;
    long pictures[2]; /* batch_size, n_iter */
    char *text;       /* a copy that the words are cut from */
};

static const struct key keys[] = {
    {"prompt", WORDS, offsetof(struct line, request.prompt), 0, 0},
    {"negative_prompt", WORDS, offsetof(struct line, request.negative_prompt), 0, 0},
    {"sampler_name", NAME, offsetof(struct line, request.sampler), 0, 0},
    {"scheduler", NAME, offsetof(struct line, request.scheduler), 0, 0},
    {"seed", SEED, offsetof(struct line, request.seed), 0, 9.2e18},
    {"steps", INTEGER, offsetof(struct line, request.steps), 1, 10000},
    {"clip_skip", INTEGER, offsetof(struct line, request.clip_skip), 1, 64},
    {"width", SIZE, offsetof(struct line, request.width), 1, 16384},
    {"height", SIZE, offsetof(struct line, request.height), 1, 16384},
    {"batch_size", SIZE, offsetof(struct line, pictures[0]), 1, 10000},
    {"n_iter", SIZE, offsetof(struct line, pictures[1]), 1, 10000},
    {"cfg_scale", REAL, offsetof(struct line, request.cfg_scale), 0, 1000},
    {"eta", REAL, offsetof(struct line, request.eta), 0, 100},
    {"guidance_rescale", REAL, offsetof(struct line, request.guidance_rescale), 0, 1},
};
enum { KEYS = sizeof keys / sizeof *keys };

static const struct key *find_key(const char *name) {
    for (size_t i = 0; i < KEYS; i++)
        if (strcmp(keys[i].name, name) == 0) return &keys[i];
    return NULL;
}

static rung_status unknown_key(const char *name, rung_err *err) {
    return rung_fail(err, RUNG_EARG,
                     "'%s' is no key; there are prompt, negative_prompt, seed, steps, cfg_scale, width, height, "
                     "sampler_name, scheduler, clip_skip, eta, guidance_rescale, batch_size, n_iter",
                     name);
}

static rung_status set_number(struct line *l, const struct key *k, const char *s, rung_err *err) {
    char *end;
    void *field = (char *)l + k->at;
    errno = 0;
    const double v = strtod(s, &end);
    const bool whole = k->kind == REAL || (v == floor(v) && !strpbrk(s, ".eExX"));
    if (end == s || *end || !whole || !(v >= k->lo && v <= k->hi))
        return rung_fail(err, RUNG_EARG, "%s is '%s', wanted a %snumber from %g to %g", k->name, s,
                         k->kind == REAL ? "" : "whole ", k->lo, k->hi);
    switch (k->kind) {
    case REAL:
        *(float *)field = (float)v;
        break;
    case INTEGER:
        *(int *)field = (int)v;
        break;
    case SIZE:
        *(size_t *)field = (size_t)v;
        break;
    case SEED:
        *(uint64_t *)field = strtoull(s, NULL, 10);
        break; /* all 64 bits, where v has 53 */
    case WORDS:
    case NAME:
        break;
    }
    if (k->at == offsetof(struct line, request.eta)) l->request.eta_set = true;
    /* 0 would ask for the model's default; a line that says 0 means: no guidance */
    if (k->at == offsetof(struct line, request.cfg_scale) && v < 1) l->request.cfg_scale = 1;
    return RUNG_OK;
}

/* `value` stays where it is: the line's text, or the JSON value's copy in it. */
static rung_status set_value(struct line *l, const struct key *k, char *value, rung_err *err) {
    if (k->kind != WORDS && k->kind != NAME) return set_number(l, k, value, err);
    if (k->kind == NAME && (!*value || strcasecmp(value, "automatic") == 0)) return RUNG_OK;
    *(const char **)((char *)l + k->at) = value;
    return RUNG_OK;
}

/* The next word, as a POSIX shell splits: quotes, backslash. In place: the word ends up at *s, and *s moves past it.
 * NULL at the end of the line. */
static rung_status next_word(char **s, char **word, rung_err *err) {
    char *r = *s, *w;
    while (isspace((unsigned char)*r)) r++;
    *word = NULL;
    if (!*r) return RUNG_OK;
    *word = w = r;
    for (char quote = 0; *r && (quote || !isspace((unsigned char)*r)); r++) {
        if (quote ? *r == quote : (*r == '"' || *r == '\''))
            quote = quote ? 0 : *r;
        else if (*r == '\\' && quote != '\'' && r[1] && (!quote || r[1] == '"' || r[1] == '\\'))
            *w++ = *++r;
        else
            *w++ = *r;
        if (quote && !r[1]) return rung_fail(err, RUNG_EARG, "a quote (%c) is not closed", quote);
    }
    *s = *r ? r + 1 : r;
    *w = 0;
    return RUNG_OK;
}

static bool is_key(const char *word) { return strncmp(word, "--", 2) == 0 && word[2]; }

/* Glues `word` to the end of `value`: both lie in the same text, word later, so there is room. */
static void append_word(char *value, const char *word) {
    size_t n = strlen(value);
    if (n) value[n++] = ' ';
    memmove(value + n, word, strlen(word) + 1);
}

static rung_status read_options(struct line *l, char *s, rung_err *err) {
    char *word;
    RUNG_TRY(next_word(&s, &word, err));
    while (word) {
        if (!is_key(word))
            return rung_fail(err, RUNG_EARG,
                             "'%.40s' stands before a --key; a prompt that contains -- goes in quotes: "
                             "--prompt \"a sign -- red\"",
                             word);
        const struct key *k = find_key(word + 2);
        if (!k) return unknown_key(word + 2, err);
        char *value;
        RUNG_TRY(next_word(&s, &value, err));
        if (!value || is_key(value)) return rung_fail(err, RUNG_EARG, "--%s wants a value", k->name);
        RUNG_TRY(next_word(&s, &word, err));
        while (k->kind == WORDS && word && !is_key(word)) {
            append_word(value, word);
            RUNG_TRY(next_word(&s, &word, err));
        }
        RUNG_TRY(set_value(l, k, value, err));
    }
    return RUNG_OK;
}

/* Values are copied behind each other into `room`. */
static rung_status read_object(struct line *l, const char *text, char *room, rung_err *err) {
    cJSON *o = NULL;
    RUNG_TRY(rung_json_parse(&o, text, strlen(text), "JSON", err));
    rung_status st = RUNG_OK;
    const cJSON *v;
    cJSON_ArrayForEach(v, o) {
        const struct key *k = find_key(v->string);
        char *printed = cJSON_IsNumber(v) ? cJSON_PrintUnformatted(v) : NULL;
        const char *s = printed ? printed : cJSON_GetStringValue(v);
        if (!k)
            st = unknown_key(v->string, err);
        else if (!s)
            st = rung_fail(err, RUNG_EARG, "%s is neither a string nor a number", k->name);
        if (!st) {
            strcpy(room, s);
            st = set_value(l, k, room, err);
            room += strlen(room) + 1;
        }
        cJSON_free(printed);
        if (st) break;
    }
    cJSON_Delete(o);
    return st;
}

static rung_status check_line(const struct line *l, const char *raw, rung_err *err) {
    if (utf8proc_decompose((const utf8proc_uint8_t *)raw, 0, NULL, 0, UTF8PROC_NULLTERM) < 0)
        return rung_fail(err, RUNG_EARG, "not valid UTF-8");
    if (!l->request.prompt) return rung_fail(err, RUNG_EARG, "no prompt");
    return RUNG_OK;
}

static rung_status read_line(struct line *l, const char *raw, rung_err *err) {
    const size_t n = strlen(raw);
    l->text = malloc(n + 1 + KEYS * 32); /* JSON numbers are printed anew, a short 1e300 becomes longer */
    if (!l->text) return rung_fail(err, RUNG_ENOMEM, "prompt file: out of memory");
    memcpy(l->text, raw, n + 1);
    if (raw[0] == '{')
        RUNG_TRY(read_object(l, raw, l->text, err));
    else if (strstr(raw, "--"))
        RUNG_TRY(read_options(l, l->text, err));
    else
        l->request.prompt = l->text;
    return check_line(l, raw, err);
}

static rung_status keep_line(prompt_file *f, struct line *l, size_t number, rung_err *err) {
    prompt_line *grown = realloc(f->lines, (f->count + 1) * sizeof *grown);
    if (!grown) return rung_fail(err, RUNG_ENOMEM, "prompt file: out of memory");
    f->lines = grown;
    f->lines[f->count++] = (prompt_line){.line = number,
                                         .text = l->text,
                                         .request = l->request,
                                         .pictures = (size_t)l->pictures[0] * (size_t)l->pictures[1]};
    return RUNG_OK;
}

static rung_status keep_fault(prompt_file *f, const char *message, size_t number, rung_err *err) {
    prompt_fault *grown = realloc(f->faults, (f->fault_count + 1) * sizeof *grown);
    char *copy = strdup(message);
    if (grown) f->faults = grown;
    if (grown && copy) {
        f->faults[f->fault_count++] = (prompt_fault){number, copy};
        return RUNG_OK;
    }
    free(copy);
    return rung_fail(err, RUNG_ENOMEM, "prompt file: out of memory");
}

/* The line without white space around it, malloc'd. */
static char *trimmed(const char *s, size_t n) {
    while (n && isspace((unsigned char)*s)) s++, n--;
    while (n && isspace((unsigned char)s[n - 1])) n--;
    return strndup(s, n);
}

rung_status prompt_file_parse(prompt_file *out, const char *text, const rung_request *defaults, rung_err *err) {
    *out = (prompt_file){0};
    rung_status st = RUNG_OK;
    if (strncmp(text, "\xef\xbb\xbf", 3) == 0) text += 3; /* a byte order mark */
    for (size_t number = 1; !st && *text; number++) {
        const size_t n = strcspn(text, "\n");
        char *raw = trimmed(text, n);
        text += n + (text[n] == '\n');
        if (!raw) {
            st = rung_fail(err, RUNG_ENOMEM, "prompt file: out of memory");
        } else if (*raw && *raw != '#') {
            rung_err fault = {0};
            struct line l = {.request = *defaults, .pictures = {1, 1}};
            st = read_line(&l, raw, &fault);
            if (!st)
                st = keep_line(out, &l, number, err);
            else if (st == RUNG_ENOMEM)
                st = rung_fail(err, st, "%s", fault.msg);
            else
                st = keep_fault(out, fault.msg, number, err);
            if (st || fault.code) free(l.text);
        }
        free(raw);
    }
    if (st) prompt_file_free(out);
    return st;
}

rung_status prompt_file_of(prompt_file *out, const char *const *prompts, size_t n, const rung_request *defaults,
                           rung_err *err) {
    *out = (prompt_file){0};
    rung_status st = RUNG_OK;
    for (size_t i = 0; !st && i < n; i++) {
        struct line l = {.request = *defaults, .pictures = {1, 1}, .text = strdup(prompts[i])};
        l.request.prompt = l.text;
        st = l.text ? keep_line(out, &l, i + 1, err) : rung_fail(err, RUNG_ENOMEM, "prompts: out of memory");
        if (st) free(l.text);
    }
    if (st) prompt_file_free(out);
    return st;
}

void prompt_file_free(prompt_file *f) {
    for (size_t i = 0; i < f->count; i++) free(f->lines[i].text);
    for (size_t i = 0; i < f->fault_count; i++) free(f->faults[i].message);
    free(f->lines);
    free(f->faults);
    *f = (prompt_file){0};
}
