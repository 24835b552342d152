/* tests/test_outfile.c - a file is whole or untouched; nothing is left beside it. */
#define _POSIX_C_SOURCE 200809L /* mkdir, rmdir, symlink */
#include <dirent.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "assets/outfile.h"
#include "tests/check.h"

#define DIR_NAME "test_outfile.dir"

static bool holds(const char *path, const char *text) {
    char buf[100] = {0};
    FILE *f = fopen(path, "rb");
    if (!f) return false;
    const size_t n = fread(buf, 1, sizeof buf - 1, f);
    fclose(f);
    return n == strlen(text) && memcmp(buf, text, n) == 0;
}

static int entries(void) {
    int n = 0;
    DIR *d = opendir(DIR_NAME);
    for (struct dirent *e; d && (e = readdir(d));) n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    if (d) closedir(d);
    return n;
}

static void write_and_replace(void) {
    rung_err e = {0};
    rung_outfile o;
    CHECK(rung_outfile_open(&o, DIR_NAME "/a", &e) == RUNG_OK && entries() == 1 && access(DIR_NAME "/a", F_OK) != 0);
    fputs("one", o.f);
    CHECK(rung_outfile_commit(&o, &e) == RUNG_OK && holds(DIR_NAME "/a", "one") && entries() == 1);
    rung_outfile_abort(&o);
    CHECK(rung_outfile_open(&o, DIR_NAME "/a", &e) == RUNG_OK);
    fputs("two", o.f);
    CHECK(holds(DIR_NAME "/a", "one"));
    rung_outfile_abort(&o);
    CHECK(holds(DIR_NAME "/a", "one") && entries() == 1);
    CHECK(rung_outfile_open(&o, DIR_NAME "/a", &e) == RUNG_OK);
    fputs("three", o.f);
    CHECK(rung_outfile_commit(&o, &e) == RUNG_OK && holds(DIR_NAME "/a", "three") && entries() == 1);
    rung_outfile_abort(&(rung_outfile){0});
}

static void two_at_once(void) {
    rung_err e = {0};
    rung_outfile a, b;
    CHECK(rung_outfile_open(&a, DIR_NAME "/a", &e) == RUNG_OK && rung_outfile_open(&b, DIR_NAME "/a", &e) == RUNG_OK);
    fputs("first", a.f);
    fputs("second", b.f);
    CHECK(rung_outfile_commit(&a, &e) == RUNG_OK && holds(DIR_NAME "/a", "first"));
    CHECK(rung_outfile_commit(&b, &e) == RUNG_OK && holds(DIR_NAME "/a", "second") && entries() == 1);
}

static bool open_fails(const char *path, const char *reason) {
    rung_err e = {0};
    rung_outfile o;
    const bool fine =
        rung_outfile_open(&o, path, &e) == RUNG_EIO && strstr(e.msg, reason) && !o.f && !o.path && !o.temp;
    if (!fine) fprintf(stderr, "  %s: %s\n", path, e.msg);
    return fine;
}

static void refusals(void) {
    char longest[300];
    memset(longest, 'x', 299);
    longest[299] = 0;
    CHECK(open_fails("", "empty"));
    CHECK(open_fails(DIR_NAME, "is a directory"));
    CHECK(open_fails(DIR_NAME "/new/", "is a directory"));
    CHECK(open_fails(DIR_NAME "/none/a", "No such file"));
    CHECK(entries() == 1);
    rung_err e = {0};
    rung_outfile o;
    CHECK(rung_outfile_open(&o, longest, &e) == RUNG_OK); /* the temporary name fits, the file's own does not */
    CHECK(rung_outfile_commit(&o, &e) == RUNG_EIO && strstr(e.msg, "too long"));
}

/* Through links, so that a broken outfile replaces the link and not the device. */
static void devices_are_written_directly(void) {
    struct stat st;
    rung_err e = {0};
    rung_outfile o;
    if (access("/dev/full", W_OK) != 0) return;
    CHECK(symlink("/dev/full", DIR_NAME "/full") == 0 && symlink("/dev/null", DIR_NAME "/null") == 0);
    CHECK(rung_outfile_open(&o, DIR_NAME "/full", &e) == RUNG_OK && !o.temp);
    for (int i = 0; i < 10000; i++) fputs("0123456789", o.f);
    CHECK(rung_outfile_commit(&o, &e) == RUNG_EIO && strstr(e.msg, "/full: could not be written: No space"));
    e = (rung_err){0};
    CHECK(rung_outfile_open(&o, DIR_NAME "/null", &e) == RUNG_OK);
    fputs("x", o.f);
    CHECK(rung_outfile_commit(&o, &e) == RUNG_OK && stat(DIR_NAME "/null", &st) == 0 && S_ISCHR(st.st_mode));
    remove(DIR_NAME "/full");
    remove(DIR_NAME "/null");
}

/* Also what an earlier run that failed has left. */
static void remove_folder(void) {
    DIR *d = opendir(DIR_NAME);
    for (struct dirent *e; d && (e = readdir(d));) {
        char path[400];
        snprintf(path, sizeof path, DIR_NAME "/%s", e->d_name);
        remove(path);
    }
    if (d) closedir(d);
    rmdir(DIR_NAME);
}

int main(void) {
    remove_folder();
    mkdir(DIR_NAME, 0777);
    write_and_replace();
    two_at_once();
    refusals();
    devices_are_written_directly();
    remove_folder();
    return check_result();
}
