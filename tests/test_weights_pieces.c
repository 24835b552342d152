/* tests/test_weights_pieces.c - tensors that lie in several pieces: read to the bit, and everything that may be wrong
 * with them refused with the tensor's name. */
#include "assets/weights_pieces.h"

#include <stdlib.h>
#include <string.h>

#include "assets/st_writer.h"
#include "kernels/base/fp6.h"
#include "kernels/sparse.h"
#include "kernels/tiled_csl.h"
#include "tests/check.h"

static const char FILE_NAME[] = "test_weights_pieces.safetensors";
static uint64_t seed = 11;

enum { ROWS = 130, IC = 9, TAPS = 9, COLS = IC * TAPS, COUNT = ROWS * COLS, MASK = (COLS + 7) / 8, PIECES = 6 };

/* Pieces of a file under way; a test spoils one of them. */
typedef struct {
    char name[40];
    rung_tensor t;
    unsigned char *data;
    size_t bytes;
} piece;

typedef struct {
    piece p[PIECES];
    size_t n;
    uint16_t words[COUNT]; /* what the tensor holds: codes, or f16 */
    rung_dtype dtype;
} file;

static void add(file *f, const char *ending, rung_dtype dtype, size_t a, size_t b, const void *data) {
    piece *p = &f->p[f->n++];
    snprintf(p->name, sizeof p->name, "net.conv.weight%s", ending);
    p->t = (rung_tensor){.dtype = dtype, .ndim = b ? 2 : 1, .shape = {a, b}};
    p->bytes = rung_tensor_bytes(&p->t);
    p->data = malloc(p->bytes + 16);
    memcpy(p->data, data, p->bytes);
}

static piece *find(file *f, const char *ending) {
    for (size_t i = 0; i < f->n; i++)
        if (strcmp(f->p[i].name + strlen("net.conv.weight"), ending) == 0) return &f->p[i];
    return NULL;
}

static void release(file *f) {
    for (size_t i = 0; i < f->n; i++) free(f->p[i].data);
}

static void shape_and_scale(file *f) {
    static const uint32_t shape[4] = {ROWS, IC, 3, 3};
    float scale[ROWS];
    for (size_t r = 0; r < ROWS; r++) scale[r] = 0.25f + (float)r;
    add(f, ".shape", RUNG_U32, 4, 0, shape);
    if (f->dtype != RUNG_F16) add(f, ".scale", RUNG_F32, ROWS, 0, scale);
}

static void fill_words(file *f, double density) {
    for (size_t i = 0; i < COUNT; i++) {
        const int kept = (rnd(&seed) + 1) / 2 < density;
        const unsigned bits = rung_dtype_bits(f->dtype);
        f->words[i] = kept ? (uint16_t)(seed >> 20 & ((1u << bits) - 1)) : 0;
        if (f->dtype == RUNG_F16 && (f->words[i] & 0x7c00) == 0x7c00)
            f->words[i] = 0x8000; /* NaN compares with nothing */
    }
}

static file make_bitmap(rung_dtype dtype, double density) {
    file f = {.dtype = dtype};
    static unsigned char bitmap[ROWS * MASK], values[COUNT * 2 + 4];
    size_t held = 0;
    memset(bitmap, 0, sizeof bitmap);
    memset(values, 0, sizeof values);
    fill_words(&f, density);
    for (size_t i = 0; i < COUNT; i++) {
        if (!f.words[i]) continue;
        bitmap[i / COLS * MASK + i % COLS / 8] |= (unsigned char)(1u << i % COLS % 8);
        if (dtype == RUNG_F16)
            memcpy(values + 2 * held++, &f.words[i], 2);
        else
            rung_fp6_put(values, held++, (uint8_t)f.words[i]);
    }
    add(&f, ".bitmap", RUNG_U8, ROWS, MASK, bitmap);
    add(&f, ".values", dtype, dtype == RUNG_F16 ? held : (held + 3) / 4 * 4, 0, values);
    shape_and_scale(&f);
    return f;
}

