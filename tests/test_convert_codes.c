/* tests/test_convert_codes.c - every code that rung convert writes, against a search among all codes; 16-bit rounding; what
 * stays; NaN; numbers too large for f16; memory. */
#define _DEFAULT_SOURCE /* mkdir, wait4 */
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "assets/model.h"
#include "assets/st_writer.h"
#include "diffusion/convert.h"
#include "kernels/base/fp6.h"
#include "tests/check.h"

#define IN  "test_convert_codes.in"
#define OUT "test_convert_codes.out"

static const char *const weights_file = IN "/unet/diffusion_pytorch_model.safetensors";

static void clear(void) { CHECK(system("rm -rf " IN " " OUT " " OUT ".partial") == 0); }

static void write_index(void) {
    mkdir(IN, 0777);
    mkdir(IN "/unet", 0777);
    FILE *f = fopen(IN "/model_index.json", "w");
    CHECK(f && fputs("{\"_class_name\": \"X\", \"unet\": [\"diffusers\", \"UNet2DConditionModel\"]}", f) >= 0);
    if (f) fclose(f);
}

/* The model: one file of f32 tensors. */
static void write_model(const char *const *names, const rung_tensor *tensors, size_t count) {
    rung_err e = {0};
    st_writer *w;
    size_t id;
    write_index();
    if (!CHECK(st_writer_open(&w, weights_file, &e) == RUNG_OK)) return;
    for (size_t i = 0; i < count; i++) CHECK(st_writer_add(w, &tensors[i], names[i], &id, &e) == RUNG_OK);
    CHECK(st_writer_start(w, NULL, &e) == RUNG_OK);
    for (size_t i = 0; i < count; i++)
        CHECK(st_writer_put(w, i, 0, tensors[i].data, rung_tensor_count(&tensors[i]) * sizeof(float), &e) == RUNG_OK);
    st_writer_close(&w);
}

static rung_status convert_as(const char *type, double sparsity, rung_err *err) {
    convert_report r;
    CHECK(system("rm -rf " OUT) == 0);
    const convert_options o = {.model = IN, .out = OUT, .type = type, .sparsity = sparsity, .threads = 2};
    const rung_status st = rung_convert(&o, &r, err);
    convert_report_free(&r);
    return st;
}

static rung_weights *result(void) {
    rung_err e = {0};
    rung_weights *w = NULL;
    if (!CHECK(rung_weights_open(&w, OUT "/unet/diffusion_pytorch_model.safetensors", &e) == RUNG_OK))
        fprintf(stderr, "  %s\n", e.msg);
    return w;
}

/* ---- few bits: an independent search ---- */

struct format {
    const char *type;
    rung_dtype dtype;
    int exponent_bits, mantissa_bits, bias;
};

static const struct format formats[] = {
    {"fp6", RUNG_F6_E3M2, 3, 2, 3}, {"e2m3", RUNG_F6_E2M3, 2, 3, 1}, {"fp5", RUNG_F5_E2M2, 2, 2, 1}};

/* Of the definition: S, exponent, mantissa. */
static double value_of(const struct format *f, unsigned code) {
    const unsigned m = code & ((1u << f->mantissa_bits) - 1),
                   e = code >> f->mantissa_bits & ((1u << f->exponent_bits) - 1);
    const double steps = 1u << f->mantissa_bits;
    const double v = e ? ldexp(1 + m / steps, (int)e - f->bias) : ldexp(m / steps, 1 - f->bias);
    return code >> (f->exponent_bits + f->mantissa_bits) ? -v : v;
}

/* The nearest code of the sign of v; of two that are equally near the even one. */
static unsigned search(const struct format *f, float v) {
    const unsigned codes = 1u << (f->exponent_bits + f->mantissa_bits);
    unsigned best = 0;
    for (unsigned c = 1; c < codes; c++) {
        const double d = fabs(value_of(f, c) - fabs((double)v)), least = fabs(value_of(f, best) - fabs((double)v));
        if (d < least || (d == least && c % 2 == 0)) best = c;
    }
    return best | (signbit(v) ? codes : 0);
}

