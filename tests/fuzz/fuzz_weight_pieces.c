/* tests/fuzz/fuzz_weight_pieces.c - any bytes as the pieces of a sparse or five-bit tensor. The header is right for the
 * sizes that the first eight bytes ask for, so what is reached is the reader of the pieces. */
#include <string.h>

#include "assets/weights.h"
#include "tests/fuzz/fuzz_file.h"

enum { HEAD = 8, HEADER = 1000 };

static const char *const values[] = {"F6_E3M2", "F6_E2M3", "F16", "BF16"};
static const size_t value_bits[] = {6, 6, 16, 16};

/* One entry of the header; the next one begins where it ends. */
static void entry(char *header, const char *ending, const char *dtype, size_t a, size_t b, size_t bytes, size_t *at) {
    const size_t n = strlen(header);
    char shape[60];
    snprintf(shape, sizeof shape, b ? "[%zu,%zu]" : "[%zu]", a, b);
    snprintf(header + n, HEADER - n, "%s\"w%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}",
             *at || n > 1 ? "," : "{", ending, dtype, shape, *at, *at + bytes);
    *at += bytes;
}

static size_t bytes_of(size_t count, size_t bits) { return count * bits / 8; }

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static uint8_t file[HEADER + (1 << 16)];
    char header[HEADER] = "", path[100];
    size_t at = 0;
    if (size < HEAD) return 0;
    const size_t dims = 1 + data[1] % 4, v = data[2] % 4, rows = data[3], cols = data[4], scales = data[5];
    const size_t count = (data[6] | (size_t)data[7] << 8) % 4096 / 4 * 4;
    entry(header, ".shape", "U32", dims, 0, 4 * dims, &at);
    entry(header, ".scale", "F32", scales, 0, 4 * scales, &at);
    if (data[0] % 3 == 0) {
        entry(header, ".bitmap", "U8", rows, cols ? cols : 1, rows * (cols ? cols : 1), &at);
    } else if (data[0] % 3 == 1) {
        entry(header, ".tiles", "U32", cols, 0, 4 * cols, &at);
        entry(header, ".positions", "U16", count, 0, 2 * count, &at);
    } else {
        entry(header, data[0] % 2 ? ".e3m1" : ".e2m2", "U8", rows, 0, rows, &at);
    }
    entry(header, ".values", values[v], count, 0, bytes_of(count, value_bits[v]), &at);
    strcat(header, "}");
    const uint64_t n = strlen(header);
    memset(file, 0, sizeof file);
    for (int i = 0; i < 8; i++) file[i] = (uint8_t)(n >> 8 * i);
    memcpy(file + 8, header, n);
    if (8 + n + at > sizeof file) return 0;
    memcpy(file + 8 + n, data + HEAD, size - HEAD < at ? size - HEAD : at);

    rung_weights *w;
    rung_err err = {0};
    fuzz_file(path, sizeof path, ".safetensors", file, 8 + n + at);
    if (rung_weights_open(&w, path, &err) == RUNG_OK) {
        const rung_tensor *t = rung_weights_find(w, "w");
        float out[64];
        const size_t all = t ? rung_tensor_count(t) : 0;
        for (size_t i = 0; i < all; i += 64) rung_tensor_to_f32(t, i, all - i < 64 ? all - i : 64, out, &err);
    }
    rung_weights_close(&w);
    remove(path);
    return 0;
}
