/* vae/png.c - PNG files through libpng. libpng reports errors by longjmp: each function that calls setjmp keeps what
 * must survive the jump in a struct of its caller, never in its own variables. */
#define _POSIX_C_SOURCE 200809L /* strdup */
#include "vae/png.h"

#include <errno.h>
#include <png.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "assets/json.h"
#include "assets/outfile.h"
#include "kernels/base/size.h"

enum { MAX_SIDE = 16384, MAX_FILE = 1 << 29, MAX_PIXEL_BYTES = 1 << 29, MAX_CHUNK = 8 << 20 };
static char keyword[] = "parameters"; /* libpng's struct wants it writable; nobody writes */

struct fault {
    char msg[160];
};

static void on_error(png_structp png, png_const_charp msg) {
    struct fault *f = png_get_error_ptr(png);
    snprintf(f->msg, sizeof f->msg, "%s", msg);
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp msg) {
    (void)png;
    (void)msg;
}

/* ---- text ---- */

/* The latin-1 form of UTF-8 `text`, malloc'd; *out = NULL when it has none. Bytes that are no UTF-8 are taken for
 * latin-1: the picture is worth more than the point. */
static rung_status to_latin1(const char *text, char **out, rung_err *err) {
    const size_t n = strlen(text);
    size_t k = 0;
    char *latin1 = malloc(n + 1);
    *out = NULL;
    if (!latin1) return rung_fail(err, RUNG_ENOMEM, "png: no memory for the text");
    for (size_t i = 0; i < n;) {
        utf8proc_int32_t cp;
        const utf8proc_ssize_t step =
            utf8proc_iterate((const utf8proc_uint8_t *)text + i, (utf8proc_ssize_t)(n - i), &cp);
        if (step < 0) {
            memcpy(latin1, text, n);
            k = n;
            break;
        }
        if (cp > 0xff) {
            free(latin1);
            return RUNG_OK;
        }
        latin1[k++] = (char)cp;
        i += (size_t)step;
    }
    latin1[k] = 0;
    *out = latin1;
    return RUNG_OK;
}

static char *from_latin1(const char *text, size_t n) {
    char *utf8 = malloc(2 * n + 1), *at = utf8;
    if (!utf8) return NULL;
    for (size_t i = 0; i < n; i++) {
        const unsigned char c = (unsigned char)text[i];
        if (c >= 0x80) *at++ = (char)(0xc0 | c >> 6);
        *at++ = (char)(c < 0x80 ? c : 0x80 | (c & 0x3f));
    }
    *at = 0;
    return utf8;
}

/* ---- writing ---- */

struct writer {
    const uint8_t *bytes;
    size_t w, h, channels;
    png_text text; /* text.key == NULL: none */
    struct fault fault;
};

static void write_bytes(png_structp png, png_bytep data, size_t n) {
    if (fwrite(data, 1, n, png_get_io_ptr(png)) != n) png_error(png, strerror(errno));
}

static void flush_nothing(png_structp png) { (void)png; /* rung_outfile_commit flushes */ }

static bool write_picture(png_structp png, png_infop info, struct writer *o) {
    if (setjmp(png_jmpbuf(png))) return false;
    png_set_IHDR(png, info, (png_uint_32)o->w, (png_uint_32)o->h, 8,
                 o->channels == 4 ? PNG_COLOR_TYPE_RGB_ALPHA : PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    if (o->text.key) png_set_text(png, info, &o->text, 1);
    png_write_info(png, info);
    for (size_t y = 0; y < o->h; y++) png_write_row(png, o->bytes + y * o->w * o->channels);
    png_write_end(png, NULL);
    return true;
}

static rung_status write_file(const char *path, struct writer *o, rung_err *err) {
    rung_outfile file;
    rung_status st = RUNG_OK;
    png_infop info = NULL;
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &o->fault, on_error, on_warning);
    if (png) info = png_create_info_struct(png);
    if (!info) {
        png_destroy_write_struct(&png, NULL);
        return rung_fail(err, RUNG_ENOMEM, "%s: libpng does not start: %s", path, o->fault.msg);
    }
    RUNG_TRY_GOTO(st, done, rung_outfile_open(&file, path, err));
    png_set_write_fn(png, file.f, write_bytes, flush_nothing);
    if (!write_picture(png, info, o)) {
        st = rung_fail(err, RUNG_EIO, "%s: could not be written: %s", path, o->fault.msg);
        rung_outfile_abort(&file);
        goto done;
    }
    st = rung_outfile_commit(&file, err);
done:
    png_destroy_write_struct(&png, &info);
    return st;
}

