#define _POSIX_C_SOURCE 200809L /* strdup, posix_fallocate, pwrite */
#include "assets/st_writer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "assets/json.h"
#include "kernels/base/size.h"

enum { LENGTH_BYTES = 8, ALIGN = 8 };

struct entry {
    char *name;
    rung_tensor t;
    size_t at, bytes; /* of the data */
};

struct st_writer {
    char *path;
    int fd;
    cJSON *meta;
    struct entry *entries; /* in the order of their ids */
    size_t count, cap, data_at, data_bytes;
};

static rung_status no_memory(const st_writer *w, rung_err *err) {
    return rung_fail(err, RUNG_ENOMEM, "%s: out of memory", w->path);
}

static rung_status io_error(const st_writer *w, int cause, rung_err *err) {
    return rung_fail(err, RUNG_EIO, "%s: could not be written: %s", w->path, strerror(cause));
}

rung_status st_writer_open(st_writer **out, const char *path, rung_err *err) {
    *out = NULL;
    st_writer *w = calloc(1, sizeof *w);
    if (!w) return rung_fail(err, RUNG_ENOMEM, "%s: out of memory", path);
    w->fd = -1;
    w->path = strdup(path);
    w->meta = cJSON_CreateObject();
    if (w->path && w->meta) {
        *out = w;
        return RUNG_OK;
    }
    st_writer_close(&w);
    return rung_fail(err, RUNG_ENOMEM, "%s: out of memory", path);
}

void st_writer_close(st_writer **wp) {
    st_writer *w = *wp;
    *wp = NULL;
    if (!w) return;
    for (size_t i = 0; i < w->count; i++) free(w->entries[i].name);
    free(w->entries);
    cJSON_Delete(w->meta);
    if (w->fd >= 0) close(w->fd);
    free(w->path);
    free(w);
}

rung_status st_writer_meta(st_writer *w, const char *key, const char *value, rung_err *err) {
    return cJSON_AddStringToObject(w->meta, key, value) ? RUNG_OK : no_memory(w, err);
}

rung_status st_writer_add(st_writer *w, const rung_tensor *t, const char *name, size_t *id, rung_err *err) {
    size_t bits;
    char shape[100];
    if (!size_mul(rung_tensor_count(t), rung_dtype_bits(t->dtype), &bits) || bits % 8 != 0)
        return rung_fail(err, RUNG_EFORMAT, "%s: tensor %s: %s of %s is no whole number of bytes", w->path, name,
                         rung_tensor_shape_text(t, shape, sizeof shape), rung_dtype_name(t->dtype));
    if (w->count == w->cap) {
        const size_t cap = w->cap ? 2 * w->cap : 256;
        struct entry *grown = realloc(w->entries, cap * sizeof *grown);
        if (!grown) return no_memory(w, err);
        w->entries = grown;
        w->cap = cap;
    }
    char *copy = strdup(name);
    if (!copy) return no_memory(w, err);
    *id = w->count;
    w->entries[w->count++] = (struct entry){.name = copy, .t = *t, .bytes = bits / 8};
    return RUNG_OK;
}

/* ---- layout ---- */

/* Six-bit elements and bytes may lie anywhere. */
static unsigned unit(const struct entry *e) {
    const unsigned bits = rung_dtype_bits(e->t.dtype);
    return bits % 16 == 0 ? bits : 8;
}

static int by_place(const void *a, const void *b) {
    const struct entry *x = *(struct entry *const *)a, *y = *(struct entry *const *)b;
    if (unit(x) != unit(y)) return unit(x) > unit(y) ? -1 : 1;
    return strcmp(x->name, y->name);
}

static bool add_number(cJSON *list, size_t v) {
    cJSON *n = cJSON_CreateNumber((double)v);
    if (n && cJSON_AddItemToArray(list, n)) return true;
    cJSON_Delete(n);
    return false;
}

static bool describe(cJSON *header, const struct entry *e) {
    cJSON *o = cJSON_AddObjectToObject(header, e->name);
    bool fine = o && cJSON_AddStringToObject(o, "dtype", rung_dtype_name(e->t.dtype));
    cJSON *shape = fine ? cJSON_AddArrayToObject(o, "shape") : NULL;
    for (int i = 0; shape && i < e->t.ndim; i++) fine &= add_number(shape, e->t.shape[i]);
    cJSON *offsets = shape ? cJSON_AddArrayToObject(o, "data_offsets") : NULL;
    return fine && offsets && add_number(offsets, e->at) && add_number(offsets, e->at + e->bytes);
}

