/* vae/image.c - from the decoder's floats to bytes. */
#include <math.h>
#include <string.h>

#include "vae/png.h"

/* [-1, 1] to [0, 1], clamped; NaN to 0. The roundings are diffusers' VaeImageProcessor's. */
static float unit(float x) {
    const float u = x * 0.5f + 0.5f;
    return u > 0 ? (u < 1 ? u : 1) : 0;
}

static uint8_t byte(float u) { return (uint8_t)rintf(u * 255); }

static void straight_pixel(uint8_t *out, const float *in) {
    const float alpha = unit(in[3]);
    memset(out, 0, 4);
    out[3] = byte(alpha);
    if (out[3] == 0) return;
    for (int c = 0; c < 3; c++) {
        const float colour = unit(in[c]) / alpha;
        out[c] = byte(colour < 1 ? colour : 1);
    }
}

void rung_image_bytes(uint8_t *bytes, const float *image, size_t h, size_t w, size_t channels) {
    const size_t n = h * w * channels;
    if (channels == 4)
        for (size_t i = 0; i < n; i += 4) straight_pixel(bytes + i, image + i);
    else
        for (size_t i = 0; i < n; i++) bytes[i] = byte(unit(image[i]));
}
