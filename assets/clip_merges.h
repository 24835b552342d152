/* assets/clip_merges.h - CLIP's merges, built in: what the tokenizer of a single file in ldm layout is made from. */
#ifndef RUNG_CLIP_MERGES_H
#define RUNG_CLIP_MERGES_H
#include <stddef.h>

/** The bytes of assets/clip/merges.txt; not NUL-terminated. */
const char *clip_merges(size_t *bytes);

/* For clip_merges.c: defined by the assembler. */
extern const char rung_clip_merges_begin[] __attribute__((visibility("hidden")));
extern const char rung_clip_merges_end[] __attribute__((visibility("hidden")));
#endif
