#define _POSIX_C_SOURCE 200809L /* fileno */
#include "assets/json.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum {
    MAX_DEPTH = 64,
    MAX_VALUES = 4 << 20, /* a parsed value takes 64 bytes and more: a small file must not become gigabytes */
    MAX_JSON = 64 << 20,  /* bytes of a config or vocabulary file */
};

/* What stands for NaN between scan and parse: a string that no input can hold, for 0xff is not UTF-8. */
static const char NAN_MARK[] = "\xff";

rung_status rung_file_read(const char *path, size_t max, char **text, size_t *bytes, rung_err *err) {
    *text = NULL;
    *bytes = 0;
    rung_status st = RUNG_OK;
    char *buf = NULL;
    struct stat info;
    FILE *f = fopen(path, "rb");
    if (!f || fstat(fileno(f), &info) != 0) {
        st = rung_fail(err, RUNG_EIO, "%s: cannot be read: %s", path, strerror(errno));
        goto done;
    }
    if (!S_ISREG(info.st_mode)) {
        st = rung_fail(err, RUNG_EIO, "%s: is not a regular file", path);
        goto done;
    }
    if ((uintmax_t)info.st_size > max) {
        st = rung_fail(err, RUNG_EFORMAT, "%s: has %jd bytes, wanted at most %zu", path, (intmax_t)info.st_size, max);
        goto done;
    }
    const size_t size = (size_t)info.st_size;
    buf = malloc(size + 1);
    if (!buf) {
        st = rung_fail(err, RUNG_ENOMEM, "%s: no memory for %zu bytes", path, size);
        goto done;
    }
    if (fread(buf, 1, size, f) != size) {
        st = rung_fail(err, RUNG_EIO, "%s: reading ended early: %s", path, ferror(f) ? strerror(errno) : "it shrank");
        goto done;
    }
    buf[size] = 0;
    *text = buf;
    *bytes = size;
    buf = NULL;
done:
    if (f) fclose(f);
    free(buf);
    return st;
}

/* ---- before the parser: what cJSON lets pass or does not know ---- */

struct scan {
    char *text; /* the scan's own copy; Python's constants are overwritten in it */
    size_t at, bytes, depth, values;
    const char *where;
    rung_err *err;
};

static rung_status refuse_at(const struct scan *s, const char *what) {
    size_t line = 1;
    for (size_t i = 0; i < s->at && i < s->bytes; i++) line += s->text[i] == '\n';
    return rung_fail(s->err, RUNG_EFORMAT, "%s: line %zu: %s", s->where, line, what);
}

/* Length of the UTF-8 sequence at p, 0 when it is not one (RFC 3629: no overlong forms, no surrogates). */
static size_t utf8_length(const unsigned char *p, size_t left) {
    if (p[0] < 0x80) return 1;
    const size_t n = p[0] >= 0xc2 && p[0] < 0xe0   ? 2
                     : p[0] >= 0xe0 && p[0] < 0xf0 ? 3
                     : p[0] >= 0xf0 && p[0] < 0xf5 ? 4
                                                   : 0;
    if (n == 0 || n > left) return 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80) return 0;
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f)) return 0;
    if ((p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f)) return 0;
    return n;
}

static rung_status scan_string(struct scan *s) {
    s->at++;
    while (s->at < s->bytes && s->text[s->at] != '"') {
        const unsigned char *p = (const unsigned char *)s->text + s->at;
        const size_t n = utf8_length(p, s->bytes - s->at);
        if (n == 0) return refuse_at(s, "invalid UTF-8");
        if (*p < 0x20) return refuse_at(s, "control character in a string");
        if (s->bytes - s->at >= 6 && memcmp(p, "\\u0000", 6) == 0) return refuse_at(s, "\\u0000 in a string");
        if (*p == '\\' && s->at + 1 < s->bytes && p[1] < 0x80)
            s->at += 2;
        else
            s->at += n;
    }
    if (s->at >= s->bytes) return refuse_at(s, "a string does not end");
    s->at++;
    return RUNG_OK;
}

