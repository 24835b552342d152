/* tests/fuzz/fuzz_png.c - the PNG reader over arbitrary bytes. */
#include <stdlib.h>

#include "vae/png.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint8_t *bytes;
    char *parameters;
    size_t w, h, channels;
    rung_err err = {0};
    if (rung_png_decode(data, size, "fuzz", &bytes, &w, &h, &channels, &parameters, &err) == RUNG_OK) {
        volatile uint8_t last = bytes[w * h * channels - 1];
        (void)last;
    }
    free(bytes);
    free(parameters);
    return 0;
}
