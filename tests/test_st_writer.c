/* tests/test_st_writer.c - files laid out and filled in any order: read back, aligned, continued, refused. */
#define _POSIX_C_SOURCE 200809L /* truncate */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "assets/json.h"
#include "assets/safetensors.h"
#include "assets/st_writer.h"
#include "tests/check.h"

#define FILE_NAME "test_st_writer.tmp.safetensors"

static const rung_tensor six = {.dtype = RUNG_F6_E3M2, .ndim = 2, .shape = {2, 6}};
static const rung_tensor half = {.dtype = RUNG_F16, .ndim = 1, .shape = {3}};
static const rung_tensor full = {.dtype = RUNG_F32, .ndim = 1, .shape = {2}};
static const rung_tensor none = {.dtype = RUNG_F32, .ndim = 2, .shape = {0, 4}};

/* How the file is begun: afresh, as the continuation of one, or afresh for what is there does not fit. */
enum begin { NEW, CONTINUED, REPLACED };

static st_writer *begin(enum begin again) {
    rung_err e = {0};
    st_writer *w;
    size_t id;
    if (!CHECK(st_writer_open(&w, FILE_NAME, &e) == RUNG_OK)) return NULL;
    CHECK(st_writer_meta(w, "format", "pt", &e) == RUNG_OK);
    CHECK(st_writer_add(w, &six, "a", &id, &e) == RUNG_OK && id == 0);
    CHECK(st_writer_add(w, &half, "b", &id, &e) == RUNG_OK && id == 1);
    CHECK(st_writer_add(w, &full, "c", &id, &e) == RUNG_OK && id == 2);
    CHECK(st_writer_add(w, &none, "d \"quoted\"", &id, &e) == RUNG_OK && id == 3);
    bool continued = again != NEW;
    if (!CHECK(st_writer_start(w, &continued, &e) == RUNG_OK)) fprintf(stderr, "  %s\n", e.msg);
    CHECK(continued == (again == CONTINUED));
    return w;
}

static const unsigned char codes[9] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
static const uint16_t halves[3] = {0x3c00, 0x4000, 0xc000};
static const float floats[2] = {1.5f, -2.5f};

static void put_all(st_writer *w, bool backwards) {
    rung_err e = {0};
    for (int k = 0; k < 4; k++) {
        switch (backwards ? 3 - k : k) {
        case 0:
            CHECK(st_writer_put(w, 0, 0, codes, 3, &e) == RUNG_OK);
            break;
        case 1:
            CHECK(st_writer_put(w, 0, 3, codes + 3, 6, &e) == RUNG_OK);
            break;
        case 2:
            CHECK(st_writer_put(w, 1, 0, halves, 6, &e) == RUNG_OK);
            break;
        default:
            CHECK(st_writer_put(w, 2, 0, floats, 8, &e) == RUNG_OK);
        }
    }
}

static char *whole(size_t *n) {
    rung_err e = {0};
    char *text = NULL;
    CHECK(rung_file_read(FILE_NAME, 1 << 20, &text, n, &e) == RUNG_OK);
    return text;
}

static void reads_back(void) {
    rung_err e = {0};
    rung_safetensors *s;
    if (!CHECK(rung_safetensors_open(&s, FILE_NAME, &e) == RUNG_OK)) {
        fprintf(stderr, "  %s\n", e.msg);
        return;
    }
    const rung_tensor *a = rung_safetensors_find(s, "a"), *b = rung_safetensors_find(s, "b"),
                      *c = rung_safetensors_find(s, "c"), *d = rung_safetensors_find(s, "d \"quoted\"");
    CHECK(rung_safetensors_count(s) == 4 && a && b && c && d);
    CHECK(a && a->dtype == RUNG_F6_E3M2 && a->ndim == 2 && a->shape[1] == 6 && !memcmp(a->data, codes, 9));
    CHECK(b && b->dtype == RUNG_F16 && !memcmp(b->data, halves, 6) && (uintptr_t)b->data % 2 == 0);
    CHECK(c && c->dtype == RUNG_F32 && !memcmp(c->data, floats, 8) && (uintptr_t)c->data % 8 == 0);
    CHECK(d && d->ndim == 2 && d->shape[0] == 0);
    /* its pages come back */
    if (a) rung_safetensors_release(s, a->data, 9);
    CHECK(a && !memcmp(a->data, codes, 9));
    rung_safetensors_release(s, codes, sizeof codes); /* of no file: left alone */
    CHECK(codes[8] == 9);
    rung_safetensors_close(&s);
}

static void order_and_continuation(void) {
    size_t n1 = 0, n2 = 0;
    st_writer *w = begin(NEW);
    if (!w) return;
    put_all(w, false);
    st_writer_close(&w);
    reads_back();
    char *first = whole(&n1);

    /* the other way round, and in two runs */
    remove(FILE_NAME);
    w = begin(NEW);
    rung_err e = {0};
    CHECK(st_writer_put(w, 2, 0, floats, 8, &e) == RUNG_OK && st_writer_sync(w, &e) == RUNG_OK);
    CHECK(st_writer_bytes(w) == n1);
    st_writer_close(&w);
    w = begin(CONTINUED);
    CHECK(st_writer_put(w, 1, 0, halves, 6, &e) == RUNG_OK && st_writer_put(w, 0, 0, codes, 9, &e) == RUNG_OK);
    st_writer_close(&w);
    char *second = whole(&n2);
    CHECK(first && second && n1 == n2 && memcmp(first, second, n1) == 0);

    /* a file of another header or size is begun anew */
    CHECK(truncate(FILE_NAME, 100) == 0);
    w = begin(REPLACED);
    put_all(w, true);
    st_writer_close(&w);
    free(second);
    second = whole(&n2);
    CHECK(first && second && n1 == n2 && memcmp(first, second, n1) == 0);
    free(first);
    free(second);
}

static void refusals(void) {
    rung_err e = {0};
    size_t id;
    st_writer *w = begin(NEW);
    CHECK(st_writer_put(w, 0, 8, codes, 2, &e) == RUNG_ESHAPE);
    CHECK(st_writer_put(w, 0, 10, codes, 0, &e) == RUNG_ESHAPE);
    const rung_tensor odd = {.dtype = RUNG_F6_E3M2, .ndim = 1, .shape = {3}};
    e = (rung_err){0};
    CHECK(st_writer_add(w, &odd, "odd", &id, &e) == RUNG_EFORMAT && strstr(e.msg, "odd"));
    st_writer_close(&w);

    CHECK(st_writer_open(&w, FILE_NAME, &e) == RUNG_OK);
    CHECK(st_writer_add(w, &half, "a", &id, &e) == RUNG_OK && st_writer_add(w, &full, "a", &id, &e) == RUNG_OK);
    e = (rung_err){0};
    CHECK(st_writer_start(w, NULL, &e) == RUNG_EFORMAT && strstr(e.msg, "twice"));
    st_writer_close(&w);

    CHECK(st_writer_open(&w, "nonesuch/x.safetensors", &e) == RUNG_OK);
    e = (rung_err){0};
    CHECK(st_writer_start(w, NULL, &e) == RUNG_EIO && strstr(e.msg, "nonesuch"));
    st_writer_close(&w);
    st_writer_close(&w);
}

int main(void) {
    order_and_continuation();
    refusals();
    remove(FILE_NAME);
    return check_result();
}