enum { ROWS = 40, COLS = 400 };

/* Rows of many sizes, ties, zeros of both signs, subnormals, one row of zeros. */
static void fill(float *w) {
    uint64_t seed = 11;
    for (size_t r = 0; r < ROWS; r++) {
        const float size = ldexpf(1, (int)r - 30);
        for (size_t c = 0; c < COLS; c++) w[r * COLS + c] = r == 3 ? 0 : size * rnd(&seed) * rnd(&seed) * rnd(&seed);
        w[r * COLS] = -0.0f;
        w[r * COLS + 1] = 0;
        w[r * COLS + 2] = size * 1e-30f;
        w[r * COLS + 3] = -size * 1e-30f;
    }
    for (size_t f = 0; f < 3; f++) { /* rows whose scale is 1, with every value and every tie of a format */
        float *row = w + (10 + f) * COLS;
        memset(row, 0, COLS * sizeof *row);
        const unsigned codes = 1u << (formats[f].exponent_bits + formats[f].mantissa_bits);
        for (unsigned c = 0; c < codes; c++) {
            row[4 * c] = (float)value_of(&formats[f], c);
            row[4 * c + 1] = -row[4 * c];
            if (c + 1 < codes) row[4 * c + 2] = (float)((value_of(&formats[f], c) + value_of(&formats[f], c + 1)) / 2);
            row[4 * c + 3] = -row[4 * c + 2];
        }
    }
    w[20 * COLS + 7] = 1e-38f; /* in a row of 2^-10 */
    for (size_t c = 0; c < COLS; c++) w[21 * COLS + c] *= 1e-30f;
}

static unsigned code_at(const rung_tensor *t, size_t i) {
    return t->dtype == RUNG_F5_E2M2 ? rung_fp5_get(t->data, i) : rung_fp6_get(t->data, i);
}

static void codes_against_a_search(void) {
    float *w = malloc(ROWS * COLS * sizeof *w);
    if (!CHECK(w != NULL)) return;
    fill(w);
    const rung_tensor t = {.dtype = RUNG_F32, .ndim = 2, .shape = {ROWS, COLS}, .data = w};
    const char *name = "mid.weight";
    write_model(&name, &t, 1);
    for (size_t f = 0; f < 3; f++) {
        rung_err e = {0};
        if (!CHECK(convert_as(formats[f].type, 0, &e) == RUNG_OK)) fprintf(stderr, "  %s\n", e.msg);
        rung_weights *out = result();
        const rung_tensor *q = out ? rung_weights_find(out, name) : NULL;
        if (!CHECK(q && q->dtype == formats[f].dtype && q->scale && q->shape[0] == ROWS && q->shape[1] == COLS))
            continue;
        const unsigned codes = 1u << (formats[f].exponent_bits + formats[f].mantissa_bits);
        size_t wrong = 0;
        for (size_t r = 0; r < ROWS; r++) {
            float top = 1e-12f, scale;
            for (size_t c = 0; c < COLS; c++) top = fmaxf(top, fabsf(w[r * COLS + c]));
            memcpy(&scale, (const char *)q->scale + r * sizeof scale, sizeof scale);
            CHECK(scale == top / (float)value_of(&formats[f], codes - 1));
            for (size_t c = 0; c < COLS; c++) {
                const unsigned want = search(&formats[f], w[r * COLS + c] / scale), got = code_at(q, r * COLS + c);
                if (got != want && wrong++ < 5)
                    fprintf(stderr, "  %s [%zu, %zu] %g: code %u, wanted %u\n", formats[f].type, r, c,
                            (double)w[r * COLS + c], got, want);
            }
        }
        CHECK(wrong == 0);
        rung_weights_close(&out);
    }
    free(w);
    clear();
}

