/* tests/test_convert_forms.c - rung convert's forms: the same numbers to the bit, whichever form they lie in; which
 * form is taken; that a form comes back. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "assets/model.h"
#include "assets/st_writer.h"
#include "diffusion/convert.h"
#include "kernels/base/fp6.h"
#include "kernels/sparse.h"
#include "kernels/tiled_csl.h"
#include "tests/check.h"

#define IN              "test_convert_forms.in"
#define OUT             "test_convert_forms.out"
#define BACK            "test_convert_forms.back"
#define FILE_OF(folder) folder "/unet/diffusion_pytorch_model.safetensors"

/* Zeros in a hundred of the tiles across, from the left; the last tile is cut, as is the last row of tiles. */
static const unsigned tile_zeros[] = {0, 49, 50, 51, 90, 100, 100, 100, 100, 100, 97};
enum { TILES = sizeof tile_zeros / sizeof *tile_zeros, COLS = (TILES - 1) * RUNG_CSL_COLS + 24, ROWS = 152 };

static uint64_t seed = 3;

static bool is_zero(unsigned of_hundred) { return (double)(rnd(&seed) + 1) * 50 < of_hundred; }

/* Full, empty and half full tiles; -0 in all but the empty ones. */
static void fill_tiles(float *w) {
    for (size_t r = 0; r < ROWS; r++)
        for (size_t c = 0; c < COLS; c++) {
            const unsigned zeros = tile_zeros[c / RUNG_CSL_COLS];
            w[r * COLS + c] = is_zero(zeros) ? 0 : rnd(&seed) + (zeros ? 0 : 3);
            if (zeros < 100 && (r + c) % 61 == 0) w[r * COLS + c] = -0.0f;
        }
}

static void fill_evenly(float *w, unsigned zeros) {
    for (size_t i = 0; i < (size_t)ROWS * COLS; i++) w[i] = is_zero(zeros) ? 0 : rnd(&seed) + (rnd(&seed) < 0 ? 2 : -2);
}

static void clear(void) { CHECK(system("rm -rf " IN " " OUT " " OUT ".partial " BACK " " BACK ".partial") == 0); }

static void write_model(const char *const *names, const rung_tensor *tensors, size_t count) {
    rung_err e = {0};
    st_writer *w;
    size_t id;
    mkdir(IN, 0777);
    mkdir(IN "/unet", 0777);
    FILE *f = fopen(IN "/model_index.json", "w");
    CHECK(f && fputs("{\"_class_name\": \"X\", \"unet\": [\"diffusers\", \"UNet2DConditionModel\"]}", f) >= 0);
    if (f) fclose(f);
    if (!CHECK(st_writer_open(&w, FILE_OF(IN), &e) == RUNG_OK)) return;
    for (size_t i = 0; i < count; i++) CHECK(st_writer_add(w, &tensors[i], names[i], &id, &e) == RUNG_OK);
    CHECK(st_writer_start(w, NULL, &e) == RUNG_OK);
    for (size_t i = 0; i < count; i++)
        CHECK(st_writer_put(w, i, 0, tensors[i].data, rung_tensor_bytes(&tensors[i]), &e) == RUNG_OK);
    st_writer_close(&w);
}

static void convert(const char *in, const char *out, const char *type, const char *form) {
    rung_err e = {0};
    convert_report r;
    const convert_options o = {.model = in, .out = out, .type = type, .form = form, .threads = 2};
    char command[100];
    snprintf(command, sizeof command, "rm -rf %s", out);
    CHECK(system(command) == 0);
    if (!CHECK(rung_convert(&o, &r, &e) == RUNG_OK)) fprintf(stderr, "  %s as %s: %s\n", type, form, e.msg);
    convert_report_free(&r);
}

static rung_weights *open_file(const char *path) {
    rung_err e = {0};
    rung_weights *w = NULL;
    if (!CHECK(rung_weights_open(&w, path, &e) == RUNG_OK)) fprintf(stderr, "  %s\n", e.msg);
    return w;
}

static rung_form form_of(const rung_tensor *t) {
    return t->tiled ? RUNG_FORM_TILED_CSL : t->bitmap ? RUNG_FORM_BITMAP : RUNG_FORM_DENSE;
}

static const char *const form_names[] = {"dense", "bitmap", "tiled-csl"};

