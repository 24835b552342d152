/* vae/spots.h - isolated spots beside a picture's shape. */
#ifndef RUNG_SPOTS_H
#define RUNG_SPOTS_H
#include <stddef.h>
#include <stdint.h>

enum {
    RUNG_SPOT_LARGEST = 64, /* pixels */
    RUNG_SPOT_FAINT = 12    /* of 255: alpha that joins nothing, 5% */
};

/**
 * Makes each spot of at most `largest` pixels (<= RUNG_SPOT_LARGEST; 0: none) in RGBA [h, w, 4] transparent, with the
 * fainter pixels around it. A spot: pixels of alpha above RUNG_SPOT_FAINT, joined over sides and corners, that touch no
 * others. tools/train/evaluate.py counts the same ones (scipy.ndimage.label); tests compare with what it cleared.
 */
void rung_clear_spots(uint8_t *rgba, size_t h, size_t w, size_t largest);
#endif
