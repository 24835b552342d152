/* diffusion/compare_data.h - the numbers of a comparison as files for other programs. */
#ifndef RUNG_COMPARE_DATA_H
#define RUNG_COMPARE_DATA_H
#include "assets/json.h"
#include "diffusion/compare.h"

/** RFC 4180 with a header line; a line for each picture, refused ones too, the two references first in each group.
 *  Both functions write whole or not at all: RUNG_EIO, RUNG_ENOMEM. */
rung_status compare_csv_write(const compare *c, const char *path, rung_err *err);
/** One object: version, model, psnr_db_when_equal, best (for each number of steps, what comes nearest to the reference
 *  with that many denoiser calls), and pictures: the same fields as the CSV, and each one's command. */
rung_status compare_json_write(const compare *c, const char *model, const char *path, rung_err *err);

/** Adds a picture's fields to `o`, as they stand in the JSON. */
void compare_cell_json(cJSON *o, const compare *c, const compare_cell *p);
#endif
