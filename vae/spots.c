/* vae/spots.c - isolated spots beside a picture's shape. A network's latents leave some now and then; no other part of
 * the picture depends on them. */
#include "vae/spots.h"

#include <stdbool.h>
#include <string.h>

typedef struct {
    uint8_t *rgba;
    size_t h, w;
} picture;

/* NULL outside of the picture. */
static uint8_t *neighbour(const picture *p, size_t at, int dy, int dx) {
    const size_t y = at / p->w + (size_t)dy, x = at % p->w + (size_t)dx; /* -1 wraps to more than any size */
    return y < p->h && x < p->w ? p->rgba + (y * p->w + x) * 4 : NULL;
}

static bool joins(const uint8_t *pixel) { return pixel && pixel[3] > RUNG_SPOT_FAINT; }

/* The first pixel of a spot, row by row, has none of it before or above it. */
static bool may_begin(const picture *p, size_t at) {
    return joins(p->rgba + at * 4) && !joins(neighbour(p, at, 0, -1)) && !joins(neighbour(p, at, -1, -1)) &&
           !joins(neighbour(p, at, -1, 0)) && !joins(neighbour(p, at, -1, 1));
}

static bool holds(const size_t *spot, size_t n, size_t at) {
    for (size_t i = 0; i < n; i++)
        if (spot[i] == at) return true;
    return false;
}

/* All pixels that are joined with spot[0]; their number, or more than `largest` as soon as there are more. */
static size_t gather(const picture *p, size_t *spot, size_t largest) {
    size_t n = 1;
    for (size_t i = 0; i < n; i++)
        for (int k = 0; k < 9; k++) {
            const uint8_t *pixel = neighbour(p, spot[i], k / 3 - 1, k % 3 - 1);
            if (!joins(pixel)) continue;
            const size_t at = (size_t)(pixel - p->rgba) / 4;
            if (holds(spot, n, at)) continue;
            if (n == largest) return largest + 1;
            spot[n++] = at;
        }
    return n;
}

static void clear(const picture *p, const size_t *spot, size_t n) {
    for (size_t i = 0; i < n; i++)
        for (int k = 0; k < 9; k++) {
            uint8_t *pixel = neighbour(p, spot[i], k / 3 - 1, k % 3 - 1);
            if (pixel && !joins(pixel)) memset(pixel, 0, 4);
        }
    for (size_t i = 0; i < n; i++) memset(p->rgba + spot[i] * 4, 0, 4);
}

void rung_clear_spots(uint8_t *rgba, size_t h, size_t w, size_t largest) {
    const picture p = {rgba, h, w};
    size_t spot[RUNG_SPOT_LARGEST];
    if (largest > RUNG_SPOT_LARGEST) largest = RUNG_SPOT_LARGEST;
    for (size_t at = 0; largest > 0 && at < h * w; at++) {
        if (!may_begin(&p, at)) continue;
        spot[0] = at;
        const size_t n = gather(&p, spot, largest);
        if (n <= largest) clear(&p, spot, n);
    }
}
