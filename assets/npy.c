#include "assets/npy.h"

#include <ctype.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "assets/json.h"
#include "assets/outfile.h"
#include "kernels/base/size.h"
#include "kernels/base/tensor.h"

enum { MAX_NDIM = 8 };
static const size_t MAX_FILE = (size_t)4 << 30;
static const char MAGIC[] = "\x93NUMPY";

/* The header is a Python dict literal: {'descr': '<f4', 'fortran_order': False, 'shape': (1, 4), }. */
struct header {
    const char *at, *end;
};

static void skip_space(struct header *h) {
    while (h->at < h->end && isspace((unsigned char)*h->at)) h->at++;
}

static bool take(struct header *h, const char *word) {
    skip_space(h);
    const size_t n = strlen(word);
    if ((size_t)(h->end - h->at) < n || memcmp(h->at, word, n) != 0) return false;
    h->at += n;
    return true;
}

/* A string in single or double quotes; numpy's own need no escapes. */
static bool take_string(struct header *h, char *out, size_t cap) {
    skip_space(h);
    if (h->at >= h->end || (*h->at != '\'' && *h->at != '"')) return false;
    const char quote = *h->at++;
    size_t n = 0;
    for (; h->at < h->end && *h->at != quote; h->at++) {
        if (n + 1 >= cap || *h->at == '\\') return false;
        out[n++] = *h->at;
    }
    out[n] = 0;
    return take(h, quote == '"' ? "\"" : "'");
}

static bool take_size(struct header *h, size_t *out) {
    skip_space(h);
    size_t n = 0;
    const char *start = h->at;
    for (; h->at < h->end && isdigit((unsigned char)*h->at); h->at++) {
        if (!size_mul(n, 10, &n) || n > SIZE_MAX - 9) return false;
        n += (size_t)(*h->at - '0');
    }
    *out = n;
    return h->at > start;
}

static bool take_shape(struct header *h, rung_npy *a) {
    if (!take(h, "(")) return false;
    while (!take(h, ")")) {
        if (a->ndim == MAX_NDIM || !take_size(h, &a->shape[a->ndim++])) return false;
        if (!take(h, ",")) return take(h, ")");
    }
    return true;
}

static bool parse_header(struct header h, rung_npy *a, char *descr, size_t cap, bool *fortran) {
    bool have_descr = false, have_order = false, have_shape = false;
    if (!take(&h, "{")) return false;
    while (!take(&h, "}")) {
        char key[32];
        if (!take_string(&h, key, sizeof key) || !take(&h, ":")) return false;
        if (strcmp(key, "descr") == 0 && !have_descr) {
            have_descr = take_string(&h, descr, cap);
            if (!have_descr) return false;
        } else if (strcmp(key, "fortran_order") == 0 && !have_order) {
            have_order = true;
            *fortran = take(&h, "True");
            if (!*fortran && !take(&h, "False")) return false;
        } else if (strcmp(key, "shape") == 0 && !have_shape) {
            have_shape = take_shape(&h, a);
            if (!have_shape) return false;
        } else {
            return false;
        }
        if (!take(&h, ",")) {
            if (!take(&h, "}")) return false;
            break;
        }
    }
    skip_space(&h);
    return have_descr && have_order && have_shape && h.at == h.end;
}

static rung_status convert(rung_npy *a, rung_dtype dtype, const char *data, size_t bytes, const char *path,
                           rung_err *err) {
    size_t want;
    a->count = 1;
    bool fits = true;
    for (int i = 0; i < a->ndim; i++) fits = fits && size_mul(a->count, size_max(a->shape[i], 1), &a->count);
    for (int i = 0; i < a->ndim; i++)
        if (a->shape[i] == 0) a->count = 0;
    if (!fits || !size_mul(a->count, rung_dtype_bits(dtype) / 8, &want) || want != bytes)
        return rung_fail(err, RUNG_EFORMAT, "%s: %zu bytes of data do not match the shape in the header", path, bytes);
    a->data = malloc(size_max(a->count, 1) * sizeof *a->data);
    if (!a->data) return rung_fail(err, RUNG_ENOMEM, "%s: no memory for %zu numbers", path, a->count);
    const rung_tensor view = {.dtype = dtype, .ndim = 1, .shape = {a->count}, .data = data};
    return rung_tensor_to_f32(&view, 0, a->count, a->data, err);
}

