#include "assets/clip_merges.h"

/* The assembler takes the file in as it is: half a megabyte as a C array would slow every build. */
__asm__(".section .rodata\n"
        ".global rung_clip_merges_begin, rung_clip_merges_end\n"
        "rung_clip_merges_begin:\n"
        ".incbin \"" RUNG_CLIP_MERGES "\"\n"
        "rung_clip_merges_end:\n"
        ".previous\n");

const char *clip_merges(size_t *bytes) {
    *bytes = (size_t)(rung_clip_merges_end - rung_clip_merges_begin);
    return rung_clip_merges_begin;
}