/* NaN, Infinity (a '-' in front stays): replaced by something of the same length that cJSON reads. */
static bool replace_constant(struct scan *s) {
    static const char infinity[] = "Infinity", huge[] = "1e999   ", nan_text[] = "NaN", mark[] = "\"\xff\"";
    const size_t left = s->bytes - s->at;
    char *p = s->text + s->at;
    if (left >= sizeof infinity - 1 && memcmp(p, infinity, sizeof infinity - 1) == 0) {
        memcpy(p, huge, sizeof huge - 1);
        s->at += sizeof infinity - 1;
        return true;
    }
    if (left >= sizeof nan_text - 1 && memcmp(p, nan_text, sizeof nan_text - 1) == 0) {
        memcpy(p, mark, sizeof mark - 1);
        s->at += sizeof nan_text - 1;
        return true;
    }
    return false;
}

static rung_status scan(struct scan *s) {
    while (s->at < s->bytes) {
        const char c = s->text[s->at];
        if (c == '"') {
            RUNG_TRY(scan_string(s));
            continue;
        }
        if (replace_constant(s)) continue;
        if ((unsigned char)c >= 0x80 || (c < 0x20 && c != '\n' && c != '\r' && c != '\t'))
            return refuse_at(s, "unexpected character");
        if ((c == '[' || c == '{') && ++s->depth > MAX_DEPTH) return refuse_at(s, "nested too deeply");
        if ((c == ']' || c == '}') && s->depth > 0) s->depth--;
        if ((c == ',' || c == '[' || c == '{') && ++s->values > MAX_VALUES) return refuse_at(s, "too many values");
        s->at++;
    }
    return RUNG_OK;
}

/* ---- after the parser ---- */

