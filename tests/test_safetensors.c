/* tests/test_safetensors.c - the reader on right files and on every kind of wrong one. */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "assets/safetensors.h"
#include "tests/check.h"
#include "tests/st_file.h"

#define FILE_NAME "test_safetensors.tmp"

static void reads(void) {
    static const char header[] = "{\"__metadata__\":{\"format\":\"pt\"},"
                                 "\"b\":{\"dtype\":\"F16\",\"shape\":[2,3],\"data_offsets\":[5,17]},"
                                 "\"a\":{\"dtype\":\"U8\",\"shape\":[5],\"data_offsets\":[0,5]},"
                                 "\"six\":{\"dtype\":\"F6_E3M2\",\"shape\":[2,2],\"data_offsets\":[17,20]},"
                                 "\"none\":{\"dtype\":\"F32\",\"shape\":[0,4],\"data_offsets\":[17,17]},"
                                 "\"scalar\":{\"dtype\":\"BF16\",\"shape\":[],\"data_offsets\":[20,22]}}  ";
    rung_err e = {0};
    rung_safetensors *s;
    CHECK(st_write(FILE_NAME, header, NULL, 22));
    if (!CHECK(rung_safetensors_open(&s, FILE_NAME, &e) == RUNG_OK)) {
        fprintf(stderr, "  %s\n", e.msg);
        return;
    }
    static const char *const order[] = {"a", "b", "none", "scalar", "six"};
    CHECK(rung_safetensors_count(s) == 5 && strcmp(rung_safetensors_path(s), FILE_NAME) == 0);
    for (size_t i = 0; i < 5; i++) CHECK(strcmp(rung_safetensors_name(s, i), order[i]) == 0);
    const rung_tensor *b = rung_safetensors_find(s, "b"), *none = rung_safetensors_find(s, "none");
    CHECK(b && b->dtype == RUNG_F16 && b->ndim == 2 && b->shape[0] == 2 && b->shape[1] == 3);
    CHECK(b && *(const unsigned char *)b->data == 5);
    CHECK(none && none->shape[0] == 0 && rung_tensor_count(none) == 0);
    CHECK(!rung_safetensors_find(s, "c") && !rung_safetensors_find(s, "__metadata__"));
    rung_safetensors_close(&s);
    CHECK(!s);
    rung_safetensors_close(&s);
    CHECK(st_write(FILE_NAME, "{}", NULL, 0) && rung_safetensors_open(&s, FILE_NAME, &e) == RUNG_OK);
    CHECK(rung_safetensors_count(s) == 0 && !rung_safetensors_find(s, "a"));
    rung_safetensors_close(&s);
}

static bool refused_file(const char *reason) {
    rung_err e = {0};
    rung_safetensors *s;
    const rung_status st = rung_safetensors_open(&s, FILE_NAME, &e);
    const bool fine = st == RUNG_EFORMAT && !s && strstr(e.msg, FILE_NAME) && strstr(e.msg, reason);
    if (!fine) fprintf(stderr, "  wanted \"%s\", got %d \"%s\"\n", reason, st, e.msg);
    rung_safetensors_close(&s);
    return fine;
}

static bool refused(const char *header, size_t bytes, const char *reason) {
    return st_write(FILE_NAME, header, NULL, bytes) && refused_file(reason);
}

/* One tensor "t" with these texts as its fields. */
static bool refused_tensor(const char *dtype, const char *shape, const char *offsets, size_t bytes,
                           const char *reason) {
    char header[400];
    snprintf(header, sizeof header, "{\"t\":{\"dtype\":%s,\"shape\":%s,\"data_offsets\":%s}}", dtype, shape, offsets);
    return refused(header, bytes, reason);
}