static file make_tiles(rung_dtype dtype, double density) {
    file f = {.dtype = dtype};
    static uint32_t items[RUNG_CSL_TILE], tiles[5];
    static uint16_t positions[4 * RUNG_CSL_TILE];
    static unsigned char values[8 * RUNG_CSL_TILE];
    size_t at = 0;
    memset(values, 0, sizeof values);
    fill_words(&f, density);
    for (size_t t = 0; t < 4; t++) { /* 2 x 2 tiles */
        const size_t row = t / 2 * RUNG_CSL_ROWS, col = t % 2 * RUNG_CSL_COLS;
        const size_t n = rung_csl_pack_tile(items, f.words + row * COLS + col, COLS,
                                            ROWS - row < 128 ? ROWS - row : 128, COLS - col < 64 ? COLS - col : 64);
        for (size_t i = 0; i < n; i++, at++) {
            const uint16_t word = (uint16_t)items[i];
            positions[at] = (uint16_t)(items[i] >> 16);
            if (dtype == RUNG_F16)
                memcpy(values + 2 * at, &word, 2);
            else
                rung_fp6_put(values, at, (uint8_t)word);
        }
        tiles[t + 1] = (uint32_t)(at / 4);
    }
    add(&f, ".tiles", RUNG_U32, 5, 0, tiles);
    add(&f, ".positions", RUNG_U16, at, 0, positions);
    add(&f, ".values", dtype, at, 0, values);
    shape_and_scale(&f);
    return f;
}

static file make_five(rung_dtype dtype) {
    file f = {.dtype = dtype};
    static unsigned char stream[COUNT * 5 / 8 + 1];
    memset(stream, 0, sizeof stream);
    fill_words(&f, 1);
    for (size_t i = 0; i < COUNT; i++) rung_fp5_put(stream, i, (uint8_t)f.words[i]);
    add(&f, dtype == RUNG_F5_E3M1 ? ".e3m1" : ".e2m2", RUNG_U8, (COUNT * 5 + 7) / 8, 0, stream);
    shape_and_scale(&f);
    return f;
}

static int write_file(const file *f) {
    rung_err e = {0};
    st_writer *w;
    size_t id;
    if (st_writer_open(&w, FILE_NAME, &e)) return 0;
    for (size_t i = 0; i < f->n; i++) st_writer_add(w, &f->p[i].t, f->p[i].name, &id, &e);
    st_writer_start(w, NULL, &e);
    for (size_t i = 0; i < f->n; i++) st_writer_put(w, i, 0, f->p[i].data, f->p[i].bytes, &e);
    st_writer_close(&w);
    return CHECK(e.code == RUNG_OK);
}

static float value(const file *f, size_t i) {
    const uint8_t code = (uint8_t)f->words[i];
    const float s = 0.25f + (float)(i / COLS);
    if (f->dtype == RUNG_F6_E3M2) return rung_e3m2_to_f32(code) * s;
    if (f->dtype == RUNG_F6_E2M3) return rung_e2m3_to_f32(code) * s;
    if (f->dtype == RUNG_F5_E3M1) return rung_e3m1_to_f32(code) * s;
    if (f->dtype == RUNG_F5_E2M2) return rung_e2m2_to_f32(code) * s;
    return rung_f16_to_f32(f->words[i]);
}

/* The one tensor, under its own name and shape, to the bit; a cut along the rows too. */
static void reads(file f, const char *what) {
    static float out[COUNT];
    rung_weights *w = NULL;
    rung_err e = {0};
    size_t wrong = 0;
    if (!write_file(&f) || !CHECK(rung_weights_open(&w, FILE_NAME, &e) == RUNG_OK)) {
        fprintf(stderr, "  %s: %s\n", what, e.msg);
        release(&f);
        return;
    }
    const rung_tensor *t = rung_weights_find(w, "net.conv.weight");
    CHECK(rung_weights_count(w) == 1 && t && t->ndim == 4 && t->shape[0] == ROWS && t->shape[1] == IC);
    CHECK(t && t->dtype == f.dtype && rung_tensor_to_f32(t, 0, COUNT, out, &e) == RUNG_OK);
    for (size_t i = 0; i < COUNT; i++) {
        const float want = value(&f, i);
        wrong += memcmp(&want, &out[i], sizeof want) != 0;
    }
    if (!CHECK(wrong == 0)) fprintf(stderr, "  %s: %zu wrong\n", what, wrong);
    rung_tensor half;
    if (t && t->bitmap && CHECK(weights_cut_rows(w, "x", t, 1, 2, &half, &e) == RUNG_OK)) {
        CHECK(rung_tensor_to_f32(&half, 0, COUNT / 2, out, &e) == RUNG_OK && half.shape[0] == ROWS / 2);
        for (size_t i = 0; i < COUNT / 2; i++) wrong += out[i] != value(&f, i + COUNT / 2);
        if (!CHECK(wrong == 0)) fprintf(stderr, "  %s: %zu wrong in the lower half\n", what, wrong);
    }
    rung_weights_close(&w);
    release(&f);
}

