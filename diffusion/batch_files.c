#define _GNU_SOURCE /* asprintf, flock, open_memstream */
#include "diffusion/batch_files.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "assets/json.h"
#include "assets/outfile.h"
#include "vae/png.h"

enum { NAME_BYTES = 80, MANIFEST_MAX = 1 << 30 };

static rung_status io_error(const char *path, rung_err *err) {
    return rung_fail(err, RUNG_EIO, "%s: %s", path, strerror(errno));
}

static rung_status no_memory(rung_err *err) { return rung_fail(err, RUNG_ENOMEM, "batch: out of memory"); }

/* The placeholder that `s` starts with: its length, 0 for none. */
static size_t placeholder(const char *s) {
    static const char *const known[] = {"{line}", "{index}", "{seed}", "{prompt}"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strncmp(s, known[i], strlen(known[i])) == 0) return strlen(known[i]);
    return 0;
}

rung_status batch_make_folder(const char *folder, rung_err *err) {
    char *path = strdup(folder);
    rung_status result = RUNG_OK;
    if (!path || !*path) result = path ? rung_fail(err, RUNG_EARG, "a folder's name is empty") : no_memory(err);
    for (char *s = path + 1; !result; s++) {
        if (*s && *s != '/') continue;
        const char end = *s;
        *s = 0;
        struct stat st;
        if (mkdir(path, 0777) != 0 && (stat(path, &st) != 0 || !S_ISDIR(st.st_mode)))
            result = rung_fail(err, RUNG_EIO, "%s: cannot be made a folder: %s", path, strerror(errno));
        *s = end;
        if (!end) break;
    }
    free(path);
    return result;
}

rung_status batch_folder(const char *tmpl, char **folder, rung_err *err) {
    const char *slash = strrchr(tmpl, '/');
    for (const char *s = strchr(tmpl, '{'); s; s = strchr(s + 1, '{'))
        if (!placeholder(s) || s < slash)
            return rung_fail(err, RUNG_EARG,
                             "--output is '%s': {line}, {index}, {seed} and {prompt} can stand in the "
                             "file's name",
                             tmpl);
    if (!tmpl[0] || (slash && !slash[1]))
        return rung_fail(err, RUNG_EARG, "--output is '%s', wanted a file name", tmpl);
    *folder = slash ? strndup(tmpl, (size_t)(slash - tmpl) + (slash == tmpl)) : strdup(".");
    if (!*folder) return no_memory(err);
    const rung_status st = batch_make_folder(*folder, err);
    if (!st) return RUNG_OK;
    free(*folder);
    *folder = NULL;
    return st;
}

/* Never a dot or a slash, and never half a UTF-8 character. */
static void put_safe(FILE *f, const char *prompt) {
    size_t n = 0;
    for (const unsigned char *s = (const unsigned char *)prompt; *s; s++, n++) {
        if (n >= NAME_BYTES && (*s & 0xc0) != 0x80) break;
        fputc(isalnum(*s) || *s >= 0x80 ? *s : '_', f);
    }
}

char *batch_name(const char *tmpl, size_t line, size_t index, uint64_t seed, const char *prompt) {
    char *name = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&name, &size);
    if (!f) return NULL;
    for (const char *s = tmpl; *s;) {
        const size_t n = placeholder(s);
        if (!n)
            fputc(*s, f);
        else if (s[1] == 'l')
            fprintf(f, "%04zu", line);
        else if (s[1] == 'i')
            fprintf(f, "%zu", index);
        else if (s[1] == 's')
            fprintf(f, "%llu", (unsigned long long)seed);
        else
            put_safe(f, prompt);
        s += n ? n : 1;
    }
    if (fclose(f) == 0) return name;
    free(name);
    return NULL;
}