/* The numbers of `name` in two files are the same bits; `form`: the second one's. */
static void same(const char *name, rung_weights *a, rung_weights *b, rung_form form, const char *what) {
    static float x[ROWS * COLS], y[ROWS * COLS];
    rung_err e = {0};
    const rung_tensor *s = rung_weights_find(a, name), *t = rung_weights_find(b, name);
    if (!CHECK(s && t && t->ndim == s->ndim && rung_tensor_count(s) == rung_tensor_count(t))) return;
    if (!CHECK(form_of(t) == form))
        fprintf(stderr, "  %s, %s: is %s, wanted %s\n", what, name, form_names[form_of(t)], form_names[form]);
    const size_t n = rung_tensor_count(s);
    CHECK(rung_tensor_to_f32(s, 0, n, x, &e) == RUNG_OK && rung_tensor_to_f32(t, 0, n, y, &e) == RUNG_OK);
    if (!CHECK(memcmp(x, y, n * sizeof *x) == 0)) fprintf(stderr, "  %s, %s: other bits\n", what, name);
}

static bool same_bytes(const char *a, const char *b) {
    char command[200];
    snprintf(command, sizeof command, "cmp -s %s %s", a, b);
    return system(command) == 0;
}

/* Every type in every form, against its dense form; then f32 and back, and from form to form. */
static void every_form(void) {
    static float tiles[ROWS * COLS], conv[64 * 64 * 9], empty[128 * 64];
    static const char *const names[] = {"conv.weight", "empty.weight", "tiles.weight"};
    const rung_tensor tensors[] = {{.dtype = RUNG_F32, .ndim = 4, .shape = {64, 64, 3, 3}, .data = conv},
                                   {.dtype = RUNG_F32, .ndim = 2, .shape = {128, 64}, .data = empty},
                                   {.dtype = RUNG_F32, .ndim = 2, .shape = {ROWS, COLS}, .data = tiles}};
    fill_tiles(tiles);
    for (size_t i = 0; i < sizeof conv / sizeof *conv; i++) conv[i] = is_zero(80) ? 0 : rnd(&seed);
    write_model(names, tensors, 3);
    static const char *const types[] = {"fp6", "e2m3", "f16", "bf16"};
    for (size_t i = 0; i < 4; i++) {
        char what[40];
        convert(IN, BACK, types[i], "dense");
        rung_weights *dense = open_file(FILE_OF(BACK));
        for (rung_form form = RUNG_FORM_DENSE; dense && form <= RUNG_FORM_TILED_CSL; form++) {
            snprintf(what, sizeof what, "%s as %s", types[i], form_names[form]);
            convert(IN, OUT, types[i], form_names[form]);
            rung_weights *w = open_file(FILE_OF(OUT));
            if (!w) continue;
            same("conv.weight", dense, w, form, what);
            same("empty.weight", dense, w, form, what);
            same("tiles.weight", dense, w, form, what);
            rung_weights_close(&w);
        }
        rung_weights_close(&dense);
        for (rung_form form = RUNG_FORM_DENSE; form <= RUNG_FORM_TILED_CSL; form++) {
            convert(IN, OUT, types[i], form_names[form]);
            convert(OUT, BACK, "f32", NULL);
            CHECK(system("rm -rf " OUT ".1 && mv " OUT " " OUT ".1") == 0);
            convert(BACK, OUT, types[i], form_names[form]);
            if (!CHECK(same_bytes(FILE_OF(OUT), FILE_OF(OUT ".1"))))
                fprintf(stderr, "  %s as %s, f32 and back: other bytes\n", types[i], form_names[form]);
            /* and a file in one form becomes a file in another one by way of the form alone */
            const rung_form next = form == RUNG_FORM_BITMAP ? RUNG_FORM_TILED_CSL : RUNG_FORM_BITMAP;
            if (form == RUNG_FORM_DENSE) continue;
            convert(OUT, BACK, types[i], form_names[next]);
            convert(IN, OUT, types[i], form_names[next]);
            if (!CHECK(same_bytes(FILE_OF(OUT), FILE_OF(BACK))))
                fprintf(stderr, "  %s, %s to %s: other bytes\n", types[i], form_names[form], form_names[next]);
        }
        CHECK(system("rm -rf " OUT ".1") == 0);
    }
    clear();
}

/* NaN and infinity of 16 bits go through all forms; a NaN keeps its payload, for nothing is rounded. */
static void not_a_number(void) {
    static uint16_t w[128 * 64], back[128 * 64];
    static const char *const name = "a.weight";
    static const uint16_t odd[] = {0x7e01, 0xfe00, 0x7c00, 0xfc00, 0x8000, 0x0001, 0x7d55};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) w[i * 977] = odd[i];
    static const rung_dtype dtypes[] = {RUNG_F16, RUNG_BF16};
    for (size_t d = 0; d < 2; d++) {
        const rung_tensor t = {.dtype = dtypes[d], .ndim = 2, .shape = {128, 64}, .data = w};
        write_model(&name, &t, 1);
        for (rung_form form = RUNG_FORM_DENSE; form <= RUNG_FORM_TILED_CSL; form++) {
            convert(IN, OUT, d ? "bf16" : "f16", form_names[form]);
            rung_weights *f = open_file(FILE_OF(OUT));
            const rung_tensor *q = f ? rung_weights_find(f, name) : NULL;
            if (!q) continue;
            size_t at = 0;
            for (size_t i = 0; i < 128 * 64; i++) {
                const bool held = !q->bitmap || q->bitmap[i / 8] >> i % 8 & 1;
                back[i] = 0;
                if (held) memcpy(&back[i], (const char *)q->data + 2 * at++, 2);
            }
            if (!CHECK(memcmp(back, w, sizeof w) == 0))
                fprintf(stderr, "  %s as %s: other bits\n", rung_dtype_name(dtypes[d]), form_names[form]);
            rung_weights_close(&f);
        }
    }
    clear();
}