/* `says`: a part of the message, beside the tensor's name. */
static void refuses(file f, const char *says) {
    rung_weights *w = NULL;
    rung_err e = {0};
    CHECK(write_file(&f));
    const rung_status st = rung_weights_open(&w, FILE_NAME, &e);
    if (!CHECK(st == RUNG_EFORMAT && !w && strstr(e.msg, "net.conv.weight") && strstr(e.msg, says)))
        fprintf(stderr, "  wanted \"%s\", got: %s\n", says, e.msg);
    rung_weights_close(&w);
    release(&f);
}

static void set_u32(piece *p, size_t i, uint32_t v) { memcpy(p->data + 4 * i, &v, 4); }
static void set_float(piece *p, size_t i, float v) { memcpy(p->data + 4 * i, &v, 4); }

/* The piece is shorter by `n` elements of its last dimension. */
static void shorten(piece *p, size_t n) {
    p->t.shape[p->t.ndim - 1] -= n;
    p->bytes = rung_tensor_bytes(&p->t);
}

static void drop(file *f, const char *ending) {
    piece *p = find(f, ending);
    free(p->data);
    *p = f->p[--f->n];
}

static void hostile_bitmaps(void) {
    file f = make_bitmap(RUNG_F6_E3M2, 0.5);
    find(&f, ".bitmap")->data[3] ^= 1; /* a bit more, or less: the values' number may still do, fours are filled up */
    find(&f, ".bitmap")->data[4] ^= 0xff;
    find(&f, ".bitmap")->data[5] |= 0xff;
    find(&f, ".bitmap")->data[6] |= 0xff;
    refuses(f, "values, wanted");
    f = make_bitmap(RUNG_F16, 0.5);
    find(&f, ".bitmap")->data[3] ^= 1;
    refuses(f, "values, wanted");
    f = make_bitmap(RUNG_F6_E3M2, 0.5);
    find(&f, ".bitmap")->data[2 * MASK - 1] |= 0x80;
    refuses(f, "behind the last column in row 1");
    f = make_bitmap(RUNG_F6_E3M2, 0.5);
    shorten(find(&f, ".values"), 4);
    refuses(f, "values, wanted");
    f = make_bitmap(RUNG_F6_E3M2, 0.5);
    shorten(find(&f, ".bitmap"), 1);
    refuses(f, ".bitmap is [130, 10]");
    f = make_bitmap(RUNG_F6_E3M2, 0.5);
    shorten(find(&f, ".scale"), 1);
    refuses(f, ".scale is [129]");
    static const float bad[] = {-1, INFINITY, NAN};
    for (size_t i = 0; i < 3; i++) {
        f = make_bitmap(RUNG_F6_E2M3, 0.5);
        set_float(find(&f, ".scale"), 77, bad[i]);
        refuses(f, "in row 77");
    }
    f = make_bitmap(RUNG_F6_E3M2, 0.5);
    set_u32(find(&f, ".shape"), 1, 0x40000000);
    refuses(f, ".bitmap is");
    f = make_bitmap(RUNG_F6_E3M2, 0.5);
    for (size_t i = 0; i < 4; i++) set_u32(find(&f, ".shape"), i, 0xffffffff);
    refuses(f, "empty or too large");
    f = make_bitmap(RUNG_F6_E3M2, 0.5);
    set_u32(find(&f, ".shape"), 2, 0);
    refuses(f, "empty or too large");
    f = make_bitmap(RUNG_F6_E3M2, 0.5);
    find(&f, ".values")->t.dtype = RUNG_U8;
    find(&f, ".values")->t.shape[0] = find(&f, ".values")->bytes;
    refuses(f, ".values is U8");
    for (int i = 0; i < 2; i++) {
        static const char *const endings[] = {".values", ".shape"};
        f = make_bitmap(RUNG_F6_E3M2, 0.5);
        drop(&f, endings[i]);
        refuses(f, "is missing");
    }
    f = make_bitmap(RUNG_F6_E3M2, 0.5);
    add(&f, "", RUNG_F16, ROWS, COLS, f.words); /* dense as well */
    refuses(f, "there twice");
}

