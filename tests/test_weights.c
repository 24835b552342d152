/* tests/test_weights.c - tensors by name: six-bit scales, shards, surplus, cuts. */
#define _POSIX_C_SOURCE 200809L /* mkdir */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "assets/weights_view.h"
#include "tests/check.h"
#include "tests/st_file.h"

#define FILE_NAME "test_weights.tmp.safetensors"
#define DIR_NAME  "test_weights.dir"

static bool open_fails(const char *path, const char *reason) {
    rung_err e = {0};
    rung_weights *w;
    const rung_status st = rung_weights_open(&w, path, &e);
    const bool fine = st && !w && strstr(e.msg, reason);
    if (!fine) fprintf(stderr, "  wanted \"%s\", got %d \"%s\"\n", reason, st, e.msg);
    rung_weights_close(&w);
    return fine;
}

/* ---- six bits: [2, 4] codes 12 (that is 1), and scales given by the test ---- */

#define SIX "\"x\":{\"dtype\":\"F6_E3M2\",\"shape\":[2,4],\"data_offsets\":[0,6]}"
static const unsigned char ones[6] = {0x30, 0xC3, 0x0C, 0x30, 0xC3, 0x0C};

static bool write_six(const char *scale_header, const void *scale, size_t bytes) {
    char header[400];
    unsigned char data[40];
    snprintf(header, sizeof header, "{" SIX ",%s}", scale_header);
    memcpy(data, ones, 6);
    memcpy(data + 6, scale, bytes);
    return st_write(FILE_NAME, header, data, 6 + bytes);
}

static void scales_fold_in(void) {
    const float f32[2] = {0.5f, 3};
    const uint16_t f16[2] = {rung_f32_to_f16(0.5f), rung_f32_to_f16(3)};
    const char *headers[2] = {"\"x.scale\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[6,14]}",
                              "\"x.scale\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[6,10]}"};
    for (int k = 0; k < 2; k++) {
        CHECK(write_six(headers[k], k ? (const void *)f16 : (const void *)f32, k ? 4 : 8));
        rung_err e = {0};
        rung_weights *w;
        if (!CHECK(rung_weights_open(&w, FILE_NAME, &e) == RUNG_OK)) continue;
        CHECK(rung_weights_count(w) == 1 && !rung_weights_find(w, "x.scale"));
        const rung_tensor *t = rung_weights_find(w, "x");
        float got[8] = {0};
        const float want[8] = {0.5f, 0.5f, 0.5f, 0.5f, 3, 3, 3, 3};
        CHECK(t && rung_tensor_to_f32(t, 0, 8, got, &e) == RUNG_OK && memcmp(got, want, sizeof got) == 0);
        CHECK(rung_weights_check_used(w, &e) == RUNG_OK);
        rung_weights_close(&w);
    }
}

static void bad_scales(void) {
    const float values[][2] = {{1, NAN}, {INFINITY, 1}, {1, -1}};
    const char f32[] = "\"x.scale\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[6,14]}";
    for (int i = 0; i < 3; i++) CHECK(write_six(f32, values[i], 8) && open_fails(FILE_NAME, "x.scale is"));
    const float four[4] = {1, 1, 1, 1};
    CHECK(write_six("\"x.scale\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[6,22]}", four, 16) &&
          open_fails(FILE_NAME, "x.scale is [4] of F32, wanted [2]"));
    CHECK(write_six("\"x.scale\":{\"dtype\":\"F32\",\"shape\":[2,1],\"data_offsets\":[6,14]}", four, 8) &&
          open_fails(FILE_NAME, "x.scale is [2, 1]"));
    CHECK(write_six("\"x.scale\":{\"dtype\":\"F64\",\"shape\":[2],\"data_offsets\":[6,22]}", four, 16) &&
          open_fails(FILE_NAME, "x.scale is [2] of F64"));
}

