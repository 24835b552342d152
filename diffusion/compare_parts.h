/* diffusion/compare_parts.h - style and script of the comparison page: compare_page.css and .js, built in. */
#ifndef RUNG_COMPARE_PARTS_H
#define RUNG_COMPARE_PARTS_H
#include <stddef.h>

extern const char rung_compare_css_begin[], rung_compare_css_end[], rung_compare_js_begin[], rung_compare_js_end[];

/** The bytes, without a 0 at the end. */
const char *compare_css(size_t *bytes);
const char *compare_js(size_t *bytes);
#endif
