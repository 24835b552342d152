#define _GNU_SOURCE /* asprintf, flock, nftw, realpath */
#include "diffusion/convert_folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "assets/json.h"
#include "assets/outfile.h"
#include "kernels/tiled_csl.h"

#define STATE "/.convert"

enum { REQUEST_MAX = 64 << 20, OPEN_DIRS = 16 };

static rung_status no_memory(rung_err *err) { return rung_fail(err, RUNG_ENOMEM, "convert: out of memory"); }

static rung_status io_error(const char *path, rung_err *err) {
    return rung_fail(err, RUNG_EIO, "%s: %s", path, strerror(errno));
}

/* ---- names ---- */

static rung_status set_names(convert_folder *f, const char *out, rung_err *err) {
    size_t n = strlen(out);
    while (n > 1 && out[n - 1] == '/') n--;
    const char *last = out + n;
    while (last > out && last[-1] != '/') last--;
    const size_t k = (size_t)(out + n - last);
    if (n == 0 || k == 0 || (k == 1 && *last == '.') || (k == 2 && last[0] == '.' && last[1] == '.'))
        return rung_fail(err, RUNG_EARG, "output is '%s', wanted the name of a new folder", out);
    f->out = strndup(out, n);
    if (!f->out || asprintf(&f->partial, "%s.partial", f->out) < 0) {
        f->partial = NULL;
        return no_memory(err);
    }
    return RUNG_OK;
}

/* The new folder must not lie in the model, under whatever names the two are given. */
static rung_status check_outside(const convert_folder *f, const char *model, rung_err *err) {
    const char *slash = strrchr(f->out, '/');
    char *parent = slash ? strndup(f->out, (size_t)(slash - f->out) + (slash == f->out)) : strdup(".");
    char *there = parent ? realpath(parent, NULL) : NULL, *from = realpath(model, NULL);
    rung_status st = RUNG_OK;
    struct stat info;
    if (!parent)
        st = no_memory(err);
    else if (!there)
        st = rung_fail(err, RUNG_EIO, "%s: the folder for it cannot be reached: %s", f->out, strerror(errno));
    else if (from && stat(from, &info) == 0 && S_ISDIR(info.st_mode)) {
        const size_t n = strlen(from);
        if (strncmp(there, from, n) == 0 && (there[n] == 0 || there[n] == '/'))
            st = rung_fail(err, RUNG_EARG, "%s: lies in the model %s, wanted a place outside of it", f->out, model);
    }
    free(parent);
    free(there);
    free(from);
    return st;
}

/* ---- what the model's files are, so that a run is not continued with others ---- */

static void add_file(FILE *f, const char *path, const char *name) {
    struct stat s;
    if (stat(path, &s) == 0 && S_ISREG(s.st_mode))
        fprintf(f, "%s %jd %jd.%09ld\n", name, (intmax_t)s.st_size, (intmax_t)s.st_mtim.tv_sec, s.st_mtim.tv_nsec);
}

/* Files of the model, and of its parts' folders, in the order of their names. */
static rung_status describe_model(FILE *f, const char *path, int depth, rung_err *err);

static rung_status describe_entries(FILE *f, const char *path, struct dirent **list, int n, int depth, rung_err *err) {
    for (int i = 0; i < n; i++) {
        char *inner = NULL;
        struct stat s;
        if (list[i]->d_name[0] == '.') continue;
        if (asprintf(&inner, "%s/%s", path, list[i]->d_name) < 0) return no_memory(err);
        rung_status st = RUNG_OK;
        if (depth > 0 && stat(inner, &s) == 0 && S_ISDIR(s.st_mode))
            st = describe_model(f, inner, depth - 1, err);
        else
            add_file(f, inner, inner);
        free(inner);
        RUNG_TRY(st);
    }
    return RUNG_OK;
}

static rung_status describe_model(FILE *f, const char *path, int depth, rung_err *err) {
    struct stat s;
    struct dirent **list = NULL;
    if (stat(path, &s) != 0) return io_error(path, err);
    if (!S_ISDIR(s.st_mode)) {
        add_file(f, path, path);
        return RUNG_OK;
    }
    const int n = scandir(path, &list, NULL, alphasort);
    if (n < 0) return io_error(path, err);
    const rung_status st = describe_entries(f, path, list, n, depth, err);
    for (int i = 0; i < n; i++) free(list[i]);
    free(list);
    return st;
}

/* The text of the request file, malloc'd. */
static rung_status full_request(char **text, const char *request, const char *model, rung_err *err) {
    size_t size;
    char *from = realpath(model, NULL);
    *text = NULL;
    FILE *f = open_memstream(text, &size);
    rung_status st = f ? RUNG_OK : no_memory(err);
    if (f) {
        fprintf(f, "rung %s convert\n%s\n", RUNG_VERSION, request);
        st = describe_model(f, from ? from : model, 1, err);
        if (fclose(f) != 0 && !st) st = no_memory(err);
    }
    free(from);
    if (st) {
        free(*text);
        *text = NULL;
    }
    return st;
}

