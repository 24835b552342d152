#define _POSIX_C_SOURCE 200809L /* strdup, fnmatch */
#include "assets/weights.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "assets/json.h"
#include "assets/safetensors.h"
#include "assets/tensor_cut.h"
#include "assets/weights_pieces.h"
#include "assets/weights_view.h"
#include "kernels/base/hash.h"
#include "kernels/base/size.h"

struct entry {
    char *name;
    rung_tensor tensor;
    bool used;
};

struct rung_weights {
    char *path;
    rung_safetensors **files;
    size_t n_files;
    void **owned; /* row scales that are not f32 in the file, rows of sparse tensors, merged tensors */
    size_t n_owned;
    struct entry *entries; /* sorted by name once open */
    size_t count, cap;
};

static rung_status no_memory(const char *path, rung_err *err) {
    return rung_fail(err, RUNG_ENOMEM, "%s: out of memory", path);
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct entry *)a)->name, ((const struct entry *)b)->name);
}

rung_status weights_add(rung_weights *w, const char *name, const rung_tensor *t, rung_err *err) {
    if (w->count == w->cap) {
        const size_t cap = w->cap ? 2 * w->cap : 256;
        struct entry *grown = realloc(w->entries, cap * sizeof *grown);
        if (!grown) return no_memory(w->path, err);
        w->entries = grown;
        w->cap = cap;
    }
    char *copy = strdup(name);
    if (!copy) return no_memory(w->path, err);
    w->entries[w->count] = (struct entry){.name = copy, .tensor = *t};
    w->entries[w->count++].tensor.name = copy;
    return RUNG_OK;
}

bool weights_keep(rung_weights *w, void *memory) {
    void **grown = realloc(w->owned, (w->n_owned + 1) * sizeof *grown);
    if (!grown) return false;
    w->owned = grown;
    w->owned[w->n_owned++] = memory;
    return true;
}

rung_status weights_replace(rung_weights *w, size_t i, const rung_tensor *t, void *owned, rung_err *err) {
    if (!weights_keep(w, owned)) return no_memory(w->path, err);
    w->entries[i].tensor = *t;
    w->entries[i].tensor.data = owned;
    return RUNG_OK;
}

rung_status weights_cut_rows(const rung_weights *w, const char *name, const rung_tensor *t, size_t i, size_t parts,
                             rung_tensor *out, rung_err *err) {
    char shape[100];
    const size_t rows = t->ndim < 1 ? 0 : t->shape[0] / parts;
    if (t->ndim >= 1 && t->shape[0] % parts == 0 && tensor_rows(t, (rung_share){i * rows, rows}, out)) return RUNG_OK;
    return rung_fail(err, RUNG_ESHAPE, "%s: tensor %s is %s, which cannot be cut into %zu parts", w->path, name,
                     rung_tensor_shape_text(t, shape, sizeof shape), parts);
}

const rung_tensor *weights_file_tensor(const rung_weights *w, const char *name) {
    for (size_t i = 0; i < w->n_files; i++) {
        const rung_tensor *t = rung_safetensors_find(w->files[i], name);
        if (t) return t;
    }
    return NULL;
}

static rung_status add_file(rung_weights *w, const rung_safetensors *f, const weights_view *view, rung_err *err) {
    for (size_t i = 0; i < rung_safetensors_count(f); i++) {
        char name[PIECES_NAME];
        rung_tensor t;
        RUNG_TRY(pieces_read(w, rung_safetensors_name(f, i), rung_safetensors_tensor(f, i), name, &t, err));
        if (!*name) continue;
        RUNG_TRY(view->map ? view->map(w, name, &t, view->arg, err) : weights_add(w, name, &t, err));
    }
    return RUNG_OK;
}

/* ---- files ---- */

static rung_status open_file(rung_weights *w, const char *path, rung_err *err) {
    rung_safetensors **grown = realloc(w->files, (w->n_files + 1) * sizeof *grown);
    if (!grown) return no_memory(w->path, err);
    w->files = grown;
    RUNG_TRY(rung_safetensors_open(&w->files[w->n_files], path, err));
    w->n_files++;
    return RUNG_OK;
}

/* A shard lies beside its index: a plain file name, nothing that leads elsewhere. */
static bool plain_name(const char *s) { return *s && !strchr(s, '/') && strcmp(s, ".") != 0 && strcmp(s, "..") != 0; }

/* The open shard of that name, opened when it is new; `path` is the index's. */
static rung_status shard(rung_weights *w, const char *name, const rung_safetensors **out, rung_err *err) {
    const char *slash = strrchr(w->path, '/');
    const int folder = slash ? (int)(slash - w->path + 1) : 0;
    const size_t cap = strlen(w->path) + strlen(name) + 1;
    char *path = malloc(cap);
    if (!path) return no_memory(w->path, err);
    snprintf(path, cap, "%.*s%s", folder, w->path, name);
    rung_status st = RUNG_OK;
    size_t i = 0;
    while (i < w->n_files && strcmp(rung_safetensors_path(w->files[i]), path) != 0) i++;
    if (i == w->n_files) st = open_file(w, path, err);
    if (!st) *out = w->files[i];
    free(path);
    return st;
}

