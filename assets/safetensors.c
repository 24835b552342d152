#define _DEFAULT_SOURCE /* open, mmap, madvise */
#include "assets/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "assets/json.h"
#include "kernels/base/hash.h"
#include "kernels/base/size.h"

enum { LENGTH_BYTES = 8, MAX_HEADER = 100000000 }; /* the format's own limit */

struct entry {
    const char *name; /* lives in the header's JSON */
    rung_tensor tensor;
    size_t begin, end; /* bytes in the data */
};

struct rung_safetensors {
    char *path;
    unsigned char *map;
    size_t map_bytes, data_at, data_bytes;
    cJSON *header;
    struct entry *entries; /* sorted by name */
    size_t count;
};

static rung_status map_file(rung_safetensors *s, rung_err *err) {
    struct stat info;
    const int fd = open(s->path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &info) != 0) {
        const rung_status st = rung_fail(err, RUNG_EIO, "%s: cannot be read: %s", s->path, strerror(errno));
        if (fd >= 0) close(fd);
        return st;
    }
    if (!S_ISREG(info.st_mode)) {
        close(fd);
        return rung_fail(err, RUNG_EIO, "%s: is not a regular file", s->path);
    }
    if (info.st_size < LENGTH_BYTES || (uintmax_t)info.st_size > SIZE_MAX) {
        close(fd);
        return rung_fail(err, RUNG_EFORMAT, "%s: has %jd bytes: not a safetensors file", s->path,
                         (intmax_t)info.st_size);
    }
    s->map_bytes = (size_t)info.st_size;
    s->map = mmap(NULL, s->map_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    const int cause = errno;
    close(fd);
    if (s->map == MAP_FAILED) {
        s->map = NULL;
        return rung_fail(err, RUNG_EIO, "%s: cannot be mapped: %s", s->path, strerror(cause));
    }
    return RUNG_OK;
}

static rung_status parse_header(rung_safetensors *s, rung_err *err) {
    uint64_t n = 0;
    for (int i = 0; i < LENGTH_BYTES; i++) n |= (uint64_t)s->map[i] << 8 * i;
    if (n > MAX_HEADER || n > s->map_bytes - LENGTH_BYTES)
        return rung_fail(err, RUNG_EFORMAT, "%s: header length is %ju in a file of %zu bytes: not a safetensors file",
                         s->path, (uintmax_t)n, s->map_bytes);
    s->data_at = LENGTH_BYTES + (size_t)n;
    s->data_bytes = s->map_bytes - s->data_at;
    RUNG_TRY(rung_json_parse(&s->header, (const char *)s->map + LENGTH_BYTES, (size_t)n, s->path, err));
    if (!cJSON_IsObject(s->header))
        return rung_fail(err, RUNG_EFORMAT, "%s: the header is no JSON object: not a safetensors file", s->path);
    return RUNG_OK;
}

static rung_status check_metadata(const cJSON *m, const char *path, rung_err *err) {
    if (!cJSON_IsObject(m)) return rung_fail(err, RUNG_EFORMAT, "%s: __metadata__ is no object", path);
    for (const cJSON *v = m->child; v; v = v->next)
        if (!cJSON_IsString(v))
            return rung_fail(err, RUNG_EFORMAT, "%s: __metadata__ \"%.60s\" is no string", path, v->string);
    return RUNG_OK;
}

/* A size as JSON: an integer that a double holds exactly. */
static bool read_size(const cJSON *v, size_t *out) {
    if (!cJSON_IsNumber(v)) return false;
    const double d = v->valuedouble;
    if (!(d >= 0 && d < 0x1p53) || d != floor(d)) return false;
    *out = (size_t)d;
    return true;
}

static bool read_shape(const cJSON *list, rung_tensor *t) {
    if (!cJSON_IsArray(list)) return false;
    for (const cJSON *v = list->child; v; v = v->next)
        if (t->ndim == RUNG_MAX_DIMS || !read_size(v, &t->shape[t->ndim++])) return false;
    return true;
}

