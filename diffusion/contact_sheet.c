#include "diffusion/contact_sheet.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "diffusion/font.h"
#include "kernels/base/size.h"
#include "vae/png.h"

enum {
    SCALE = 2, /* pixels of one dot of the font */
    ADVANCE = (FONT_W + 1) * SCALE,
    LINE = (FONT_H + 3) * SCALE,
    MOST_TILE = 256, /* longer sides are made smaller */
    LEAST_TILE = 9 * ADVANCE,
    GAP = 12,
    FRAME = 3,             /* around the nearest of a column */
    DESCENT = 2,           /* dots that letters with a tail stand lower */
    MOST_PIXELS = 1 << 27, /* then pictures are made smaller, too */
    PAPER = 255,
};

static const uint8_t INK[3] = {34, 40, 49}, PALE[3] = {112, 120, 134}, BEST[3] = {22, 139, 82};

struct sheet {
    const compare *c;
    uint8_t *rgb; /* [h, w, 3] */
    size_t w, h;
    size_t shrink;           /* picture pixels along a side of one sheet pixel */
    size_t tile_w, tile_h;   /* place of a picture with its label */
    size_t margin;           /* of the row labels */
    size_t n_rows;           /* that have pictures */
    size_t block_w, block_h; /* of a subject */
    size_t columns;          /* of subjects */
};

void sheet_over_white(uint8_t *rgb, const uint8_t *pixel, size_t channels) {
    const unsigned alpha = channels == 4 ? pixel[3] : 255;
    for (int k = 0; k < 3; k++) rgb[k] = (uint8_t)((pixel[k] * alpha + 255 * (255 - alpha) + 127) / 255);
}

static void fill(struct sheet *s, size_t x, size_t y, size_t w, size_t h, const uint8_t *colour) {
    for (size_t j = y; j < size_min(y + h, s->h); j++)
        for (size_t i = x; i < size_min(x + w, s->w); i++) memcpy(s->rgb + 3 * (j * s->w + i), colour, 3);
}

/* What does not fit on the sheet is cut. A character of several UTF-8 bytes is one '?', control characters are blank.
 */
static void write_text(struct sheet *s, size_t x, size_t y, const uint8_t *colour, const char *text) {
    for (; *text && x + ADVANCE <= s->w; text++) {
        const unsigned char ch = (unsigned char)*text;
        if ((ch & 0xc0) == 0x80) continue;
        const uint8_t *glyph = font_glyph(ch < ' ' ? ' ' : ch);
        const size_t drop = strchr("gpqy", ch) ? DESCENT : 0;
        for (size_t j = 0; j < FONT_H; j++)
            for (size_t i = 0; i < FONT_W; i++)
                if (glyph[j] >> (FONT_W - 1 - i) & 1)
                    fill(s, x + i * SCALE, y + (j + drop) * SCALE, SCALE, SCALE, colour);
        x += ADVANCE;
    }
}

/* The mean of shrink x shrink picture pixels. */
static void shrink_pixel(uint8_t *out, const uint8_t *bytes, size_t w, size_t channels, size_t shrink) {
    size_t sum[3] = {0};
    for (size_t j = 0; j < shrink; j++)
        for (size_t i = 0; i < shrink; i++) {
            uint8_t rgb[3];
            sheet_over_white(rgb, bytes + (j * w + i) * channels, channels);
            for (int k = 0; k < 3; k++) sum[k] += rgb[k];
        }
    for (int k = 0; k < 3; k++) out[k] = (uint8_t)((sum[k] + shrink * shrink / 2) / (shrink * shrink));
}

static rung_status read_picture(const compare *c, const compare_cell *p, uint8_t **bytes, size_t *w, size_t *h,
                                size_t *channels, rung_err *err) {
    char *path = compare_path(c, p->file);
    const rung_status st = path ? rung_png_read(path, bytes, w, h, channels, NULL, err)
                                : rung_fail(err, RUNG_ENOMEM, "contact sheet: out of memory");
    free(path);
    return st;
}