/* A thin row does not lose its precision: relative error of what is read back, row by row. */
static void small_rows(void) {
    float w[8][64], back[64];
    uint64_t seed = 5;
    for (int r = 0; r < 8; r++)
        for (int c = 0; c < 64; c++) w[r][c] = rnd(&seed) * powf(10, (float)(-r * 3 / 2));
    const rung_tensor t = {.dtype = RUNG_F32, .ndim = 2, .shape = {8, 64}, .data = w};
    const char *name = "mid.weight";
    rung_err e = {0};
    write_model(&name, &t, 1);
    CHECK(convert_as("fp6", 0, &e) == RUNG_OK);
    rung_weights *out = result();
    const rung_tensor *q = out ? rung_weights_find(out, name) : NULL;
    for (size_t r = 0; q && r < 8; r++) {
        CHECK(rung_tensor_to_f32(q, r * 64, 64, back, &e) == RUNG_OK);
        CHECK(rel_l2(back, w[r], 64) < 0.07);
    }
    rung_weights_close(&out);
    clear();
}

/* ---- what stays, what is refused ---- */

static rung_dtype dtype_in(rung_weights *w, const char *name) {
    const rung_tensor *t = rung_weights_find(w, name);
    return CHECK(t != NULL) ? t->dtype : RUNG_BOOL;
}

static void roles(void) {
    static float data[4 * 8 * 9];
    uint64_t seed = 2;
    for (size_t i = 0; i < sizeof data / sizeof *data; i++) data[i] = rnd(&seed);
    const rung_tensor conv = {.dtype = RUNG_F32, .ndim = 4, .shape = {4, 8, 3, 3}, .data = data},
                      matrix = {.dtype = RUNG_F32, .ndim = 2, .shape = {8, 8}, .data = data},
                      vector = {.dtype = RUNG_F32, .ndim = 1, .shape = {8}, .data = data},
                      odd = {.dtype = RUNG_F32, .ndim = 2, .shape = {3, 5}, .data = data};
    const char *const names[] = {"conv_in.weight", "conv_out.weight", "mid.conv_out.weight",
                                 "norm.weight",    "odd.weight",      "time_embedding.weight",
                                 "a.weight",       "b.weight",        "scale_shift_table"};
    const rung_tensor tensors[] = {conv, conv, conv, vector, odd, matrix, matrix, matrix, matrix};
    rung_err e = {0};
    write_model(names, tensors, sizeof tensors / sizeof *tensors);
    const char *keep[] = {"unet/b.*"};
    convert_report r;
    const convert_options o = {
        .model = IN, .out = OUT, .type = "fp6", .sparsity = 0.5, .keep = keep, .n_keep = 1, .threads = 1};
    CHECK(rung_convert(&o, &r, &e) == RUNG_OK && r.count == 9);
    for (size_t i = 0; i < r.count; i++)
        CHECK((r.rows[i].sparsity > 0) == (strcmp(r.rows[i].role, "matrix") == 0) || r.rows[i].sparsity == 0);
    convert_report_free(&r);
    rung_weights *w = result();
    if (!w) return;
    CHECK(dtype_in(w, "conv_in.weight") == RUNG_F16 && dtype_in(w, "conv_out.weight") == RUNG_F16);
    CHECK(dtype_in(w, "mid.conv_out.weight") == RUNG_F6_E3M2 && dtype_in(w, "norm.weight") == RUNG_F32);
    CHECK(dtype_in(w, "odd.weight") == RUNG_F16 && dtype_in(w, "time_embedding.weight") == RUNG_F6_E3M2);
    CHECK(dtype_in(w, "a.weight") == RUNG_F6_E3M2 && dtype_in(w, "b.weight") == RUNG_F16);
    CHECK(dtype_in(w, "scale_shift_table") == RUNG_F32);
    /* half of the two pruned tensors' weights are zeros, none of the others' */
    float v[4 * 8 * 9];
    size_t zeros = 0;
    const rung_tensor *t = rung_weights_find(w, "mid.conv_out.weight");
    if (t && rung_tensor_to_f32(t, 0, 288, v, &e) == RUNG_OK)
        for (size_t i = 0; i < 288; i++) zeros += v[i] == 0;
    t = rung_weights_find(w, "a.weight");
    if (t && rung_tensor_to_f32(t, 0, 64, v, &e) == RUNG_OK)
        for (size_t i = 0; i < 64; i++) zeros += v[i] == 0;
    CHECK(zeros >= 172 && zeros <= 190);
    rung_weights_close(&w);
    clear();
}