/* Bytes of a tensor. A dimension of 0 must not hide that the others' product wraps, so it counts as 1 at first. */
static bool tensor_bytes(const rung_tensor *t, size_t *out) {
    size_t n = 1, bits;
    bool empty = false;
    for (int i = 0; i < t->ndim; i++) {
        empty |= t->shape[i] == 0;
        if (!size_mul(n, size_max(t->shape[i], 1), &n)) return false;
    }
    if (!size_mul(n, rung_dtype_bits(t->dtype), &bits)) return false;
    if (!empty && bits % 8 != 0) return false;
    *out = empty ? 0 : bits / 8;
    return true;
}

static bool printable(const char *name) {
    for (const unsigned char *p = (const unsigned char *)name; *p; p++)
        if (*p < 0x20 || *p == 0x7f) return false;
    return *name != 0;
}

static rung_status read_entry(const rung_safetensors *s, const cJSON *v, struct entry *e, rung_err *err) {
    if (!printable(v->string))
        return rung_fail(err, RUNG_EFORMAT, "%s: a tensor's name is empty or holds control characters", s->path);
    e->name = v->string;
    rung_tensor *t = &e->tensor;
    const cJSON *dtype = cJSON_GetObjectItemCaseSensitive(v, "dtype");
    const cJSON *offsets = cJSON_GetObjectItemCaseSensitive(v, "data_offsets");
    if (!cJSON_IsString(dtype) || !rung_dtype_from_name(dtype->valuestring, &t->dtype))
        return rung_fail(err, RUNG_EFORMAT, "%s: tensor %.100s has the dtype \"%.40s\", which is not supported",
                         s->path, e->name, cJSON_IsString(dtype) ? dtype->valuestring : "");
    if (!read_shape(cJSON_GetObjectItemCaseSensitive(v, "shape"), t))
        return rung_fail(err, RUNG_EFORMAT, "%s: tensor %.100s has no shape of at most %d whole numbers", s->path,
                         e->name, RUNG_MAX_DIMS);
    if (!cJSON_IsArray(offsets) || cJSON_GetArraySize(offsets) != 2 || !read_size(offsets->child, &e->begin) ||
        !read_size(offsets->child->next, &e->end) || e->begin > e->end || e->end > s->data_bytes)
        return rung_fail(err, RUNG_EFORMAT, "%s: tensor %.100s has no data_offsets within the %zu bytes of data",
                         s->path, e->name, s->data_bytes);
    size_t want;
    char shape[100];
    if (!tensor_bytes(t, &want) || want != e->end - e->begin)
        return rung_fail(err, RUNG_EFORMAT, "%s: tensor %.100s has %zu bytes, which do not make %s of %s", s->path,
                         e->name, e->end - e->begin, rung_tensor_shape_text(t, shape, sizeof shape),
                         rung_dtype_name(t->dtype));
    t->data = s->map + s->data_at + e->begin;
    return RUNG_OK;
}

static int by_place(const void *a, const void *b) {
    const struct entry *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return (x->end > y->end) - (x->end < y->end);
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct entry *)a)->name, ((const struct entry *)b)->name);
}

static rung_status check_cover(const rung_safetensors *s, rung_err *err) {
    size_t at = 0;
    for (size_t i = 0; i < s->count; i++) {
        const struct entry *e = &s->entries[i];
        if (e->begin != at)
            return rung_fail(err, RUNG_EFORMAT, "%s: tensor %.100s begins at byte %zu of the data, wanted %zu (%s)",
                             s->path, e->name, e->begin, at, e->begin < at ? "tensors overlap" : "there is a hole");
        at = e->end;
    }
    if (at != s->data_bytes)
        return rung_fail(err, RUNG_EFORMAT, "%s: tensors end at byte %zu of the data, which has %zu", s->path, at,
                         s->data_bytes);
    return RUNG_OK;
}

