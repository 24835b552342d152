/* diffusion/contact_sheet.h - the pictures of a comparison in one PNG, with labelled axes. */
#ifndef RUNG_CONTACT_SHEET_H
#define RUNG_CONTACT_SHEET_H
#include "diffusion/compare.h"

/** Reads the pictures that compare_run wrote: a row for each sampler and schedule, a column for each guidance and step
 * count, a block for each subject; the nearest to the reference in each column is framed. Rows of which nothing was
 * drawn are left out. Whole or not at all. RUNG_EIO, RUNG_EFORMAT, RUNG_ENOMEM (also a sheet above 2^28 pixels). */
rung_status contact_sheet_write(const compare *c, const char *path, rung_err *err);

/** One pixel [channels] (RGB, or RGBA with straight alpha) as it looks on white paper: rgb [3]. */
void sheet_over_white(uint8_t *rgb, const uint8_t *pixel, size_t channels);
#endif
