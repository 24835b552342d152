/* diffusion/font.h - a 5x7 bitmap font for labels in pictures. */
#ifndef RUNG_FONT_H
#define RUNG_FONT_H
#include <stdint.h>

enum { FONT_W = 5, FONT_H = 7 };

/** Rows of a printable ASCII character from the top, bit 4 is the leftmost pixel; those of '?' for anything else. */
const uint8_t *font_glyph(unsigned char c);
#endif