/* Beside another dtype "<x>.scale" is a tensor like any other; six bits without one are plain values. */
static void scale_is_a_name_too(void) {
    rung_err e = {0};
    rung_weights *w;
    CHECK(st_write(FILE_NAME,
                   "{\"x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
                   "\"x.scale\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]},"
                   "\".scale\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[8,9]}}",
                   NULL, 9));
    CHECK(rung_weights_open(&w, FILE_NAME, &e) == RUNG_OK && rung_weights_count(w) == 3);
    rung_weights_close(&w);
    CHECK(st_write(FILE_NAME, "{" SIX "}", ones, 6) && rung_weights_open(&w, FILE_NAME, &e) == RUNG_OK);
    const rung_tensor *t = w ? rung_weights_find(w, "x") : NULL;
    CHECK(t && !t->scale);
    rung_weights_close(&w);
}

/* ---- who was asked for ---- */

#define T(name, at) "\"" name "\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[" at "]}"

static void surplus_is_named(void) {
    rung_err e = {0};
    rung_weights *w;
    CHECK(st_write(FILE_NAME,
                   "{" T("e", "0,1") "," T("d", "1,2") "," T("c", "2,3") "," T("b", "3,4") "," T("a", "4,5") "," T(
                       "m.position_ids", "5,6") "}",
                   NULL, 6));
    if (!CHECK(rung_weights_open(&w, FILE_NAME, &e) == RUNG_OK)) return;
    CHECK(rung_weights_count(w) == 6 && strcmp(rung_weights_name(w, 0), "a") == 0);
    CHECK(rung_weights_find(w, "b") && !rung_weights_find(w, "z") && rung_weights_has(w, "a"));
    CHECK(rung_weights_check_used(w, &e) == RUNG_EFORMAT);
    CHECK(strstr(e.msg, "4 tensors") && strstr(e.msg, ": a, c, d, ...") && strstr(e.msg, FILE_NAME));
    rung_weights_find(w, "a");
    rung_weights_find(w, "c");
    e = (rung_err){0};
    CHECK(rung_weights_check_used(w, &e) == RUNG_EFORMAT && strstr(e.msg, "2 tensors") && strstr(e.msg, ": d, e") &&
          !strstr(e.msg, "..."));
    rung_weights_find(w, "d");
    rung_weights_find(w, "e");
    e = (rung_err){0};
    CHECK(rung_weights_check_used(w, &e) == RUNG_OK);
    rung_weights_close(&w);
    rung_weights_close(&w);
}

static rung_status same_name(rung_weights *w, const char *name, const rung_tensor *t, void *arg, rung_err *err) {
    (void)name;
    return weights_add(w, arg, t, err);
}

static void views(void) {
    static const char *const unused[] = {"head.*", NULL};
    rung_err e = {0};
    rung_weights *w;
    CHECK(st_write(FILE_NAME, "{" T("head.a", "0,1") "," T("b", "1,2") "}", NULL, 2));
    CHECK(weights_open_view(&w, FILE_NAME, &(weights_view){.unused = unused}, &e) == RUNG_OK);
    CHECK(w && rung_weights_find(w, "b") && rung_weights_check_used(w, &e) == RUNG_OK);
    rung_weights_close(&w);
    CHECK(weights_open_view(&w, FILE_NAME, &(weights_view){.map = same_name, .arg = "n"}, &e) == RUNG_EFORMAT && !w &&
          strstr(e.msg, "tensor n is there twice"));
}

static void cuts(void) {
    const float scale[6] = {1, 2, 3, 4, 5, 6};
    const unsigned char data[18] = {0};
    const rung_tensor t = {.dtype = RUNG_F6_E3M2, .ndim = 2, .shape = {6, 4}, .data = data, .scale = scale};
    const rung_tensor odd = {.dtype = RUNG_F6_E3M2, .ndim = 1, .shape = {6}, .data = data};
    rung_err e = {0};
    rung_weights *w;
    rung_tensor part;
    CHECK(st_write(FILE_NAME, "{}", NULL, 0) && rung_weights_open(&w, FILE_NAME, &e) == RUNG_OK);
    for (size_t i = 0; w && i < 3; i++) {
        CHECK(weights_cut_rows(w, "x", &t, i, 3, &part, &e) == RUNG_OK && part.shape[0] == 2 && part.shape[1] == 4);
        CHECK(part.data == data + 6 * i && part.scale == scale + 2 * i);
    }
    CHECK(w && weights_cut_rows(w, "x", &odd, 0, 3, &part, &e) == RUNG_ESHAPE); /* 2 codes are not whole bytes */
    CHECK(w && weights_cut_rows(w, "x", &t, 0, 4, &part, &e) == RUNG_ESHAPE && strstr(e.msg, "tensor x"));
    rung_weights_close(&w);
}

