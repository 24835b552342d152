/* tests/test_png.c - pixels to bytes, PNG files out and in. Golden: tools/goldens/vae.py. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "assets/json.h"
#include "assets/npy.h"
#include "tests/check.h"
#include "vae/png.h"
#include "vae/spots.h"

#define CORPUS RUNG_TEST_DIR "/fuzz/corpus/fuzz_png/"

static void rgb_is_what_diffusers_gives(void) {
    rung_npy in, want;
    rung_err e = {0};
    if (!CHECK(!rung_npy_read(&in, RUNG_TEST_DIR "/golden/vae/pixels.npy", &e))) return;
    if (!CHECK(!rung_npy_read(&want, RUNG_TEST_DIR "/golden/vae/bytes.npy", &e))) return;
    uint8_t got[16 * 16 * 3];
    CHECK(in.count == sizeof got && want.count == sizeof got);
    rung_image_bytes(got, in.data, 16, 16, 3);
    size_t wrong = 0;
    for (size_t i = 0; i < sizeof got; i++) wrong += got[i] != (uint8_t)want.data[i];
    CHECK(wrong == 0);
    rung_npy_free(&in);
    rung_npy_free(&want);
}

static int pixel_is(const float *in, int r, int g, int b, int a) {
    uint8_t p[4] = {9, 9, 9, 9};
    rung_image_bytes(p, in, 1, 1, 4);
    if (p[0] == r && p[1] == g && p[2] == b && p[3] == a) return 1;
    fprintf(stderr, "  %d %d %d %d\n", p[0], p[1], p[2], p[3]);
    return 0;
}

static void alpha_becomes_straight(void) {
    CHECK(pixel_is((float[]){1, 0, -1, 1}, 255, 128, 0, 255));
    CHECK(pixel_is((float[]){0, -0.5f, -1, 0}, 255, 128, 0, 128));     /* half covered: colour / 0.5 */
    CHECK(pixel_is((float[]){0.9f, 0, -1, 0}, 255, 255, 0, 128));      /* more colour than alpha */
    CHECK(pixel_is((float[]){1, 1, 1, -1}, 0, 0, 0, 0));               /* transparent */
    CHECK(pixel_is((float[]){1, 1, 1, -0.9999f}, 0, 0, 0, 0));         /* alpha rounds to 0 */
    CHECK(pixel_is((float[]){-0.995f, -1, -1, -0.99f}, 128, 0, 0, 1)); /* alpha rounds to 1 */
    CHECK(pixel_is((float[]){NAN, 1, INFINITY, 1}, 0, 255, 255, 255));
    CHECK(pixel_is((float[]){1, 1, 1, NAN}, 0, 0, 0, 0));
    uint8_t rgb[3] = {9, 9, 9};
    rung_image_bytes(rgb, (float[]){NAN, -INFINITY, INFINITY}, 1, 1, 3);
    CHECK(rgb[0] == 0 && rgb[1] == 0 && rgb[2] == 255);
}

/* Planes 1 to 3 of the golden: what is left of plane 0 without spots of at most `largest` pixels. */
static int spots_go(const float *planes, size_t plane, size_t largest) {
    enum { H = 32, W = 40 };
    uint8_t rgba[H * W * 4];
    size_t wrong = 0;
    for (size_t i = 0; i < sizeof rgba; i++) rgba[i] = i % 4 == 3 ? (uint8_t)planes[i / 4] : 77;
    rung_clear_spots(rgba, H, W, largest);
    for (size_t i = 0; i < sizeof rgba; i += 4) {
        const float alpha = planes[plane * H * W + i / 4];
        const int colour = alpha == planes[i / 4] ? 77 : 0;
        wrong += rgba[i + 3] != alpha || (rgba[i] != colour && planes[i / 4] > 0);
    }
    return wrong == 0;
}

