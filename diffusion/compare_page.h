/* diffusion/compare_page.h - a comparison as one HTML file that needs nothing else: no network, no folder beside it. */
#ifndef RUNG_COMPARE_PAGE_H
#define RUNG_COMPARE_PAGE_H
#include "diffusion/compare.h"

/** Reads the pictures that compare_run wrote and embeds them. Whatever the user gave (prompts, paths) is shown as text,
 *  never read as markup. Whole or not at all. RUNG_EIO, RUNG_EFORMAT, RUNG_ENOMEM. */
rung_status compare_page_write(const compare *c, const char *model, const char *path, rung_err *err);
#endif