static int compare_keys(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static rung_status check_keys(const cJSON *object, const char *where, rung_err *err) {
    const size_t n = (size_t)cJSON_GetArraySize(object);
    if (n < 2) return RUNG_OK;
    const char **keys = malloc(n * sizeof *keys);
    if (!keys) return rung_fail(err, RUNG_ENOMEM, "%s: out of memory", where);
    size_t i = 0;
    for (const cJSON *c = object->child; c; c = c->next) keys[i++] = c->string;
    qsort(keys, n, sizeof *keys, compare_keys);
    rung_status st = RUNG_OK;
    for (i = 1; i < n && !st; i++)
        if (strcmp(keys[i - 1], keys[i]) == 0)
            st = rung_fail(err, RUNG_EFORMAT, "%s: the key \"%.100s\" is there twice", where, keys[i]);
    free(keys);
    return st;
}

static rung_status check_value(cJSON *v, const char *where, rung_err *err) {
    if (cJSON_IsString(v) && strcmp(v->valuestring, NAN_MARK) == 0) {
        cJSON_free(v->valuestring);
        v->valuestring = NULL;
        v->type = (v->type & ~0xff) | cJSON_Number;
        v->valuedouble = NAN;
        v->valueint = 0;
    }
    if (cJSON_IsObject(v)) RUNG_TRY(check_keys(v, where, err));
    if (cJSON_IsObject(v) || cJSON_IsArray(v))
        for (cJSON *c = v->child; c; c = c->next) RUNG_TRY(check_value(c, where, err));
    return RUNG_OK;
}

rung_status rung_json_parse(cJSON **out, const char *text, size_t bytes, const char *where, rung_err *err) {
    *out = NULL;
    rung_status st = RUNG_OK;
    cJSON *root = NULL;
    const char *end = NULL;
    struct scan s = {.bytes = bytes, .where = where, .err = err};
    s.text = malloc(bytes + 1);
    if (!s.text) return rung_fail(err, RUNG_ENOMEM, "%s: no memory for %zu bytes of JSON", where, bytes);
    memcpy(s.text, text, bytes);
    s.text[bytes] = 0;
    if (bytes >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) memcpy(s.text, "   ", 3); /* a byte order mark */
    RUNG_TRY_GOTO(st, done, scan(&s));
    root = cJSON_ParseWithLengthOpts(s.text, bytes + 1, &end, true);
    if (!root) {
        s.at = end ? (size_t)(end - s.text) : bytes;
        st = refuse_at(&s, "not valid JSON");
        goto done;
    }
    RUNG_TRY_GOTO(st, done, check_value(root, where, err));
    *out = root;
    root = NULL;
done:
    cJSON_Delete(root);
    free(s.text);
    return st;
}

rung_status rung_json_load(cJSON **out, const char *path, rung_err *err) {
    char *text;
    size_t bytes;
    *out = NULL;
    RUNG_TRY(rung_file_read(path, MAX_JSON, &text, &bytes, err));
    const rung_status st = rung_json_parse(out, text, bytes, path, err);
    free(text);
    return st;
}

/* ---- reading a config ---- */

static const cJSON *item(const rung_config *c, const char *key) {
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(c->root, key);
    return cJSON_IsNull(v) ? NULL : v;
}

void cfg_refuse(rung_config *c, const char *fmt, ...) {
    char text[300];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (c->status == RUNG_OK) c->status = rung_fail(c->err, RUNG_EFORMAT, "%s: %s", c->where, text);
}

/* The value as it stands in the file, shortened; for messages. */
static const char *value_text(const cJSON *v, char *buf, size_t cap) {
    char *text = cJSON_PrintUnformatted(v);
    snprintf(buf, cap, "%s", text ? text : "?");
    cJSON_free(text);
    return buf;
}

enum { TEXT = 60 };

bool cfg_has(const rung_config *c, const char *key) { return item(c, key) != NULL; }

static bool whole_number(const cJSON *v, long lo, long hi, long *out) {
    /* 2^53: beyond it a double no longer holds every integer */
    if (!cJSON_IsNumber(v) || !(fabs(v->valuedouble) < 0x1p53) || v->valuedouble != floor(v->valuedouble)) return false;
    const long n = (long)v->valuedouble;
    if (n < lo || n > hi) return false;
    *out = n;
    return true;
}

long cfg_int(rung_config *c, const char *key, long def, long lo, long hi) {
    const cJSON *v = item(c, key);
    char text[TEXT];
    long n;
    if (!v || c->status) return def;
    if (whole_number(v, lo, hi, &n)) return n;
    cfg_refuse(c, "\"%s\" is %s, wanted an integer from %ld to %ld", key, value_text(v, text, sizeof text), lo, hi);
    return def;
}

long cfg_need_int(rung_config *c, const char *key, long lo, long hi) {
    if (!cfg_has(c, key)) cfg_refuse(c, "\"%s\" is missing, wanted an integer from %ld to %ld", key, lo, hi);
    return cfg_int(c, key, lo, lo, hi);
}

double cfg_real(rung_config *c, const char *key, double def, double lo, double hi) {
    const cJSON *v = item(c, key);
    char text[TEXT];
    if (!v || c->status) return def;
    if (cJSON_IsNumber(v) && v->valuedouble >= lo && v->valuedouble <= hi) return v->valuedouble;
    cfg_refuse(c, "\"%s\" is %s, wanted a number from %g to %g", key, value_text(v, text, sizeof text), lo, hi);
    return def;
}

bool cfg_bool(rung_config *c, const char *key, bool def) {
    const cJSON *v = item(c, key);
    char text[TEXT];
    if (!v || c->status) return def;
    if (cJSON_IsBool(v)) return cJSON_IsTrue(v);
    cfg_refuse(c, "\"%s\" is %s, wanted true or false", key, value_text(v, text, sizeof text));
    return def;
}

const char *cfg_string(rung_config *c, const char *key, const char *def) {
    const cJSON *v = item(c, key);
    char text[TEXT];
    if (!v || c->status) return def;
    if (cJSON_IsString(v)) return v->valuestring;
    cfg_refuse(c, "\"%s\" is %s, wanted a string", key, value_text(v, text, sizeof text));
    return def;
}

void cfg_ints(rung_config *c, const char *key, long *out, size_t cap, size_t *n, long lo, long hi) {
    const cJSON *v = item(c, key);
    char text[TEXT];
    *n = 0;
    if (!v || c->status) return;
    size_t count = 0;
    bool fine = cJSON_IsNumber(v) ? whole_number(v, lo, hi, &out[count++]) : cJSON_IsArray(v) && v->child;
    if (cJSON_IsArray(v))
        for (const cJSON *e = v->child; e && fine; e = e->next)
            fine = count < cap && whole_number(e, lo, hi, &out[count++]);
    if (fine)
        *n = count;
    else
        cfg_refuse(c, "\"%s\" is %s, wanted 1 to %zu integers from %ld to %ld", key, value_text(v, text, sizeof text),
                   cap, lo, hi);
}