/* Temporary pictures and claims: nobody else is at work when this is called. */
static void remove_remains(const char *folder) {
    DIR *d = opendir(folder);
    for (struct dirent *e; d && (e = readdir(d));) {
        const char *ending = strrchr(e->d_name, '.');
        if (e->d_name[0] == '.' && strstr(e->d_name, ".png.") && (!strcmp(ending, ".tmp") || !strcmp(ending, ".claim")))
            unlinkat(dirfd(d), e->d_name, 0);
    }
    if (d) closedir(d);
}

rung_status batch_lock(batch_run_lock *l, const char *folder, rung_err *err) {
    char *path = NULL;
    struct stat st;
    *l = (batch_run_lock){.fd = -1};
    if (asprintf(&path, "%s/.batch.lock", folder) < 0) return no_memory(err);
    l->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    bool ok = l->fd >= 0;
    if (ok && flock(l->fd, LOCK_EX | LOCK_NB) == 0) {
        l->first = true;
        remove_remains(folder);
        ok = futimens(l->fd, NULL) == 0;
    }
    ok = ok && flock(l->fd, LOCK_SH) == 0 && fstat(l->fd, &st) == 0;
    if (ok)
        l->start = st.st_mtim;
    else
        io_error(path, err);
    free(path);
    if (ok) return RUNG_OK;
    batch_unlock(l);
    return RUNG_EIO;
}

void batch_unlock(batch_run_lock *l) {
    if (l->fd >= 0) close(l->fd);
    l->fd = -1;
}

bool batch_picture_is_of_run(const char *path, const batch_run_lock *l) {
    struct stat st;
    if (stat(path, &st) != 0) return false;
    return st.st_mtim.tv_sec > l->start.tv_sec ||
           (st.st_mtim.tv_sec == l->start.tv_sec && st.st_mtim.tv_nsec >= l->start.tv_nsec);
}

bool batch_picture_is_done(const char *path, const char *parameters) {
    uint8_t *bytes = NULL;
    char *found = NULL;
    size_t w, h, channels;
    const bool done = rung_png_read(path, &bytes, &w, &h, &channels, &found, NULL) == RUNG_OK && found &&
                      strcmp(found, parameters) == 0;
    free(bytes);
    free(found);
    return done;
}

static char *claim_path(const char *path) {
    const char *slash = strrchr(path, '/');
    const int folder = slash ? (int)(slash + 1 - path) : 0;
    char *claim = NULL;
    return asprintf(&claim, "%.*s.%s.claim", folder, path, path + folder) < 0 ? NULL : claim;
}