/* ---- opening ---- */

static rung_status make_folder(const char *path, rung_err *err) {
    struct stat s;
    if (mkdir(path, 0777) == 0 || (errno == EEXIST && stat(path, &s) == 0 && S_ISDIR(s.st_mode))) return RUNG_OK;
    return rung_fail(err, RUNG_EIO, "%s: cannot be made: %s", path, strerror(errno));
}

static rung_status write_request(const convert_folder *f, const char *path, const char *text, rung_err *err) {
    const size_t n = strlen(text);
    if (pwrite(f->lock, text, n, 0) == (ssize_t)n && fsync(f->lock) == 0) return RUNG_OK;
    return io_error(path, err);
}

/* Is an interrupted run of the same request there? */
static rung_status compare_request(convert_folder *f, const char *path, const char *text, rung_err *err) {
    char *found = NULL;
    size_t n = 0;
    RUNG_TRY(rung_file_read(path, REQUEST_MAX, &found, &n, err));
    f->again = n > 0;
    const bool same = n == 0 || strcmp(found, text) == 0;
    free(found);
    if (same) return n == 0 ? write_request(f, path, text, err) : RUNG_OK;
    return rung_fail(err, RUNG_EARG,
                     "%s: holds another conversion that was interrupted (other options, or the model has changed): "
                     "finish that one, or remove the folder",
                     f->partial);
}

static rung_status open_state(convert_folder *f, const char *text, rung_err *err) {
    char *state = NULL, *path = NULL, *journal = NULL;
    struct stat s;
    rung_status st = RUNG_OK;
    if (asprintf(&state, "%s" STATE, f->partial) < 0) state = NULL;
    if (asprintf(&path, "%s" STATE "/request", f->partial) < 0) path = NULL;
    if (asprintf(&journal, "%s" STATE "/journal", f->partial) < 0) journal = NULL;
    if (!state || !path || !journal) RUNG_TRY_GOTO(st, done, no_memory(err));
    if (lstat(f->partial, &s) == 0 && (!S_ISDIR(s.st_mode) || stat(state, &s) != 0))
        RUNG_TRY_GOTO(st, done,
                      rung_fail(err, RUNG_EARG, "%s: is in the way, and is no interrupted conversion", f->partial));
    RUNG_TRY_GOTO(st, done, make_folder(f->partial, err));
    RUNG_TRY_GOTO(st, done, make_folder(state, err));
    f->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (f->lock < 0) RUNG_TRY_GOTO(st, done, io_error(path, err));
    if (flock(f->lock, LOCK_EX | LOCK_NB) != 0) {
        close(f->lock);
        f->lock = -1;
        RUNG_TRY_GOTO(st, done, rung_fail(err, RUNG_EARG, "%s: another run is at work on it", f->partial));
    }
    RUNG_TRY_GOTO(st, done, compare_request(f, path, text, err));
    f->journal = fopen(journal, "a+e");
    if (!f->journal) st = io_error(journal, err);
done:
    free(state);
    free(path);
    free(journal);
    return st;
}

rung_status convert_folder_open(convert_folder *f, const char *out, const char *model, const char *request,
                                rung_err *err) {
    char *text = NULL;
    struct stat s;
    *f = (convert_folder){.lock = -1};
    rung_status st;
    RUNG_TRY_GOTO(st, done, set_names(f, out, err));
    if (lstat(f->out, &s) == 0)
        RUNG_TRY_GOTO(st, done,
                      rung_fail(err, RUNG_EARG, "%s: is there already, wanted the name of a new folder", out));
    RUNG_TRY_GOTO(st, done, check_outside(f, model, err));
    RUNG_TRY_GOTO(st, done, full_request(&text, request, model, err));
    st = open_state(f, text, err);
done:
    free(text);
    if (st && f->lock >= 0 && !f->again) convert_folder_remove(f); /* this call made it */
    if (st) convert_folder_close(f);
    return st;
}

void convert_folder_close(convert_folder *f) {
    if (f->journal) fclose(f->journal);
    if (f->lock >= 0) close(f->lock);
    free(f->out);
    free(f->partial);
    *f = (convert_folder){.lock = -1};
}

/* ---- the end ---- */

static int remove_entry(const char *path, const struct stat *s, int kind, struct FTW *at) {
    (void)s, (void)kind, (void)at;
    return remove(path);
}

void convert_folder_remove(convert_folder *f) {
    if (f->partial) nftw(f->partial, remove_entry, OPEN_DIRS, FTW_DEPTH | FTW_PHYS);
}