static rung_form chosen(rung_weights *w, const char *name) {
    const rung_tensor *t = rung_weights_find(w, name);
    return CHECK(t != NULL) ? form_of(t) : RUNG_FORM_DENSE;
}

/* By bytes; small tensors too; what somebody else has pruned, be it in every other row or column only. */
static void choice(void) {
    static float w[6][ROWS * COLS], tiny[8 * 8];
    static const unsigned zeros[] = {3, 15, 30, 60, 97, 50};
    static const char *const names[] = {"a03.weight", "b15.weight", "c30.weight",  "d60.weight",
                                        "e97.weight", "f50.weight", "tiny.weight", "time_embedding.weight"};
    rung_tensor t[8];
    for (size_t i = 0; i < 6; i++) {
        fill_evenly(w[i], zeros[i]);
        t[i] = (rung_tensor){.dtype = RUNG_F32, .ndim = 2, .shape = {ROWS, COLS}, .data = w[i]};
    }
    for (size_t i = 0; i < (size_t)ROWS * COLS; i++) w[5][i] = i / COLS % 2 ? 1 : 0;
    for (size_t i = 0; i < 64; i++) tiny[i] = i % 8 ? 1 : 0;
    t[6] = (rung_tensor){.dtype = RUNG_F32, .ndim = 2, .shape = {8, 8}, .data = tiny};
    t[7] = t[3];
    write_model(names, t, 8);
    static const rung_form expected[3][8] = {
        {0, 0, RUNG_FORM_BITMAP, RUNG_FORM_BITMAP, RUNG_FORM_TILED_CSL, RUNG_FORM_BITMAP, 0, RUNG_FORM_BITMAP},
        {0, 0, RUNG_FORM_BITMAP, RUNG_FORM_BITMAP, RUNG_FORM_TILED_CSL, RUNG_FORM_BITMAP, 0, RUNG_FORM_BITMAP},
        {0, 0, RUNG_FORM_BITMAP, RUNG_FORM_BITMAP, RUNG_FORM_BITMAP, RUNG_FORM_BITMAP, 0, RUNG_FORM_BITMAP}};
    static const char *const forms[] = {"auto", "tiled-csl", "bitmap"};
    for (size_t f = 0; f < 3; f++) {
        convert(IN, OUT, "fp6", forms[f]);
        rung_weights *out = open_file(FILE_OF(OUT));
        for (size_t i = 0; out && i < 8; i++)
            if (!CHECK(chosen(out, names[i]) == expected[f][i]))
                fprintf(stderr, "  %s, %s: %s\n", forms[f], names[i], form_names[chosen(out, names[i])]);
        rung_weights_close(&out);
    }
    clear();
}

/* Times weigh as much as bytes. */
static void by_time(void) {
    rung_form_times slow, fast;
    for (int i = 0; i < RUNG_FORM_STEPS; i++) {
        slow.sparse[i] = 2;
        fast.sparse[i] = 1.0f - 0.05f * (float)i;
    }
    const size_t n = 1280 * 1280;
    CHECK(rung_form_choose(RUNG_F6_E3M2, 1280, 1280, n / 2, NULL) == RUNG_FORM_BITMAP);
    CHECK(rung_form_choose(RUNG_F6_E3M2, 1280, 1280, n / 2, &slow) == RUNG_FORM_DENSE);
    CHECK(rung_form_choose(RUNG_F6_E3M2, 1280, 1280, n / 2, &fast) == RUNG_FORM_BITMAP);
    CHECK(rung_form_choose(RUNG_F6_E3M2, 1280, 1280, n / 10, &slow) == RUNG_FORM_BITMAP);
    CHECK(fabs(rung_form_time(&fast, 0.55) - 0.725) < 1e-6 && fabs(rung_form_time(&fast, 0.95) - 0.55) < 1e-6);
    CHECK(rung_form_time(&fast, 0) == 1 && rung_form_time(&fast, 1) == fast.sparse[RUNG_FORM_STEPS - 1]);
}

int main(void) {
    clear();
    every_form();
    not_a_number();
    choice();
    by_time();
    return check_result();
}