rung_status batch_claim(const char *path, int *fd, rung_err *err) {
    char *claim = claim_path(path);
    rung_status st = claim ? RUNG_OK : no_memory(err);
    *fd = -1;
    while (!st && *fd < 0) {
        struct stat mine, there;
        *fd = open(claim, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        if (*fd < 0) {
            st = io_error(claim, err);
        } else if (flock(*fd, LOCK_EX | LOCK_NB) != 0) {
            close(*fd);
            *fd = -1;
            break; /* another process draws it */
        } else if (fstat(*fd, &mine) != 0 || stat(claim, &there) != 0 || mine.st_ino != there.st_ino) {
            close(*fd); /* its owner released it between our open and our lock: the name is another file now */
            *fd = -1;
        }
    }
    free(claim);
    return st;
}

void batch_release(const char *path, int fd) {
    char *claim = claim_path(path);
    if (claim) unlink(claim); /* while the lock is still held */
    close(fd);
    free(claim);
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static bool contains(char *const *sorted, size_t count, const char *name) {
    return count && bsearch(&name, sorted, count, sizeof *sorted, by_name);
}

/* The "output" of a whole line of JSON, malloc'd; NULL for anything else. */
static char *output_of(const char *line, size_t n) {
    cJSON *o = cJSON_ParseWithLength(line, n);
    const char *output = cJSON_GetStringValue(cJSON_GetObjectItem(o, "output"));
    char *copy = output ? strdup(output) : NULL;
    cJSON_Delete(o);
    return copy;
}

/* One line of the manifest: its text lies in the file's. */
struct entry {
    char *output; /* owned */
    const char *text;
    size_t at;
};

/* Of one output, the line that came last stands first. */
static int by_output(const void *a, const void *b) {
    const struct entry *x = a, *y = b;
    const int c = strcmp(x->output, y->output);
    return c ? c : (x->at < y->at) - (x->at > y->at);
}

static int by_line(const void *a, const void *b) {
    const struct entry *x = a, *y = b;
    return (x->at > y->at) - (x->at < y->at);
}

/* Whole lines, the last one of each output, without those of `redo`; sorted by output. `text` is cut at its lines. */
static size_t list_entries(struct entry *list, char *text, char *const *redo, size_t redo_count) {
    size_t n = 0, kept = 0, at = 0;
    for (char *end; (end = strchr(text, '\n')); text = end + 1) {
        *end = 0;
        char *output = output_of(text, (size_t)(end - text));
        if (output) list[n++] = (struct entry){output, text, at++};
    }
    qsort(list, n, sizeof *list, by_output);
    for (size_t i = 0; i < n; i++) {
        const bool older = kept && strcmp(list[kept - 1].output, list[i].output) == 0;
        if (older || contains(redo, redo_count, list[i].output))
            free(list[i].output);
        else
            list[kept++] = list[i];
    }
    return kept;
}

static rung_status rewrite(const char *path, const struct entry *list, size_t count, rung_err *err) {
    rung_outfile o;
    RUNG_TRY(rung_outfile_open(&o, path, err));
    for (size_t i = 0; i < count; i++) fprintf(o.f, "%s\n", list[i].text);
    return rung_outfile_commit(&o, err);
}

rung_status batch_manifest_open(batch_manifest *m, const char *folder, bool repair, char *const *redo,
                                size_t redo_count, rung_err *err) {
    char *text = NULL;
    struct entry *list = NULL;
    size_t bytes, lines = 0;
    rung_status st = RUNG_OK;
    *m = (batch_manifest){0};
    if (asprintf(&m->path, "%s/manifest.jsonl", folder) < 0) {
        m->path = NULL;
        return no_memory(err);
    }
    if (access(m->path, F_OK) != 0) return RUNG_OK;
    RUNG_TRY_GOTO(st, done, rung_file_read(m->path, MANIFEST_MAX, &text, &bytes, err));
    for (size_t i = 0; i < bytes; i++) lines += text[i] == '\n';
    list = calloc(lines + 1, sizeof *list);
    m->outputs = calloc(lines + 1, sizeof *m->outputs);
    if (!list || !m->outputs) RUNG_TRY_GOTO(st, done, no_memory(err));
    m->count = list_entries(list, text, redo, repair ? redo_count : 0);
    for (size_t i = 0; i < m->count; i++) m->outputs[i] = list[i].output;
    if (repair) {
        qsort(list, m->count, sizeof *list, by_line);
        st = rewrite(m->path, list, m->count, err);
    }
done:
    free(text);
    free(list);
    if (st) batch_manifest_close(m);
    return st;
}

bool batch_manifest_has(const batch_manifest *m, const char *output) { return contains(m->outputs, m->count, output); }

rung_status batch_manifest_append(const batch_manifest *m, const char *json, rung_err *err) {
    char *line = NULL;
    const int n = asprintf(&line, "%s\n", json);
    if (n < 0) return no_memory(err);
    const int fd = open(m->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    rung_status st = fd >= 0 && write(fd, line, (size_t)n) == n ? RUNG_OK : io_error(m->path, err);
    if (fd >= 0 && close(fd) != 0 && !st) st = io_error(m->path, err);
    free(line);
    return st;
}

void batch_manifest_close(batch_manifest *m) {
    for (size_t i = 0; i < m->count; i++) free(m->outputs[i]);
    free(m->outputs);
    free(m->path);
    *m = (batch_manifest){0};
}