static rung_status open_shards(rung_weights *w, const cJSON *index, rung_err *err) {
    enum { MAX_SHARDS = 1000 };
    const cJSON *map = cJSON_GetObjectItemCaseSensitive(index, "weight_map");
    if (!cJSON_IsObject(map)) return rung_fail(err, RUNG_EFORMAT, "%s: has no object \"weight_map\"", w->path);
    for (const cJSON *v = map->child; v; v = v->next) {
        const rung_safetensors *file = NULL;
        if (!cJSON_IsString(v) || !plain_name(v->valuestring))
            return rung_fail(err, RUNG_EFORMAT, "%s: tensor %.100s is in \"%.60s\", wanted a plain file name", w->path,
                             v->string, cJSON_IsString(v) ? v->valuestring : "");
        RUNG_TRY(shard(w, v->valuestring, &file, err));
        if (w->n_files > MAX_SHARDS)
            return rung_fail(err, RUNG_EFORMAT, "%s: names more than %d files", w->path, MAX_SHARDS);
        if (!rung_safetensors_find(file, v->string))
            return rung_fail(err, RUNG_EFORMAT, "%s: tensor %.100s should be in %s and is not", w->path, v->string,
                             v->valuestring);
    }
    return RUNG_OK;
}

static rung_status open_files(rung_weights *w, rung_err *err) {
    static const char ending[] = ".json";
    const size_t n = strlen(w->path);
    if (n < sizeof ending || strcmp(w->path + n - (sizeof ending - 1), ending) != 0) return open_file(w, w->path, err);
    cJSON *index;
    RUNG_TRY(rung_json_load(&index, w->path, err));
    const rung_status st = open_shards(w, index, err);
    cJSON_Delete(index);
    return st;
}

static bool may_go_unused(const char *name, const char *const *patterns) {
    for (; patterns && *patterns; patterns++)
        if (fnmatch(*patterns, name, 0) == 0) return true;
    return fnmatch("*position_ids", name, 0) == 0; /* a buffer: 0, 1, 2 ... */
}

static rung_status finish(rung_weights *w, const weights_view *view, rung_err *err) {
    if (w->count) qsort(w->entries, w->count, sizeof *w->entries, by_name);
    for (size_t i = 0; i < w->count; i++) {
        if (i > 0 && strcmp(w->entries[i - 1].name, w->entries[i].name) == 0)
            return rung_fail(err, RUNG_EFORMAT, "%s: tensor %s is there twice", w->path, w->entries[i].name);
        w->entries[i].used = may_go_unused(w->entries[i].name, view->unused);
    }
    return RUNG_OK;
}

rung_status weights_open_view(rung_weights **out, const char *path, const weights_view *view, rung_err *err) {
    *out = NULL;
    rung_weights *w = calloc(1, sizeof *w);
    if (!w) return no_memory(path, err);
    rung_status st = RUNG_OK;
    w->path = strdup(path);
    if (!w->path) {
        st = no_memory(path, err);
        goto done;
    }
    RUNG_TRY_GOTO(st, done, open_files(w, err));
    for (size_t i = 0; i < w->n_files; i++) RUNG_TRY_GOTO(st, done, add_file(w, w->files[i], view, err));
    RUNG_TRY_GOTO(st, done, finish(w, view, err));
    *out = w;
    w = NULL;
done:
    rung_weights_close(&w);
    return st;
}

rung_status rung_weights_open(rung_weights **out, const char *path, rung_err *err) {
    return weights_open_view(out, path, &(weights_view){0}, err);
}

void rung_weights_close(rung_weights **wp) {
    rung_weights *w = *wp;
    *wp = NULL;
    if (!w) return;
    for (size_t i = 0; i < w->count; i++) free(w->entries[i].name);
    free(w->entries);
    for (size_t i = 0; i < w->n_owned; i++) free(w->owned[i]);
    free(w->owned);
    for (size_t i = 0; i < w->n_files; i++) rung_safetensors_close(&w->files[i]);
    free(w->files);
    free(w->path);
    free(w);
}

size_t rung_weights_count(const rung_weights *w) { return w->count; }
const char *rung_weights_name(const rung_weights *w, size_t i) { return w->entries[i].name; }
const rung_tensor *rung_weights_tensor(const rung_weights *w, size_t i) { return &w->entries[i].tensor; }
const char *rung_weights_path(const rung_weights *w) { return w->path; }

void rung_weights_release(const rung_weights *w, const void *data, size_t bytes) {
    for (size_t i = 0; i < w->n_files; i++) rung_safetensors_release(w->files[i], data, bytes);
}

uint64_t rung_weights_hash(const rung_weights *w) {
    uint64_t h = w->n_files;
    for (size_t i = 0; i < w->n_files; i++) h = rung_hash_word(h, rung_safetensors_hash(w->files[i]));
    return h;
}

static struct entry *find(const rung_weights *w, const char *name) {
    const struct entry key = {.name = (char *)name}; /* the key's name is only read */
    return w->count ? bsearch(&key, w->entries, w->count, sizeof key, by_name) : NULL;
}

const rung_tensor *rung_weights_find(rung_weights *w, const char *name) {
    struct entry *e = find(w, name);
    if (!e) return NULL;
    e->used = true;
    return &e->tensor;
}

bool rung_weights_has(const rung_weights *w, const char *name) { return find(w, name) != NULL; }

rung_status rung_weights_check_used(const rung_weights *w, rung_err *err) {
    enum { NAMED = 3 };
    char names[300] = "";
    size_t surplus = 0, at = 0;
    for (size_t i = 0; i < w->count; i++) {
        if (w->entries[i].used || surplus++ >= NAMED || at >= sizeof names) continue;
        at += (size_t)snprintf(names + at, sizeof names - at, "%s%.90s", at ? ", " : "", w->entries[i].name);
    }
    if (surplus == 0) return RUNG_OK;
    return rung_fail(err, RUNG_EFORMAT, "%s: %zu tensors that this network does not have: %s%s", w->path, surplus,
                     names, surplus > NAMED ? ", ..." : "");
}