static void numbers_that_do_not_fit(void) {
    float a[16] = {1, 2, 65519, -3}, b[16] = {1, 70000}, c[16] = {INFINITY, 1}, d[16] = {1, NAN};
    const char *const names[] = {"a.weight", "b.weight", "c.weight"};
    rung_tensor t[3] = {{.dtype = RUNG_F32, .ndim = 2, .shape = {2, 8}, .data = a}};
    t[1] = t[2] = t[0];
    t[1].data = b;
    t[2].data = c;
    rung_err e = {0};
    write_model(names, t, 3);
    CHECK(convert_as("f16", 0, &e) == RUNG_OK);
    rung_weights *w = result();
    if (w) CHECK(dtype_in(w, "a.weight") == RUNG_F16 && dtype_in(w, "b.weight") == RUNG_F32);
    if (w) CHECK(dtype_in(w, "c.weight") == RUNG_F16); /* infinity is one in f16, too */
    rung_weights_close(&w);
    CHECK(convert_as("fp6", 0, &e) == RUNG_EFORMAT && strstr(e.msg, "c.weight") && strstr(e.msg, "row 0"));
    t[2].data = d;
    write_model(names, t, 3);
    for (int i = 0; i < 2; i++) {
        e = (rung_err){0};
        CHECK(convert_as(i ? "f16" : "e2m3", i ? 0.5 : 0, &e) == RUNG_EFORMAT && strstr(e.msg, "c.weight"));
        struct stat s;
        CHECK(stat(OUT, &s) != 0 && stat(OUT ".partial", &s) != 0);
    }
    clear();
}

/* ---- memory ---- */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
static const bool counts_memory = false; /* the sanitizer's own would be counted */
#else
static const bool counts_memory = true;
#endif

/* Kilobytes that a process of its own has at most while it converts. */
static long peak_of(const char *type, double sparsity) {
    struct rusage use;
    int status = 1;
    fflush(stderr);
    const pid_t pid = fork();
    if (pid == 0) {
        rung_err e = {0};
        _exit(convert_as(type, sparsity, &e) != RUNG_OK);
    }
    CHECK(pid > 0 && wait4(pid, &status, 0, &use) == pid && status == 0);
    return use.ru_maxrss;
}

/* 24 tensors of 8 MiB: no more than two of them at a time, the program itself included. */
static void memory(void) {
    enum { TENSORS = 24, SIDE = 1448 };
    static char names[TENSORS][20];
    const char *list[TENSORS];
    rung_tensor t[TENSORS];
    float *w = malloc((size_t)SIDE * SIDE * sizeof *w);
    uint64_t seed = 1;
    if (!CHECK(w != NULL)) return;
    for (size_t i = 0; i < (size_t)SIDE * SIDE; i++) w[i] = rnd(&seed);
    for (int i = 0; i < TENSORS; i++) {
        snprintf(names[i], sizeof names[i], "t%02d.weight", i);
        list[i] = names[i];
        t[i] = (rung_tensor){.dtype = RUNG_F32, .ndim = 2, .shape = {SIDE, SIDE}, .data = w};
    }
    write_model(list, t, TENSORS);
    free(w);
    const long most = 2 * (long)SIDE * SIDE * 4 / 1024;
    const struct {
        const char *type;
        double sparsity;
    } runs[] = {{"fp6", 0}, {"f16", 0}, {"f32", 0}, {"fp6", 0.5}};
    for (size_t i = 0; i < sizeof runs / sizeof *runs && counts_memory; i++) {
        const long peak = peak_of(runs[i].type, runs[i].sparsity);
        if (!CHECK(peak < most))
            fprintf(stderr, "  %s %g: %ld of %ld KiB\n", runs[i].type, runs[i].sparsity, peak, most);
    }
    clear();
}

int main(void) {
    clear();
    codes_against_a_search();
    small_rows();
    roles();
    numbers_that_do_not_fit();
    memory();
    return check_result();
}