static rung_status put_cell(struct sheet *s, const compare_cell *p, const char *label, bool best, size_t x, size_t y,
                            rung_err *err) {
    uint8_t *bytes;
    size_t w, h, channels;
    if (p->refusal) {
        write_text(s, x, y, PALE, "skipped");
        return RUNG_OK;
    }
    RUNG_TRY(read_picture(s->c, p, &bytes, &w, &h, &channels, err));
    const size_t k = s->shrink, shown_w = size_min(w / k, s->tile_w - GAP), shown_h = size_min(h / k, s->tile_h);
    if (best) fill(s, x - FRAME, y - FRAME, shown_w + 2 * FRAME, shown_h + 2 * FRAME, BEST);
    for (size_t j = 0; j < shown_h; j++)
        for (size_t i = 0; i < shown_w; i++)
            shrink_pixel(s->rgb + 3 * ((y + j) * s->w + x + i), bytes + (j * k * w + i * k) * channels, w, channels, k);
    free(bytes);
    write_text(s, x, y + s->tile_h - LINE - GAP / 2, best ? BEST : INK, label);
    return RUNG_OK;
}

static void label_of(char *text, size_t size, const compare_cell *p) {
    if (p->psnr == COMPARE_EQUAL)
        snprintf(text, size, "equal");
    else if (isfinite(p->psnr))
        snprintf(text, size, "%.1f dB%s", p->psnr, p->ode ? "" : " *");
    else
        snprintf(text, size, "-");
}

static rung_status put_row(struct sheet *s, size_t subject, size_t row, size_t x, size_t y, rung_err *err) {
    const compare *c = s->c;
    const char *schedule = c->schedulers[row % c->n_schedulers];
    char label[96];
    write_text(s, x + GAP, y, INK, c->samplers[row / c->n_schedulers]);
    write_text(s, x + GAP, y + LINE, PALE, strcmp(schedule, "default") == 0 ? "model's own" : schedule);
    for (size_t i = 0; i < c->n_cfgs * c->n_steps; i++) {
        const size_t cfg = i / c->n_steps, step = i % c->n_steps;
        const compare_cell *p = compare_at(c, subject, cfg, row, step);
        label_of(label, sizeof label, p);
        RUNG_TRY(put_cell(s, p, label, compare_is_nearest(c, subject, cfg, row, step), x + s->margin + i * s->tile_w, y,
                          err));
    }
    return RUNG_OK;
}

static void put_title(struct sheet *s, size_t subject, size_t x, size_t y) {
    const rung_request *r = &s->c->subjects[subject];
    const size_t fit = (s->block_w - 2 * GAP) / ADVANCE;
    char seed[48], text[256];
    const int n = snprintf(seed, sizeof seed, " (seed %llu)", (unsigned long long)r->seed);
    const size_t room = size_min(fit, sizeof text - 1), tail = (size_t)n;
    size_t shown = 0, at = 0;
    for (; r->prompt[at] && shown + tail + 3 < room; at++) shown += ((unsigned char)r->prompt[at + 1] & 0xc0) != 0x80;
    snprintf(text, sizeof text, "%.*s%s%s", (int)at, r->prompt, r->prompt[at] ? "..." : "", seed);
    write_text(s, x + GAP, y, INK, text);
}

/* Title, column labels, the reference row, the rows of the samplers */
static rung_status put_block(struct sheet *s, size_t subject, size_t left, size_t y, rung_err *err) {
    const compare *c = s->c;
    char label[96];
    fill(s, left + GAP, y, s->block_w - 2 * GAP, 2, INK);
    put_title(s, subject, left, y + GAP);
    y += GAP + LINE + GAP / 2;
    for (size_t i = 0; i < c->n_cfgs; i++) {
        const size_t x = left + s->margin + i * c->n_steps * s->tile_w;
        snprintf(label, sizeof label, "%d steps", c->reference_steps);
        RUNG_TRY(put_cell(s, compare_reference(c, subject, i, 0), label, false, x, y, err));
    }
    write_text(s, left + GAP, y, INK, c->reference);
    write_text(s, left + GAP, y + LINE, PALE, "reference");
    y += s->tile_h;
    for (size_t i = 0; i < c->n_cfgs * c->n_steps; i++) {
        snprintf(label, sizeof label, "%d steps", c->steps[i % c->n_steps]);
        write_text(s, left + s->margin + i * s->tile_w, y, INK, label);
        snprintf(label, sizeof label, "cfg %g", (double)c->cfgs[i / c->n_steps]);
        write_text(s, left + s->margin + i * s->tile_w, y + LINE, PALE, label);
    }
    y += 2 * LINE + GAP / 2;
    for (size_t row = 0; row < c->n_rows; row++) {
        if (compare_row_is_empty(c, row)) continue;
        RUNG_TRY(put_row(s, subject, row, left, y, err));
        y += s->tile_h;
    }
    return RUNG_OK;
}