static void refuses_tensors(void) {
    CHECK(refused_tensor("\"F4\"", "[8]", "[0,4]", 4, "tensor t has the dtype \"F4\""));
    CHECK(refused_tensor("3", "[8]", "[0,4]", 4, "tensor t has the dtype"));
    CHECK(refused_tensor("\"F32\"", "[1.5]", "[0,4]", 4, "tensor t has no shape"));
    CHECK(refused_tensor("\"F32\"", "[-1]", "[0,4]", 4, "tensor t has no shape"));
    CHECK(refused_tensor("\"F32\"", "[9007199254740993]", "[0,4]", 4, "tensor t has no shape"));
    CHECK(refused_tensor("\"F32\"", "[1,1,1,1,1,1,1,1,1]", "[0,4]", 4, "tensor t has no shape"));
    CHECK(refused_tensor("\"F32\"", "{\"a\":1}", "[0,4]", 4, "tensor t has no shape"));
    CHECK(refused_tensor("\"F32\"", "[NaN]", "[0,4]", 4, "tensor t has no shape"));
    CHECK(refused_tensor("\"F32\"", "[1]", "[0]", 4, "tensor t has no data_offsets"));
    CHECK(refused_tensor("\"F32\"", "[1]", "[0,4,8]", 4, "tensor t has no data_offsets"));
    CHECK(refused_tensor("\"F32\"", "[1]", "{\"a\":0,\"b\":4}", 4, "tensor t has no data_offsets"));
    CHECK(refused_tensor("\"F32\"", "[1]", "[0,8]", 4, "tensor t has no data_offsets"));
    CHECK(refused_tensor("\"F32\"", "[1]", "[4,0]", 4, "tensor t has no data_offsets"));
    CHECK(refused_tensor("\"F32\"", "[1]", "[0,1e300]", 4, "tensor t has no data_offsets"));
    CHECK(refused_tensor("\"F32\"", "[2]", "[0,4]", 4, "tensor t has 4 bytes, which do not make [2] of F32"));
    CHECK(refused_tensor("\"F6_E3M2\"", "[3]", "[0,2]", 2, "do not make [3] of F6_E3M2"));
    CHECK(refused_tensor("\"F6_E2M3\"", "[4]", "[0,4]", 4, "do not make"));
    /* products that wrap: to 0, to 4 bytes, and hidden behind a dimension of 0 */
    CHECK(refused_tensor("\"F32\"", "[4294967296,4294967296]", "[0,0]", 0, "do not make"));
    CHECK(refused_tensor("\"U8\"", "[2305843009213693952,8]", "[0,0]", 0, "shape"));
    CHECK(refused_tensor("\"F32\"", "[1099511627776,16777216]", "[0,0]", 0, "do not make"));
    CHECK(refused_tensor("\"F32\"", "[0,4294967296,4294967296]", "[0,0]", 0, "do not make"));
}

#define T(name, from, to) "\"" name "\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[" #from "," #to "]}"

static void refuses_layouts(void) {
    CHECK(refused("{" T("a", 0, 4) "," T("b", 2, 6) "}", 6, "overlap"));
    CHECK(refused("{" T("a", 0, 4) "," T("b", 0, 4) "}", 4, "overlap"));
    CHECK(refused("{" T("a", 0, 4) "," T("b", 5, 9) "}", 9, "hole"));
    CHECK(refused("{" T("a", 1, 5) "}", 5, "hole"));
    CHECK(refused("{" T("a", 0, 4) "}", 5, "tensors end at byte 4"));
    CHECK(refused("{" T("a", 0, 4) "," T("a", 4, 8) "}", 8, "\"a\" is there twice"));
    CHECK(refused("{" T("", 0, 4) "}", 4, "empty"));
    CHECK(refused("{" T("a\\u001b[31m", 0, 4) "}", 4, "control characters"));
    CHECK(refused("{\"__metadata__\":[]}", 0, "__metadata__"));
    CHECK(refused("{\"__metadata__\":{\"a\":1}}", 0, "__metadata__ \"a\""));
    CHECK(refused("{\"a\":3}", 0, "tensor a"));
    CHECK(refused("[1]", 0, "no JSON object"));
    CHECK(refused("{\"a\"", 0, "not valid JSON"));
}

static void refuses_files(void) {
    rung_err e = {0};
    rung_safetensors *s;
    CHECK(rung_safetensors_open(&s, "no/such", &e) == RUNG_EIO && !s && strstr(e.msg, "no/such"));
    e = (rung_err){0};
    CHECK(rung_safetensors_open(&s, ".", &e) == RUNG_EIO && !s);
    FILE *f = fopen(FILE_NAME, "wb");
    if (!CHECK(f)) return;
    fputs("1234567", f);
    fclose(f);
    CHECK(refused_file("has 7 bytes"));
    f = fopen(FILE_NAME, "wb");
    if (!CHECK(f)) return;
    fwrite("\x09\0\0\0\0\0\0\0{}", 1, 10, f);
    fclose(f);
    CHECK(refused_file("header length is 9"));
    f = fopen(FILE_NAME, "wb");
    if (!CHECK(f)) return;
    fwrite("\xff\xff\xff\xff\xff\xff\xff\xff{}", 1, 10, f);
    fclose(f);
    CHECK(refused_file("header length is 18446744073709551615"));
}

/* 100,000 tensors take a moment, not minutes: nothing in the reader is quadratic. */
static void many_tensors(void) {
    enum { N = 100000 };
    char *header = malloc(N * 80), *at = header;
    for (int i = 0; i < N; i++)
        at += sprintf(at, "%s\"t%d\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[%d,%d]}", i ? "," : "{",
                      (int)((i * 7919L) % N), i, i + 1);
    strcpy(at, "}");
    CHECK(st_write(FILE_NAME, header, NULL, N));
    free(header);
    rung_err e = {0};
    rung_safetensors *s;
    const clock_t start = clock();
    CHECK(rung_safetensors_open(&s, FILE_NAME, &e) == RUNG_OK && rung_safetensors_count(s) == N);
    CHECK((double)(clock() - start) / CLOCKS_PER_SEC < 20); /* 0.3 s; 10 s under ASan on a busy machine */
    rung_safetensors_close(&s);
}

int main(void) {
    reads();
    refuses_tensors();
    refuses_layouts();
    refuses_files();
    many_tensors();
    remove(FILE_NAME);
    return check_result();
}
