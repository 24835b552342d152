#define _POSIX_C_SOURCE 200809L /* fdopen, fsync */
#include "assets/outfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ATTEMPTS = 100 };

/* "<folder>/.<name>.<pid>.<attempt>.tmp" in the folder of `path`, so that the rename cannot cross file systems. The
 * name is cut, so that a long one still fits with its ending. */
static int make_temp(const char *path, char **temp) {
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    const size_t cap = strlen(path) + 64;
    *temp = malloc(cap);
    if (!*temp) return -1;
    for (int i = 0; i < ATTEMPTS; i++) {
        snprintf(*temp, cap, "%.*s.%.100s.%ld.%d.tmp", (int)(name - path), path, name, (long)getpid(), i);
        const int fd = open(*temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd >= 0 || errno != EEXIST) return fd;
    }
    return -1;
}

/* The file to write into, or -1 with errno. What is there and is no regular file (a pipe, /dev/null) is written
 * directly: a rename would replace the device. */
static int open_target(rung_outfile *o, const struct stat *st) {
    if (st && !S_ISREG(st->st_mode)) return open(o->path, O_WRONLY | O_CLOEXEC);
    if (st && access(o->path, W_OK) != 0) return -1;
    return make_temp(o->path, &o->temp);
}

rung_status rung_outfile_open(rung_outfile *o, const char *path, rung_err *err) {
    *o = (rung_outfile){0};
    const size_t len = strlen(path);
    struct stat st;
    if (len == 0) return rung_fail(err, RUNG_EIO, "output file: the name is empty");
    const bool exists = stat(path, &st) == 0;
    if (path[len - 1] == '/' || (exists && S_ISDIR(st.st_mode)))
        return rung_fail(err, RUNG_EIO, "%s: is a directory, wanted a file name", path);
    o->path = malloc(len + 1);
    if (!o->path) return rung_fail(err, RUNG_ENOMEM, "%s: out of memory", path);
    memcpy(o->path, path, len + 1);
    const int fd = open_target(o, exists ? &st : NULL);
    if (fd >= 0) o->f = fdopen(fd, "wb");
    if (o->f) return RUNG_OK;
    const int cause = errno;
    if (fd >= 0) {
        close(fd);
    } else { /* nothing was made, so nothing is to be unlinked */
        free(o->temp);
        o->temp = NULL;
    }
    rung_outfile_abort(o);
    return rung_fail(err, RUNG_EIO, "%s: cannot be written: %s", path, strerror(cause));
}

/* 0, or the errno of the first step that failed. A write that failed earlier fails again here, with the same errno;
 * should it not, its reason is lost. */
static int flush_and_close(FILE *f) {
    int cause = fflush(f) != 0 ? errno : ferror(f) ? EIO : 0;
    /* pipes and devices know no fsync */
    if (!cause && fsync(fileno(f)) != 0 && errno != EINVAL && errno != ENOTSUP) cause = errno;
    if (fclose(f) != 0 && !cause) cause = errno;
    return cause;
}

rung_status rung_outfile_commit(rung_outfile *o, rung_err *err) {
    int cause = flush_and_close(o->f);
    o->f = NULL;
    if (!cause && o->temp) {
        if (rename(o->temp, o->path) != 0) {
            cause = errno;
        } else {
            free(o->temp);
            o->temp = NULL;
        }
    }
    rung_status st = RUNG_OK;
    if (cause) st = rung_fail(err, RUNG_EIO, "%s: could not be written: %s", o->path, strerror(cause));
    rung_outfile_abort(o);
    return st;
}

void rung_outfile_abort(rung_outfile *o) {
    if (o->f) fclose(o->f);
    if (o->temp) unlink(o->temp);
    free(o->temp);
    free(o->path);
    *o = (rung_outfile){0};
}
