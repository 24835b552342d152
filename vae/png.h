/* vae/png.h - PNG files through libpng. */
#ifndef RUNG_PNG_H
#define RUNG_PNG_H
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/err.h"

/**
 * bytes [h, w, channels] from image f32 [h, w, channels] in [-1, 1]: clamp, round((x + 1) * 127.5). 4 channels:
 * premultiplied RGB and alpha come in, straight RGB and alpha go out (transparent pixels are 0, 0, 0, 0).
 */
void rung_image_bytes(uint8_t *bytes, const float *image, size_t h, size_t w, size_t channels);

/**
 * Writes an 8-bit PNG, channels 3 (RGB) or 4 (RGBA), whole or not at all. `parameters`: NULL, or UTF-8 text for the
 * chunk of that name: tEXt when it is latin-1, else iTXt. RUNG_EIO with path and reason, RUNG_ENOMEM.
 */
rung_status rung_png_write(const char *path, const uint8_t *bytes, size_t w, size_t h, size_t channels,
                           const char *parameters, rung_err *err);

/**
 * Reads a PNG as 8-bit RGB or RGBA (others are converted; sides to 16384, 512 MiB of pixels): *bytes [h, w, channels]
 * is malloc'd. For compare and tests. *parameters: the text chunk of that name, malloc'd UTF-8, or NULL when there is
 * none (pass NULL when not wanted). RUNG_EIO, RUNG_EFORMAT, RUNG_ENOMEM; on error *bytes and *parameters are NULL.
 */
rung_status rung_png_read(const char *path, uint8_t **bytes, size_t *w, size_t *h, size_t *channels, char **parameters,
                          rung_err *err);

/** The same from n bytes of memory; `where` names the source in messages. */
rung_status rung_png_decode(const uint8_t *data, size_t n, const char *where, uint8_t **bytes, size_t *w, size_t *h,
                            size_t *channels, char **parameters, rung_err *err);
#endif