/* ---- shards ---- */

static bool write_index(const char *text) {
    FILE *f = fopen(DIR_NAME "/m.safetensors.index.json", "wb");
    if (!f) return false;
    fputs(text, f);
    return fclose(f) == 0;
}

static bool index_fails(const char *text, const char *reason) {
    return write_index(text) && open_fails(DIR_NAME "/m.safetensors.index.json", reason);
}

static void shards(void) {
    rung_err e = {0};
    rung_weights *w;
    mkdir(DIR_NAME, 0777);
    const float scale[3] = {2, 4, 0}; /* and the byte of y */
    CHECK(st_write(DIR_NAME "/1.safetensors", "{" SIX "}", ones, 6));
    CHECK(st_write(DIR_NAME "/2.safetensors",
                   "{\"x.scale\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}," T("y", "8,9") "}", scale,
                   9));
    CHECK(write_index("{\"metadata\": {}, \"weight_map\": {\"x\": \"1.safetensors\", \"x.scale\": \"2.safetensors\","
                      " \"y\": \"2.safetensors\"}}"));
    if (CHECK(rung_weights_open(&w, DIR_NAME "/m.safetensors.index.json", &e) == RUNG_OK)) {
        const rung_tensor *x = rung_weights_find(w, "x");
        float v[8];
        CHECK(rung_weights_count(w) == 2 && rung_weights_find(w, "y"));
        CHECK(x && rung_tensor_to_f32(x, 0, 8, v, &e) == RUNG_OK && v[0] == 2 && v[7] == 4);
    } else {
        fprintf(stderr, "  %s\n", e.msg);
    }
    rung_weights_close(&w);
    CHECK(index_fails("{\"weight_map\": {\"x\": \"3.safetensors\"}}", "3.safetensors"));
    CHECK(index_fails("{\"weight_map\": {\"z\": \"1.safetensors\"}}", "z should be in 1.safetensors"));
    CHECK(index_fails("{\"weight_map\": {\"x\": \"../" DIR_NAME "/1.safetensors\"}}", "plain file name"));
    CHECK(index_fails("{\"weight_map\": {\"x\": \"/etc/passwd\"}}", "plain file name"));
    CHECK(index_fails("{\"weight_map\": {\"x\": \"..\"}}", "plain file name"));
    CHECK(index_fails("{\"weight_map\": {\"x\": \"\"}}", "plain file name"));
    CHECK(index_fails("{\"weight_map\": {\"x\": 1}}", "plain file name"));
    CHECK(index_fails("{\"weight_map\": []}", "weight_map"));
    CHECK(index_fails("[", "not valid JSON"));
    CHECK(st_write(DIR_NAME "/3.safetensors", "{" T("y", "0,1") "}", NULL, 1));
    CHECK(index_fails("{\"weight_map\": {\"x.scale\": \"2.safetensors\", \"y\": \"3.safetensors\"}}",
                      "y is there twice"));
    static const char *const made[] = {"1.safetensors", "2.safetensors", "3.safetensors", "m.safetensors.index.json"};
    for (int i = 0; i < 4; i++) {
        char path[100];
        snprintf(path, sizeof path, DIR_NAME "/%s", made[i]);
        remove(path);
    }
    rmdir(DIR_NAME);
}

int main(void) {
    scales_fold_in();
    bad_scales();
    scale_is_a_name_too();
    surplus_is_named();
    views();
    cuts();
    shards();
    remove(FILE_NAME);
    return check_result();
}
