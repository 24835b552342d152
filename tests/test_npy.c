/* tests/test_npy.c - files written by numpy (tests/golden/assets), our own, and broken ones. */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "assets/npy.h"
#include "tests/check.h"

#define GOLDEN RUNG_TEST_DIR "/golden/assets/"

static void numpy_files(void) {
    static const char *const names[] = {"f2", "f4", "f8"};
    for (int k = 0; k < 3; k++) {
        char path[400];
        snprintf(path, sizeof path, GOLDEN "%s.npy", names[k]);
        rung_err e = {0};
        rung_npy a;
        if (!CHECK(rung_npy_read(&a, path, &e) == RUNG_OK)) continue;
        CHECK(a.ndim == 3 && a.shape[0] == 2 && a.shape[1] == 3 && a.shape[2] == 4 && a.count == 24);
        for (int i = 0; i < 24; i++) CHECK(fabs(a.data[i] - (-3 + 6.0 * i / 23)) < (k == 0 ? 2e-3 : 1e-6));
        rung_npy_free(&a);
        CHECK(!a.data);
    }
    rung_err e = {0};
    rung_npy a;
    CHECK(rung_npy_read(&a, GOLDEN "scalar.npy", &e) == RUNG_OK && a.ndim == 0 && a.count == 1 && a.data[0] == 2.5f);
    rung_npy_free(&a);
    CHECK(rung_npy_read(&a, GOLDEN "empty.npy", &e) == RUNG_OK && a.ndim == 2 && a.count == 0 && a.shape[1] == 4);
    rung_npy_free(&a);
    CHECK(rung_npy_read(&a, GOLDEN "fortran.npy", &e) == RUNG_EFORMAT && strstr(e.msg, "Fortran") && !a.data);
    e = (rung_err){0};
    CHECK(rung_npy_read(&a, GOLDEN "i4.npy", &e) == RUNG_EFORMAT && strstr(e.msg, "<i4"));
    e = (rung_err){0};
    CHECK(rung_npy_read(&a, GOLDEN "none.npy", &e) == RUNG_EIO);
}

/* What numpy writes, byte for byte. */
static void writes_as_numpy(void) {
    rung_err e = {0};
    rung_npy a;
    if (!CHECK(rung_npy_read(&a, GOLDEN "f4.npy", &e) == RUNG_OK)) return;
    CHECK(rung_npy_write("test_npy.tmp", a.data, a.ndim, a.shape, &e) == RUNG_OK);
    char x[512] = {0}, y[512] = {0};
    FILE *f = fopen(GOLDEN "f4.npy", "rb"), *g = fopen("test_npy.tmp", "rb");
    if (CHECK(f && g)) {
        const size_t n = fread(x, 1, sizeof x, f);
        CHECK(fread(y, 1, sizeof y, g) == n && memcmp(x, y, n) == 0);
    }
    if (f) fclose(f);
    if (g) fclose(g);
    rung_npy_free(&a);
    const float one[3] = {1, 2, 3};
    CHECK(rung_npy_write("test_npy.tmp", one, 1, (const size_t[]){3}, &e) == RUNG_OK);
    CHECK(rung_npy_read(&a, "test_npy.tmp", &e) == RUNG_OK && a.ndim == 1 && a.shape[0] == 3 && a.data[2] == 3);
    rung_npy_free(&a);
    remove("test_npy.tmp");
}

/* A version 1 file from a header (padded to `total` bytes) and zeros as data. */
static bool refused(const char *header, size_t data, const char *reason) {
    unsigned char file[600] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0};
    const size_t len = strlen(header);
    file[8] = (unsigned char)len;
    file[9] = (unsigned char)(len >> 8);
    memcpy(file + 10, header, len);
    FILE *f = fopen("test_npy.tmp", "wb");
    if (!f) return false;
    fwrite(file, 1, 10 + len + data, f);
    fclose(f);
    rung_err e = {0};
    rung_npy a;
    const bool fine = rung_npy_read(&a, "test_npy.tmp", &e) == RUNG_EFORMAT && !a.data && strstr(e.msg, reason);
    if (!fine) fprintf(stderr, "  %s -> %s\n", header, e.msg);
    rung_npy_free(&a);
    remove("test_npy.tmp");
    return fine;
}

static void broken(void) {
    CHECK(refused("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", 20, "do not match"));
    CHECK(refused("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", 28, "do not match"));
    CHECK(refused("{'descr': '>f4', 'fortran_order': False, 'shape': (2,), }", 8, ">f4"));
    CHECK(refused("{'descr': '<f4', 'fortran_order': False}", 0, "header"));
    CHECK(refused("{'descr': '<f4', 'fortran_order': Maybe, 'shape': (2,)}", 8, "header"));
    CHECK(refused("{'descr': '<f4', 'fortran_order': False, 'shape': (-2,)}", 8, "header"));
    CHECK(refused("{'descr': '<f4', 'fortran_order': False, 'shape': (2,)} x", 8, "header"));
    CHECK(refused("{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", 8, "header"));
    CHECK(refused("{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1)}", 4, "header"));
    CHECK(refused("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999999,)}", 8, "header"));
    CHECK(refused("{'descr': '<f4', 'fortran_order': False, 'shape': (0, 4611686018427387904, 4)}", 0, "do not match"));
    CHECK(refused("{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 4)}", 0, "do not match"));
    CHECK(refused("{'descr': '<f4", 0, "header"));
    FILE *f = fopen("test_npy.tmp", "wb");
    if (!CHECK(f)) return;
    fwrite("\x93NUMPY\x01\x00\xff\xff{}", 1, 12, f);
    fclose(f);
    rung_err e = {0};
    rung_npy a;
    CHECK(rung_npy_read(&a, "test_npy.tmp", &e) == RUNG_EFORMAT);
    remove("test_npy.tmp");
}

int main(void) {
    numpy_files();
    writes_as_numpy();
    broken();
    return check_result();
}