static void spots_are_cleared(void) {
    rung_npy g;
    rung_err e = {0};
    if (!CHECK(!rung_npy_read(&g, RUNG_TEST_DIR "/golden/vae/spots.npy", &e))) return;
    CHECK(g.count == 4 * 32 * 40);
    CHECK(spots_go(g.data, 0, 0));
    CHECK(spots_go(g.data, 1, 1));
    CHECK(spots_go(g.data, 2, 12));
    CHECK(spots_go(g.data, 3, 64));
    CHECK(spots_go(g.data, 3, SIZE_MAX)); /* no more than RUNG_SPOT_LARGEST */
    rung_npy_free(&g);
    uint8_t dot[4] = {9, 9, 9, 13};
    rung_clear_spots(dot, 1, 1, 1);
    CHECK(dot[0] == 0 && dot[3] == 0);
    rung_clear_spots(NULL, 0, 7, 12);
}

static int file_holds(const char *path, const char *what) {
    char *text;
    size_t n, len = strlen(what);
    rung_err e = {0};
    if (rung_file_read(path, 1 << 24, &text, &n, &e)) return 0;
    int found = 0;
    for (size_t i = 0; i + len <= n && !found; i++) found = memcmp(text + i, what, len) == 0;
    free(text);
    return found;
}

/* `read_back`: what the text comes back as; `kind`: the chunk. */
static void write_and_read(size_t w, size_t h, size_t channels, const char *text, const char *read_back,
                           const char *kind) {
    const char *path = "test_png.out.png";
    uint8_t *bytes = malloc(w * h * channels), *got = NULL;
    char *got_text = NULL;
    size_t gw, gh, gc;
    rung_err e = {0};
    uint64_t s = w + 31 * h + channels;
    for (size_t i = 0; i < w * h * channels; i++) bytes[i] = (uint8_t)(rnd(&s) * 128);
    if (!CHECK(rung_png_write(path, bytes, w, h, channels, text, &e) == RUNG_OK)) fprintf(stderr, "  %s\n", e.msg);
    if (CHECK(rung_png_read(path, &got, &gw, &gh, &gc, &got_text, &e) == RUNG_OK)) {
        CHECK(gw == w && gh == h && gc == channels && memcmp(got, bytes, w * h * channels) == 0);
        CHECK(read_back ? got_text && strcmp(got_text, read_back) == 0 : got_text == NULL);
        CHECK(file_holds(path, "tEXt") == (kind && strcmp(kind, "tEXt") == 0));
        CHECK(file_holds(path, "iTXt") == (kind && strcmp(kind, "iTXt") == 0));
    }
    free(got);
    free(got_text);
    free(bytes);
    CHECK(unlink(path) == 0);
}

static void round_trips(void) {
    write_and_read(1, 1, 3, NULL, NULL, NULL);
    write_and_read(129, 3, 4, NULL, NULL, NULL);
    const char *plain = "a cat\nNegative prompt: dog\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 42, Size: 8x8";
    write_and_read(8, 8, 3, plain, plain, "tEXt");
    write_and_read(5, 7, 4, "caf\xc3\xa9 \xc3\xbf", "caf\xc3\xa9 \xc3\xbf", "tEXt");
    write_and_read(5, 7, 4, "\xe7\x8c\xab caf\xc3\xa9", "\xe7\x8c\xab caf\xc3\xa9", "iTXt");
    write_and_read(5, 7, 3, "", "", "tEXt");
    write_and_read(5, 7, 3, "caf\xe9", "caf\xc3\xa9", "tEXt"); /* no UTF-8: taken for latin-1 */
    write_and_read(700, 500, 4, plain, plain, "tEXt");
}

