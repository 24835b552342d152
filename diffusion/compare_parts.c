#include "diffusion/compare_parts.h"

/* The assembler takes the files in as they are, so that they can be edited as what they are. */
#define TAKE_IN(name, path)                                                                                            \
    __asm__(".section .rodata\n"                                                                                       \
            ".global rung_" name "_begin, rung_" name "_end\n"                                                         \
            "rung_" name "_begin:\n"                                                                                   \
            ".incbin \"" path "\"\n"                                                                                   \
            "rung_" name "_end:\n"                                                                                     \
            ".previous\n")
TAKE_IN("compare_css", RUNG_COMPARE_CSS);
TAKE_IN("compare_js", RUNG_COMPARE_JS);

const char *compare_css(size_t *bytes) {
    *bytes = (size_t)(rung_compare_css_end - rung_compare_css_begin);
    return rung_compare_css_begin;
}

const char *compare_js(size_t *bytes) {
    *bytes = (size_t)(rung_compare_js_end - rung_compare_js_begin);
    return rung_compare_js_begin;
}