/* The folder appears with its state in it, which then goes: whenever this ends, what is called OUT is whole. */
rung_status convert_folder_finish(convert_folder *f, rung_err *err) {
    char *state = NULL;
    struct stat s;
    if (asprintf(&state, "%s" STATE, f->out) < 0) return no_memory(err);
    rung_status st = RUNG_OK;
    if (lstat(f->out, &s) == 0)
        st = rung_fail(err, RUNG_EIO, "%s: somebody else has made it meanwhile", f->out);
    else if (rename(f->partial, f->out) != 0)
        st = io_error(f->out, err);
    else
        nftw(state, remove_entry, OPEN_DIRS, FTW_DEPTH | FTW_PHYS);
    free(state);
    return st;
}

rung_status convert_folder_path(const convert_folder *f, const char *part, const char *name, char **path,
                                rung_err *err) {
    char *folder = NULL;
    *path = NULL;
    if (asprintf(&folder, "%s%s%s", f->partial, *part ? "/" : "", part) < 0) return no_memory(err);
    rung_status st = make_folder(folder, err);
    if (!st && asprintf(path, "%s/%s", folder, name) < 0) st = no_memory(err);
    free(folder);
    return st;
}

/* ---- the plan ---- */

rung_status convert_plan_save(const convert_folder *f, const convert_plan *p, rung_err *err) {
    char *path;
    rung_outfile o;
    RUNG_TRY(convert_folder_path(f, ".convert", "plan", &path, err));
    rung_status st = rung_outfile_open(&o, path, err);
    free(path);
    if (st) return st;
    for (size_t i = 0; i < p->count; i++)
        fprintf(o.f, "%d %d %zu %a\n", (int)p->items[i].to, (int)p->items[i].form, p->items[i].held,
                p->items[i].sparsity);
    return rung_outfile_commit(&o, err);
}

/* A tile is filled up by less than one unit. */
static size_t most_items(const rung_tensor *t) {
    return rung_tensor_count(t) + (RUNG_CSL_UNIT - 1) * rung_csl_tiles(t->ndim ? t->shape[0] : 1, rung_tensor_row(t));
}

/* It was written whole, by this program, for this model: the request says so. */
rung_status convert_plan_load(const convert_folder *f, convert_plan *p, bool *found, rung_err *err) {
    char *path;
    RUNG_TRY(convert_folder_path(f, ".convert", "plan", &path, err));
    FILE *in = fopen(path, "re");
    *found = in != NULL;
    rung_status st = RUNG_OK;
    for (size_t i = 0; in && !st && i < p->count; i++) {
        convert_item *it = &p->items[i];
        int to, form;
        if (fscanf(in, "%d %d %zu %la", &to, &form, &it->held, &it->sparsity) != 4 || to < 0 || to >= RUNG_DTYPES ||
            form < 0 || form > RUNG_FORM_TILED_CSL || it->held > most_items(&it->source))
            st = rung_fail(err, RUNG_EFORMAT, "%s: line %zu is damaged: remove %s", path, i + 1, f->partial);
        if (st) break;
        it->to = (rung_dtype)to;
        it->form = (rung_form)form;
    }
    if (in) fclose(in);
    free(path);
    return st;
}

/* ---- the journal ---- */

static void read_line(convert_plan *p, const char *line) {
    size_t i;
    weight_sums s;
    unsigned long long held;
    int end = 0;
    if (sscanf(line, "%zu %llu %la %la %la %la;%n", &i, &held, &s.error, &s.square, &s.output_error, &s.output_square,
               &end) != 6 ||
        !end || i >= p->count)
        return; /* the end of what an interrupted run wrote */
    s.held = held;
    p->items[i].sums = s;
    p->items[i].done = true;
}

rung_status convert_journal_read(convert_folder *f, convert_plan *p, rung_err *err) {
    char *line = NULL;
    size_t cap = 0;
    rewind(f->journal);
    while (getline(&line, &cap, f->journal) > 0) read_line(p, line);
    const bool failed = ferror(f->journal);
    free(line);
    return failed ? rung_fail(err, RUNG_EIO, "%s" STATE "/journal: cannot be read", f->partial) : RUNG_OK;
}

rung_status convert_journal_add(convert_folder *f, const convert_plan *p, size_t i, rung_err *err) {
    const weight_sums *s = &p->items[i].sums;
    /* a line starts afresh, whatever an interrupted run has left at the end */
    fprintf(f->journal, "\n%zu %llu %a %a %a %a;\n", i, (unsigned long long)s->held, s->error, s->square,
            s->output_error, s->output_square);
    if (fflush(f->journal) == 0) return RUNG_OK;
    return rung_fail(err, RUNG_EIO, "%s" STATE "/journal: %s", f->partial, strerror(errno));
}