static void bad_writes_are_reported(void) {
    static uint8_t noise[600 * 400 * 3];
    uint64_t s = 1;
    for (size_t i = 0; i < sizeof noise; i++) noise[i] = (uint8_t)(rnd(&s) * 128);
    rung_err e = {0}, small = {0}, large = {0}, arg = {0}, wide = {0};
    CHECK(rung_png_write("no/such/folder/x.png", noise, 2, 2, 3, NULL, &e) == RUNG_EIO && strstr(e.msg, "no/such"));
    if (access("/dev/full", W_OK) == 0) {
        CHECK(rung_png_write("/dev/full", noise, 2, 2, 3, NULL, &small) == RUNG_EIO && strstr(small.msg, "space"));
        CHECK(rung_png_write("/dev/full", noise, 600, 400, 3, "x", &large) == RUNG_EIO && strstr(large.msg, "space"));
    }
    CHECK(rung_png_write("x.png", noise, 2, 2, 2, NULL, &arg) == RUNG_EARG);
    CHECK(rung_png_write("x.png", noise, 3000000, 1, 3, NULL, &wide) == RUNG_EIO && access("x.png", F_OK) != 0);
}

static int reads_as(const char *name, size_t channels, const char *text) {
    char path[300], *got_text;
    uint8_t *bytes;
    size_t w, h, c;
    rung_err e = {0};
    snprintf(path, sizeof path, "%s%s", CORPUS, name);
    if (rung_png_read(path, &bytes, &w, &h, &c, &got_text, &e)) {
        fprintf(stderr, "  %s\n", e.msg);
        return 0;
    }
    const int right = w == 7 && h == 9 && c == channels &&
                      (text ? got_text && strncmp(got_text, text, strlen(text)) == 0 : got_text == NULL);
    free(bytes);
    free(got_text);
    return right;
}

static int refused(const char *name, rung_status want) {
    char path[300], *text;
    uint8_t *bytes;
    size_t w, h, c;
    rung_err e = {0};
    snprintf(path, sizeof path, "%s%s", CORPUS, name);
    const rung_status st = rung_png_read(path, &bytes, &w, &h, &c, &text, &e);
    return st == want && !bytes && !text && strstr(e.msg, name);
}

static void reads_what_others_write(void) {
    CHECK(reads_as("text_latin1.png", 3, "caf\xc3\xa9\nSteps: 20"));
    CHECK(reads_as("text_utf8.png", 3, "\xe7\x8c\xab, \xc3\xa9\nSteps: 20"));
    CHECK(reads_as("rgba_ztxt.png", 4, "packed packed"));
    CHECK(reads_as("palette.png", 4, NULL));
    CHECK(reads_as("grey.png", 3, NULL));
    CHECK(reads_as("bit.png", 3, NULL));
    CHECK(reads_as("grey16.png", 3, NULL));
    CHECK(reads_as("interlaced.png", 3, NULL));
    CHECK(refused("cut.png", RUNG_EFORMAT));
    CHECK(refused("huge.png", RUNG_EFORMAT));
    CHECK(refused("no_png", RUNG_EFORMAT));
    CHECK(refused("not_there.png", RUNG_EIO));
    CHECK(refused("", RUNG_EIO));
}

/* The interlaced file holds the same pixels as text_latin1.png, the grey ones its red channel. */
static void conversions_keep_pixels(void) {
    static const char *const names[] = {"text_latin1.png", "interlaced.png", "grey.png", "grey16.png"};
    uint8_t *p[4] = {0};
    size_t w, h, c;
    rung_err e = {0};
    for (int i = 0; i < 4; i++) {
        char path[300];
        snprintf(path, sizeof path, "%s%s", CORPUS, names[i]);
        if (!CHECK(rung_png_read(path, &p[i], &w, &h, &c, NULL, &e) == RUNG_OK)) goto done;
    }
    CHECK(memcmp(p[0], p[1], 7 * 9 * 3) == 0);
    int wrong = 0;
    for (int i = 0; i < 7 * 9 * 3; i++) wrong += p[2][i] != p[0][i / 3 * 3] || p[3][i] != p[0][i / 3 * 3];
    CHECK(wrong == 0);
done:
    for (int i = 0; i < 4; i++) free(p[i]);
}

int main(void) {
    rgb_is_what_diffusers_gives();
    alpha_becomes_straight();
    spots_are_cleared();
    round_trips();
    bad_writes_are_reported();
    reads_what_others_write();
    conversions_keep_pixels();
    return check_result();
}