static rung_status decode(rung_npy *out, const char *text, size_t bytes, const char *path, rung_err *err) {
    static const struct {
        const char *descr;
        rung_dtype dtype;
    } kinds[] = {{"<f4", RUNG_F32}, {"<f2", RUNG_F16}, {"<f8", RUNG_F64}};
    const unsigned char *u = (const unsigned char *)text;
    if (bytes < 10 || memcmp(text, MAGIC, sizeof MAGIC - 1) != 0)
        return rung_fail(err, RUNG_EFORMAT, "%s: is not a .npy file", path);
    const size_t start = u[6] == 1 ? 10 : 12;
    if (u[6] < 1 || u[6] > 3 || bytes < start)
        return rung_fail(err, RUNG_EFORMAT, "%s: .npy version is %d.%d, wanted 1.0 to 3.0", path, u[6], u[7]);
    size_t len = u[8] | (size_t)u[9] << 8;
    if (start == 12) len |= (size_t)u[10] << 16 | (size_t)u[11] << 24;
    char descr[16] = "";
    bool fortran = false;
    if (len > bytes - start ||
        !parse_header((struct header){text + start, text + start + len}, out, descr, sizeof descr, &fortran))
        return rung_fail(err, RUNG_EFORMAT, "%s: the .npy header cannot be read (at most %d dimensions)", path,
                         MAX_NDIM);
    if (fortran && out->ndim > 1) return rung_fail(err, RUNG_EFORMAT, "%s: is in Fortran order, wanted C order", path);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(descr, kinds[i].descr) == 0)
            return convert(out, kinds[i].dtype, text + start + len, bytes - start - len, path, err);
    return rung_fail(err, RUNG_EFORMAT, "%s: dtype is '%s', wanted '<f4', '<f2' or '<f8'", path, descr);
}

rung_status rung_npy_read(rung_npy *out, const char *path, rung_err *err) {
    *out = (rung_npy){0};
    char *text;
    size_t bytes;
    RUNG_TRY(rung_file_read(path, MAX_FILE, &text, &bytes, err));
    const rung_status st = decode(out, text, bytes, path, err);
    free(text);
    if (st) rung_npy_free(out);
    return st;
}

void rung_npy_free(rung_npy *a) {
    free(a->data);
    *a = (rung_npy){0};
}

rung_status rung_npy_write(const char *path, const float *data, int ndim, const size_t *shape, rung_err *err) {
    char dict[64 + MAX_NDIM * 24] = "";
    size_t at = (size_t)snprintf(dict, sizeof dict, "{'descr': '<f4', 'fortran_order': False, 'shape': (");
    size_t count = 1;
    for (int i = 0; i < ndim; i++) {
        at += (size_t)snprintf(dict + at, sizeof dict - at, i ? ", %zu" : "%zu", shape[i]);
        count *= shape[i];
    }
    at += (size_t)snprintf(dict + at, sizeof dict - at, ndim == 1 ? ",), }" : "), }");
    const size_t total = size_div_up(10 + at + 1, 64) * 64; /* numpy pads with spaces and ends with a newline */
    const unsigned char prefix[10] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, (total - 10) & 0xff, (total - 10) >> 8};
    rung_outfile o;
    RUNG_TRY(rung_outfile_open(&o, path, err));
    fwrite(prefix, 1, sizeof prefix, o.f);
    fprintf(o.f, "%s%*s\n", dict, (int)(total - 11 - at), "");
    fwrite(data, sizeof *data, count, o.f);
    return rung_outfile_commit(&o, err); /* sees a write that failed */
}