/* Subjects may differ in size: the largest sides decide the tiles. */
static rung_status measure(struct sheet *s, size_t *most_w, size_t *most_h, rung_err *err) {
    for (size_t i = 0; i < s->c->n_subjects; i++) {
        uint8_t *bytes;
        size_t w, h, channels;
        RUNG_TRY(read_picture(s->c, compare_reference(s->c, i, 0, 0), &bytes, &w, &h, &channels, err));
        free(bytes);
        *most_w = size_max(*most_w, w);
        *most_h = size_max(*most_h, h);
    }
    return RUNG_OK;
}

/* Everything that follows from `shrink`, for pictures of at most w x h */
static bool fits(struct sheet *s, size_t w, size_t h) {
    const compare *c = s->c;
    size_t pixels;
    s->tile_w = size_max(w / s->shrink, LEAST_TILE) + GAP;
    s->tile_h = size_max(h / s->shrink, LINE) + LINE + GAP;
    s->block_h = 2 * GAP + 4 * LINE + (s->n_rows + 1) * s->tile_h;
    s->block_w = s->margin + c->n_cfgs * c->n_steps * s->tile_w + GAP;
    for (s->columns = 1; s->columns < c->n_subjects; s->columns++) /* about as wide as high */
        if (s->columns * s->columns * s->block_w >= c->n_subjects * s->block_h) break;
    s->w = s->columns * s->block_w;
    s->h = 2 * GAP + size_div_up(c->n_subjects, s->columns) * s->block_h + LINE;
    return size_mul(s->w, s->h, &pixels) && pixels <= MOST_PIXELS;
}

static rung_status lay_out(struct sheet *s, rung_err *err) {
    const compare *c = s->c;
    size_t w = 0, h = 0, letters = size_max(strlen("model's own"), strlen(c->reference));
    RUNG_TRY(measure(s, &w, &h, err));
    for (size_t i = 0; i < c->n_rows; i++) {
        s->n_rows += !compare_row_is_empty(c, i);
        letters = size_max(letters, strlen(c->samplers[i / c->n_schedulers]));
        letters = size_max(letters, strlen(c->schedulers[i % c->n_schedulers]));
    }
    s->margin = 2 * GAP + letters * ADVANCE;
    s->shrink = size_div_up(size_max(w, h), MOST_TILE);
    while (!fits(s, w, h) && s->shrink < size_max(w, h)) s->shrink++;
    s->rgb = fits(s, w, h) ? malloc(3 * s->w * s->h) : NULL;
    if (!s->rgb) return rung_fail(err, RUNG_ENOMEM, "contact sheet: no memory for %zu x %zu pixels", s->w, s->h);
    memset(s->rgb, PAPER, 3 * s->w * s->h);
    return RUNG_OK;
}

rung_status contact_sheet_write(const compare *c, const char *path, rung_err *err) {
    struct sheet s = {.c = c};
    rung_status st = lay_out(&s, err);
    for (size_t i = 0; !st && i < c->n_subjects; i++)
        st = put_block(&s, i, i % s.columns * s.block_w, GAP + i / s.columns * s.block_h, err);
    if (!st) {
        write_text(&s, GAP, s.h - LINE, PALE, "PSNR to the reference; * does not aim at it");
        st = rung_png_write(path, s.rgb, s.w, s.h, 3, NULL, err);
    }
    free(s.rgb);
    return st;
}
