/* tests/fuzz/fuzz_prompt.c - a prompt: its pieces tile the text they come from, weights are finite. */
#include <math.h>
#include <stdlib.h>

#include "textenc/prompt_weights.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    rung_prompt p;
    rung_err err = {0};
    if (prompt_parse(&p, (const char *)data, size, &err)) return 0;
    size_t at = 0;
    for (size_t i = 0; i < p.pieces; i++) {
        if (p.piece[i].start != at || !isfinite(p.piece[i].weight)) abort();
        if (i > 0 && p.piece[i].weight == p.piece[i - 1].weight) abort();
        at += p.piece[i].n;
    }
    if (p.pieces == 0 || at != p.text.n || at > size) abort();
    prompt_chunks c;
    chunks_start(&c, 5, 'a');
    for (size_t i = 0; i < p.pieces; i++) {
        const int32_t *id = (const int32_t *)p.text.cp + p.piece[i].start;
        if (p.piece[i].is_break ? chunks_break(&c, &err) : chunks_add(&c, id, p.piece[i].n, p.piece[i].weight, &err))
            abort();
    }
    if (chunks_finish(&c, &err)) abort();
    for (size_t i = 0; i < c.chunks; i++) {
        if (c.used[i] > 5) abort();
    }
    chunks_free(&c);
    prompt_free(&p);
    return 0;
}