/* Offsets for every tensor, and the header as cJSON prints it, malloc'd. */
static rung_status lay_out(st_writer *w, char **text, rung_err *err) {
    struct entry **order = malloc((w->count + 1) * sizeof *order);
    cJSON *header = cJSON_CreateObject(), *meta = cJSON_Duplicate(w->meta, true);
    rung_status st = RUNG_OK;
    *text = NULL;
    bool fine = order && header && meta;
    if (fine && !cJSON_AddItemToObject(header, "__metadata__", meta)) fine = false;
    if (fine) meta = NULL; /* the header's now */
    for (size_t i = 0; fine && i < w->count; i++) order[i] = &w->entries[i];
    if (fine && w->count) qsort(order, w->count, sizeof *order, by_place);
    w->data_bytes = 0;
    for (size_t i = 0; fine && i < w->count; i++) {
        order[i]->at = w->data_bytes;
        w->data_bytes += order[i]->bytes;
        if (cJSON_GetObjectItemCaseSensitive(header, order[i]->name)) {
            st = rung_fail(err, RUNG_EFORMAT, "%s: tensor %s is there twice", w->path, order[i]->name);
            goto done;
        }
        fine = describe(header, order[i]);
    }
    if (fine) *text = cJSON_PrintUnformatted(header);
    if (!*text) st = no_memory(w, err);
done:
    cJSON_Delete(meta);
    cJSON_Delete(header);
    free(order);
    return st;
}

/* ---- the file ---- */

static rung_status write_at(const st_writer *w, size_t at, const void *bytes, size_t n, rung_err *err) {
    const char *p = bytes;
    while (n > 0) {
        const ssize_t k = pwrite(w->fd, p, n, (off_t)at);
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) return io_error(w, k < 0 ? errno : ENOSPC, err);
        p += k;
        at += (size_t)k;
        n -= (size_t)k;
    }
    return RUNG_OK;
}

/* Is the file at fd the one that was begun, of this size and with these first bytes? */
static bool is_begun(const st_writer *w, const char *head, size_t n) {
    struct stat info;
    if (fstat(w->fd, &info) != 0 || info.st_size < 0 || (size_t)info.st_size != st_writer_bytes(w)) return false;
    char *there = malloc(n);
    const bool same = there && pread(w->fd, there, n, 0) == (ssize_t)n && memcmp(there, head, n) == 0;
    free(there);
    return same;
}

/* Length, text, spaces up to the alignment; malloc'd, *n bytes. */
static char *head_of(const char *text, size_t *n) {
    const size_t len = strlen(text), padded = size_div_up(len, ALIGN) * ALIGN;
    char *head = malloc(LENGTH_BYTES + padded);
    if (!head) return NULL;
    for (int i = 0; i < LENGTH_BYTES; i++) head[i] = (char)(padded >> 8 * i & 255);
    memcpy(head + LENGTH_BYTES, text, len);
    memset(head + LENGTH_BYTES + len, ' ', padded - len);
    *n = LENGTH_BYTES + padded;
    return head;
}

rung_status st_writer_start(st_writer *w, bool *again, rung_err *err) {
    char *text;
    rung_status st;
    RUNG_TRY(lay_out(w, &text, err));
    char *head = head_of(text, &w->data_at);
    cJSON_free(text);
    if (!head) return no_memory(w, err);
    w->fd = open(w->path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (w->fd < 0) {
        st = io_error(w, errno, err);
        goto done;
    }
    st = RUNG_OK;
    if (again) *again = *again && is_begun(w, head, w->data_at);
    if (again && *again) goto done;
    /* A header that is whole means that all of the file is there: the size comes first. */
    int cause = ftruncate(w->fd, 0) != 0 ? errno : 0;
    if (!cause) cause = posix_fallocate(w->fd, 0, (off_t)st_writer_bytes(w));
    st = cause ? io_error(w, cause, err) : write_at(w, 0, head, w->data_at, err);
done:
    free(head);
    return st;
}

rung_status st_writer_put(st_writer *w, size_t id, size_t at, const void *bytes, size_t n, rung_err *err) {
    const struct entry *e = &w->entries[id];
    if (at > e->bytes || n > e->bytes - at)
        return rung_fail(err, RUNG_ESHAPE, "%s: tensor %s has %zu bytes, not %zu at %zu", w->path, e->name, e->bytes, n,
                         at);
    return write_at(w, w->data_at + e->at + at, bytes, n, err);
}

rung_status st_writer_sync(st_writer *w, rung_err *err) {
    return fsync(w->fd) == 0 ? RUNG_OK : io_error(w, errno, err);
}

size_t st_writer_bytes(const st_writer *w) { return w->data_at + w->data_bytes; }