rung_status rung_png_write(const char *path, const uint8_t *bytes, size_t w, size_t h, size_t channels,
                           const char *parameters, rung_err *err) {
    char *latin1 = NULL;
    struct writer o = {.bytes = bytes, .w = w, .h = h, .channels = channels};
    if ((channels != 3 && channels != 4) || w == 0 || h == 0 || w > PNG_UINT_31_MAX || h > PNG_UINT_31_MAX)
        return rung_fail(err, RUNG_EARG, "%s: %zu x %zu pixels of %zu channels make no PNG", path, w, h, channels);
    if (parameters) {
        RUNG_TRY(to_latin1(parameters, &latin1, err));
        o.text.key = keyword;
        o.text.compression = latin1 ? PNG_TEXT_COMPRESSION_NONE : PNG_ITXT_COMPRESSION_NONE;
        o.text.text = latin1 ? latin1 : (char *)parameters;
        o.text.text_length = latin1 ? strlen(latin1) : 0;
        o.text.itxt_length = latin1 ? 0 : strlen(parameters);
    }
    const rung_status st = write_file(path, &o, err);
    free(latin1);
    return st;
}

/* ---- reading ---- */

struct reader {
    const uint8_t *data;
    size_t n, at;
    uint8_t *bytes; /* malloc'd pixels */
    size_t w, h, channels;
    char *parameters; /* malloc'd UTF-8 */
    bool want_parameters;
    struct fault fault;
};

static void read_bytes(png_structp png, png_bytep out, size_t n) {
    struct reader *in = png_get_io_ptr(png);
    if (n > in->n - in->at) png_error(png, "the file ends too early");
    memcpy(out, in->data + in->at, n);
    in->at += n;
}

static void find_parameters(png_structp png, png_infop info, struct reader *in) {
    png_textp text;
    int count = 0;
    png_get_text(png, info, &text, &count);
    for (int i = 0; i < count && !in->parameters; i++) {
        if (strcmp(text[i].key, keyword) != 0) continue;
        const bool utf8 = text[i].compression >= PNG_ITXT_COMPRESSION_NONE;
        in->parameters = utf8 ? strdup(text[i].text) : from_latin1(text[i].text, strlen(text[i].text));
        if (!in->parameters) png_error(png, "no memory for the text");
    }
}

static bool read_picture(png_structp png, png_infop info, struct reader *in) {
    if (setjmp(png_jmpbuf(png))) return false;
    png_read_info(png, info);
    in->w = png_get_image_width(png, info);
    in->h = png_get_image_height(png, info);
    png_set_expand(png); /* palette, 1 to 4 bits, a transparent colour */
    png_set_scale_16(png);
    png_set_gray_to_rgb(png);
    const int passes = png_set_interlace_handling(png);
    png_read_update_info(png, info);
    in->channels = png_get_channels(png, info);
    const size_t row = in->w * in->channels;
    if (png_get_rowbytes(png, info) != row || (in->channels != 3 && in->channels != 4))
        png_error(png, "unknown pixel format");
    if (row > MAX_PIXEL_BYTES / in->h) png_error(png, "the picture is too large");
    in->bytes = malloc(row * in->h);
    if (!in->bytes) png_error(png, "no memory for the pixels");
    for (int pass = 0; pass < passes; pass++)
        for (size_t y = 0; y < in->h; y++) png_read_row(png, in->bytes + y * row, NULL);
    png_read_end(png, info);
    if (in->want_parameters) find_parameters(png, info, in);
    return true;
}

rung_status rung_png_decode(const uint8_t *data, size_t n, const char *where, uint8_t **bytes, size_t *w, size_t *h,
                            size_t *channels, char **parameters, rung_err *err) {
    struct reader in = {.data = data, .n = n, .want_parameters = parameters};
    png_infop info = NULL;
    rung_status st = RUNG_OK;
    *bytes = NULL;
    if (parameters) *parameters = NULL;
    if (n < 8 || png_sig_cmp(data, 0, 8) != 0) return rung_fail(err, RUNG_EFORMAT, "%s: is no PNG file", where);
    png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &in.fault, on_error, on_warning);
    if (png) info = png_create_info_struct(png);
    if (!info) {
        png_destroy_read_struct(&png, NULL, NULL);
        return rung_fail(err, RUNG_ENOMEM, "%s: libpng does not start: %s", where, in.fault.msg);
    }
    png_set_user_limits(png, MAX_SIDE, MAX_SIDE);
    png_set_chunk_malloc_max(png, MAX_CHUNK);
    png_set_read_fn(png, &in, read_bytes);
    if (read_picture(png, info, &in)) {
        *bytes = in.bytes;
        *w = in.w;
        *h = in.h;
        *channels = in.channels;
        if (parameters) *parameters = in.parameters;
    } else {
        st = rung_fail(err, RUNG_EFORMAT, "%s: %s", where, in.fault.msg);
        free(in.bytes);
        free(in.parameters);
    }
    png_destroy_read_struct(&png, &info, NULL);
    return st;
}

rung_status rung_png_read(const char *path, uint8_t **bytes, size_t *w, size_t *h, size_t *channels, char **parameters,
                          rung_err *err) {
    char *data;
    size_t n;
    *bytes = NULL;
    if (parameters) *parameters = NULL;
    RUNG_TRY(rung_file_read(path, MAX_FILE, &data, &n, err));
    const rung_status st = rung_png_decode((const uint8_t *)data, n, path, bytes, w, h, channels, parameters, err);
    free(data);
    return st;
}