static rung_status read_entries(rung_safetensors *s, rung_err *err) {
    s->entries = calloc((size_t)cJSON_GetArraySize(s->header) + 1, sizeof *s->entries);
    if (!s->entries) return rung_fail(err, RUNG_ENOMEM, "%s: out of memory", s->path);
    for (const cJSON *v = s->header->child; v; v = v->next) {
        if (strcmp(v->string, "__metadata__") == 0) {
            RUNG_TRY(check_metadata(v, s->path, err));
            continue;
        }
        RUNG_TRY(read_entry(s, v, &s->entries[s->count], err));
        s->count++;
    }
    qsort(s->entries, s->count, sizeof *s->entries, by_place);
    RUNG_TRY(check_cover(s, err));
    qsort(s->entries, s->count, sizeof *s->entries, by_name);
    return RUNG_OK;
}

rung_status rung_safetensors_open(rung_safetensors **out, const char *path, rung_err *err) {
    *out = NULL;
    rung_safetensors *s = calloc(1, sizeof *s);
    if (!s) return rung_fail(err, RUNG_ENOMEM, "%s: out of memory", path);
    rung_status st = RUNG_OK;
    s->path = strdup(path);
    if (!s->path) {
        st = rung_fail(err, RUNG_ENOMEM, "%s: out of memory", path);
        goto done;
    }
    RUNG_TRY_GOTO(st, done, map_file(s, err));
    RUNG_TRY_GOTO(st, done, parse_header(s, err));
    RUNG_TRY_GOTO(st, done, read_entries(s, err));
    *out = s;
    s = NULL;
done:
    rung_safetensors_close(&s);
    return st;
}

void rung_safetensors_close(rung_safetensors **sp) {
    rung_safetensors *s = *sp;
    *sp = NULL;
    if (!s) return;
    free(s->entries);
    cJSON_Delete(s->header);
    if (s->map) munmap(s->map, s->map_bytes);
    free(s->path);
    free(s);
}

const char *rung_safetensors_path(const rung_safetensors *s) { return s->path; }
size_t rung_safetensors_count(const rung_safetensors *s) { return s->count; }
const char *rung_safetensors_name(const rung_safetensors *s, size_t i) { return s->entries[i].name; }
const rung_tensor *rung_safetensors_tensor(const rung_safetensors *s, size_t i) { return &s->entries[i].tensor; }

const rung_tensor *rung_safetensors_find(const rung_safetensors *s, const char *name) {
    const struct entry key = {.name = name};
    const struct entry *e = bsearch(&key, s->entries, s->count, sizeof key, by_name);
    return e ? &e->tensor : NULL;
}

void rung_safetensors_release(const rung_safetensors *s, const void *data, size_t bytes) {
    enum { AROUND = 4 << 20 }; /* a page that is read brings some of its neighbours along, on both sides */
    const unsigned char *p = data;
    if (p < s->map || p >= s->map + s->map_bytes) return;
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), at = (size_t)(p - s->map);
    const size_t first = (at > AROUND ? at - AROUND : 0) / page * page;
    const size_t end = bytes < s->map_bytes - at ? at + bytes : s->map_bytes;
    /* Advice: a system that does not take it costs memory only. */
    (void)madvise(s->map + first, end - first, MADV_DONTNEED);
}

uint64_t rung_safetensors_hash(const rung_safetensors *s) {
    enum { SAMPLE = 64, STRIDE = 16 << 10, WHOLE = 1 << 30 };
    uint64_t h = s->map_bytes;
    if (s->map_bytes <= WHOLE) return rung_hash(h, s->map, s->map_bytes);
    h = rung_hash(h, s->map, s->data_at);
    for (size_t at = s->data_at; at + SAMPLE <= s->map_bytes; at += STRIDE) h = rung_hash(h, s->map + at, SAMPLE);
    return h;
}