static void filling(void) {
    file f = make_bitmap(RUNG_F6_E3M2, 0.5);
    piece *values = find(&f, ".values"), *bitmap = find(&f, ".bitmap");
    /* One bit less: its value is now behind the last, and the number of fours may stay. */
    for (size_t r = ROWS; r-- > 0;) {
        size_t c = COLS;
        while (c > 0 && !f.words[r * COLS + c - 1]) c--;
        if (c == 0) continue;
        bitmap->data[r * MASK + (c - 1) / 8] &= (unsigned char)~(1u << (c - 1) % 8);
        rung_fp6_put(values->data, values->t.shape[0] - 1, 1);
        break;
    }
    refuses(f, "value");
}

static void hostile_tiles(void) {
    file f = make_tiles(RUNG_F6_E3M2, 0.05);
    set_u32(find(&f, ".tiles"), 2, 0);
    refuses(f, "falls, or more than a tile");
    f = make_tiles(RUNG_F6_E3M2, 0.05);
    set_u32(find(&f, ".tiles"), 0, 1);
    refuses(f, "falls, or more than a tile");
    f = make_tiles(RUNG_F6_E3M2, 0.05);
    set_u32(find(&f, ".tiles"), 4, 3000);
    refuses(f, "falls, or more than a tile");
    f = make_tiles(RUNG_F6_E3M2, 0.05);
    shorten(find(&f, ".tiles"), 1);
    refuses(f, ".tiles has 4 numbers");
    f = make_tiles(RUNG_F6_E3M2, 0.05);
    shorten(find(&f, ".positions"), 4);
    refuses(f, ".tiles ends at item");
    f = make_tiles(RUNG_F6_E3M2, 0.05);
    shorten(find(&f, ".values"), 4);
    refuses(f, ".tiles ends at item");
    f = make_tiles(RUNG_F16, 0.05);
    find(&f, ".positions")->data[1] = 0x20; /* 8192 and more */
    refuses(f, "outside of a tile");
    f = make_tiles(RUNG_F16, 0.5);
    memcpy(find(&f, ".positions")->data, find(&f, ".positions")->data + 2, 2);
    refuses(f, "another item's");
    f = make_tiles(RUNG_F16, 0.5); /* an item of the last tile (2 rows, 17 columns) in row 100 of it */
    memcpy(find(&f, ".positions")->data + find(&f, ".positions")->bytes - 2, &(uint16_t){100 * 64}, 2);
    memcpy(find(&f, ".values")->data + find(&f, ".values")->bytes - 2, &(uint16_t){0x3c00}, 2);
    refuses(f, "outside of the tensor");
    f = make_tiles(RUNG_F6_E3M2, 0.05);
    drop(&f, ".positions");
    refuses(f, ".positions is missing");
}

static void hostile_five(void) {
    file f = make_five(RUNG_F5_E3M1);
    shorten(find(&f, ".e3m1"), 1);
    refuses(f, "'s stream is");
    f = make_five(RUNG_F5_E2M2);
    find(&f, ".e2m2")->data[(COUNT * 5 + 7) / 8 - 1] |= 1;
    refuses(f, "behind the last code");
    f = make_five(RUNG_F5_E2M2);
    set_float(find(&f, ".scale"), 3, NAN);
    refuses(f, "in row 3");
}

/* Names that only look like pieces are tensors of their own. */
static void lookalikes(void) {
    file f = {.dtype = RUNG_F16};
    static const float four[4] = {1, 2, 3, 4};
    add(&f, ".values", RUNG_F32, 4, 0, four);
    add(&f, ".shape", RUNG_F32, 4, 0, four);
    add(&f, ".scale", RUNG_F32, 4, 0, four);
    rung_weights *w = NULL;
    rung_err e = {0};
    CHECK(write_file(&f) && rung_weights_open(&w, FILE_NAME, &e) == RUNG_OK && rung_weights_count(w) == 3);
    rung_weights_close(&w);
    release(&f);
}

int main(void) {
    static const double densities[] = {0, 0.001, 0.3, 0.49, 0.5, 0.51, 1};
    static const rung_dtype dtypes[] = {RUNG_F6_E3M2, RUNG_F6_E2M3, RUNG_F16};
    for (size_t d = 0; d < 3; d++) {
        for (size_t i = 0; i < sizeof densities / sizeof *densities; i++) {
            reads(make_bitmap(dtypes[d], densities[i]), "bitmap");
            reads(make_tiles(dtypes[d], densities[i]), "tiles");
        }
    }
    reads(make_five(RUNG_F5_E3M1), "e3m1");
    reads(make_five(RUNG_F5_E2M2), "e2m2");
    hostile_bitmaps();
    filling();
    hostile_tiles();
    hostile_five();
    lookalikes();
    remove(FILE_NAME);
    return check_result();
}
