#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/fp6.h"
#include "kernels/base/size.h"
#include "kernels/cpu/sparse.h"

static sparse_values values_of(rung_dtype t) {
    if (t == RUNG_F6_E3M2) return SPARSE_E3M2;
    if (t == RUNG_F6_E2M3 || t == RUNG_F5_E2M2) return SPARSE_E2M3;
    return t == RUNG_F16 ? SPARSE_F16 : SPARSE_BF16;
}

static bool six_bit(sparse_values type) { return type == SPARSE_E3M2 || type == SPARSE_E2M3; }

/* A chunk of codes to its planes: see sparse.h. */
static void put_chunk(unsigned char *out, size_t plane, const uint16_t *codes) {
    for (size_t i = 0; i < plane; i++) {
        const unsigned last = codes[3 * plane + i];
        const unsigned parts[3] = {last >> 3 & 3, last >> 1 & 3, (last >> 5 & 1) << 1 | (last & 1)};
        for (size_t p = 0; p < 3; p++) {
            const unsigned code = codes[p * plane + i];
            out[p * plane + i] = (unsigned char)((code & 32) << 2 | parts[p] << 5 | (code & 31));
        }
    }
}

/* The values that wait, in whole chunks; what is left waits on, unless these are the last. */
static void put_values(sparse_panels *s, bool last) {
    const size_t plane = sparse_plane(s->nr), chunk = 4 * plane;
    size_t done = 0;
    if (!six_bit(s->type)) {
        memcpy(s->values + (s->end - s->waiting) * sizeof *s->held, s->held, s->waiting * sizeof *s->held);
        s->waiting = 0;
        return;
    }
    unsigned char *out = s->values + (s->end - s->waiting) / chunk * 3 * plane;
    if (last) memset(s->held + s->waiting, 0, chunk * sizeof *s->held);
    for (; done + chunk <= s->waiting || (last && done < s->waiting); done += chunk, out += 3 * plane)
        put_chunk(out, plane, s->held + done);
    s->waiting -= size_min(done, s->waiting);
    memmove(s->held, s->held + done, s->waiting * sizeof *s->held);
}

/* Those of `count` words that are not 0 join the values; bit i of mask: word i is one of them. No branch asks which: a
 * 0 is put, which changes nothing, and the next one takes its place. */
static void put_words(sparse_panels *s, const uint16_t *words, size_t count, unsigned char *mask) {
    uint16_t *held = s->held + s->waiting;
    size_t n = 0;
    for (size_t i = 0; i < count; i += 8) {
        unsigned bits = 0;
        for (size_t b = 0; b < size_min(8, count - i); b++) {
            const unsigned is_held = words[i + b] != 0;
            bits |= is_held << b;
            held[n] = words[i + b];
            n += is_held;
        }
        mask[i / 8] = (unsigned char)bits;
    }
    s->waiting += n;
    s->end += n;
}

static void pack_by_k(sparse_panels *s, size_t panel, size_t columns, const uint16_t *words) {
    unsigned char *mask = s->masks + panel * s->k * (s->nr / 8);
    uint16_t rows[SPARSE_BLOCK][GEMM_MOST_NR];
    for (size_t k0 = 0; k0 < s->k; k0 += SPARSE_BLOCK) {
        const size_t kn = size_min(SPARSE_BLOCK, s->k - k0);
        s->block_at[panel * (s->blocks + 1) + k0 / SPARSE_BLOCK] = (uint32_t)(s->end - s->panel_at[panel]);
        for (size_t j = 0; j < columns; j++)
            for (size_t i = 0; i < kn; i++) rows[i][j] = words[j * s->k + k0 + i];
        for (size_t i = 0; i < kn; i++, mask += s->nr / 8) put_words(s, rows[i], columns, mask);
    }
}

static void pack_by_columns(sparse_panels *s, size_t panel, size_t columns, const uint16_t *words) {
    unsigned char *mask = s->masks + panel * s->nr * size_div_up(s->k, 8);
    for (size_t run = 0; run < s->blocks; run++) {
        const size_t k0 = run * SPARSE_RUN, kn = size_min(SPARSE_RUN, s->k - k0), bytes = size_div_up(kn, 8);
        s->block_at[panel * (s->blocks + 1) + run] = (uint32_t)(s->end - s->panel_at[panel]);
        for (size_t j = 0; j < columns; j++) put_words(s, words + j * s->k + k0, kn, mask + j * bytes);
        mask += s->nr * bytes;
    }
}

/* words [columns, k] become panel `panel`. */
static void pack_panel(sparse_panels *s, size_t panel, size_t columns, const uint16_t *words) {
    s->panel_at[panel] = s->end;
    (s->by_columns ? pack_by_columns : pack_by_k)(s, panel, columns, words);
    s->block_at[panel * (s->blocks + 1) + s->blocks] = (uint32_t)(s->end - s->panel_at[panel]);
    put_values(s, panel + 1 == s->panels);
}

static size_t mask_bytes(const sparse_panels *s) { /* of a panel */
    return s->by_columns ? size_div_up(s->k, 8) * s->nr : s->k * (s->nr / 8);
}

static rung_status allocate(sparse_panels *s, size_t held, rung_err *err) {
    enum { SLACK = 128 }; /* vectors may look past the last value, words of masks past the last byte */
    const size_t plane = sparse_plane(s->nr), chunks = held / (4 * plane) + 1;
    size_t masks, words;
    if (s->k > UINT32_MAX / s->nr || !size_mul(s->panels, mask_bytes(s), &masks) ||
        !size_mul(s->k, s->nr * sizeof *s->words, &words))
        return rung_fail(err, RUNG_ESHAPE, "layer weight [%zu, %zu] is too large", s->n, s->k);
    s->masks = calloc(masks + SLACK, 1);
    s->block_at = calloc(s->panels * (s->blocks + 1), sizeof *s->block_at);
    s->panel_at = calloc(s->panels, sizeof *s->panel_at);
    s->values = calloc((six_bit(s->type) ? chunks * 3 * plane : held * sizeof *s->words) + SLACK, 1);
    s->words = malloc(words);
    s->held = malloc(words + 8 * plane * sizeof *s->held);
    if (!s->masks || !s->block_at || !s->panel_at || !s->values || !s->words || !s->held)
        return rung_fail(err, RUNG_ENOMEM, "no memory for a layer weight [%zu, %zu]", s->n, s->k);
    return RUNG_OK;
}

bool sparse_by_columns(const weight_stack *stack) {
    enum { DENSEST = 35 /* of 100 */ };
    return stack->held <= stack->n * stack->k / 100 * DENSEST;
}

rung_status sparse_panels_open(sparse_panels **out, const weight_stack *stack, size_t nr, bool by_columns,
                               rung_err *err) {
    *out = NULL;
    sparse_panels *s = calloc(1, sizeof *s);
    if (!s) return rung_fail(err, RUNG_ENOMEM, "no memory for a layer weight [%zu, %zu]", stack->n, stack->k);
    *s = (sparse_panels){.type = values_of(stack->values), .nr = nr, .n = stack->n, .k = stack->k};
    s->by_columns = by_columns;
    s->panels = size_div_up(s->n, nr);
    s->blocks = size_div_up(s->k, by_columns ? SPARSE_RUN : SPARSE_BLOCK);
    for (uint8_t c = 0; c < 32; c++)
        s->magnitude[c] = s->type == SPARSE_E2M3 ? rung_e2m3_to_f32(c) : rung_e3m2_to_f32(c);
    for (uint8_t c = 0; c < 32; c++) s->code[(unsigned)(s->magnitude[c] * SPARSE_STEPS)] = c;
    const rung_status st = allocate(s, stack->held, err);
    if (st)
        sparse_panels_close(&s);
    else
        *out = s;
    return st;
}

/* The numbers are values of the type: nothing is rounded, and of a six-bit one a table knows the code. */
static uint16_t word_of(const sparse_panels *s, float v) {
    if (s->type == SPARSE_F16) return rung_f32_to_f16(v);
    if (s->type == SPARSE_BF16) return rung_f32_to_bf16(v);
    return (uint16_t)(s->code[(unsigned)(fabsf(v) * SPARSE_STEPS)] | (signbit(v) ? 32 : 0));
}

void sparse_panels_put(sparse_panels *s, size_t row, const float *numbers) {
    uint16_t *words = s->words + row % s->nr * s->k;
    for (size_t k = 0; k < s->k; k++) words[k] = word_of(s, numbers[k]);
    if ((row + 1) % s->nr != 0 && row + 1 != s->n) return;
    pack_panel(s, row / s->nr, row % s->nr + 1, s->words);
    if (row + 1 < s->n) return;
    free(s->words);
    free(s->held);
    s->words = s->held = NULL;
}

void sparse_panels_close(sparse_panels **sp) {
    sparse_panels *s = *sp;
    *sp = NULL;
    if (!s) return;
    free(s->masks);
    free(s->block_at);
    free(s->panel_at);
    free(s->values);
    free(s->words);
    free(s->held);
    free(s);
}

size_t sparse_panels_bytes(const sparse_panels *s) {
    const size_t plane = sparse_plane(s->nr);
    const size_t values = six_bit(s->type) ? size_div_up(s->end, 4 * plane) * 3 * plane : s->end * sizeof *s->words;
    return values + s->panels * (mask_bytes(s) + (s->blocks + 1) * sizeof *s->block_at + sizeof *s->panel_at);
}

static float value_at(const sparse_panels *s, size_t at) {
    if (six_bit(s->type)) {
        const size_t plane = sparse_plane(s->nr), which = at / plane % 4;
        const unsigned char *chunk = s->values + at / (4 * plane) * 3 * plane + at % plane;
        const unsigned byte = chunk[which % 3 * plane], own = (byte >> 2 & 32) | (byte & 31);
        const unsigned p0 = chunk[0] >> 5 & 3, p1 = chunk[plane] >> 5 & 3, p2 = chunk[2 * plane] >> 5 & 3;
        const uint8_t code = (uint8_t)(which < 3 ? own : (p2 >> 1) << 5 | p0 << 3 | p1 << 1 | (p2 & 1));
        return code & 32 ? -s->magnitude[code & 31] : s->magnitude[code];
    }
    uint16_t word;
    memcpy(&word, s->values + at * sizeof word, sizeof word);
    return s->type == SPARSE_F16 ? rung_f16_to_f32(word) : rung_bf16_to_f32(word);
}

/* W[col, one run) to out [SPARSE_RUN]. */
static void read_run(const sparse_panels *s, size_t col, size_t run, float *out) {
    const size_t panel = col / s->nr, j = col % s->nr;
    size_t each, at = s->panel_at[panel] + s->block_at[panel * (s->blocks + 1) + run];
    const unsigned char *mask = sparse_run_masks(s, panel, run, &each);
    for (size_t i = 0; i < j * each; i++) at += (size_t)__builtin_popcount(mask[i]);
    for (size_t i = 0; i < each * 8; i++) out[i] = mask[j * each + i / 8] >> i % 8 & 1 ? value_at(s, at++) : 0;
}

static void row_by_columns(const sparse_panels *s, size_t col, size_t k0, size_t kn, float *out) {
    float run[SPARSE_RUN];
    for (size_t k = k0; k < k0 + kn; k++) {
        if (k == k0 || k % SPARSE_RUN == 0) read_run(s, col, k / SPARSE_RUN, run);
        out[k - k0] = run[k % SPARSE_RUN];
    }
}

static void row_by_k(const sparse_panels *s, size_t col, size_t k0, size_t kn, float *out) {
    const size_t panel = col / s->nr, j = col % s->nr, bytes = s->nr / 8;
    const unsigned char *masks = s->masks + panel * s->k * bytes;
    size_t at = s->panel_at[panel] + s->block_at[panel * (s->blocks + 1) + k0 / SPARSE_BLOCK];
    for (size_t k = k0 / SPARSE_BLOCK * SPARSE_BLOCK; k < k0 + kn; k++) {
        const unsigned char *mask = masks + k * bytes;
        size_t before = 0, all = 0;
        for (size_t b = 0; b < bytes; b++) {
            const unsigned left = b < j / 8 ? mask[b] : b == j / 8 ? mask[b] & ((1u << j % 8) - 1) : 0;
            before += (size_t)__builtin_popcount(left);
            all += (size_t)__builtin_popcount(mask[b]);
        }
        if (k >= k0) out[k - k0] = mask[j / 8] >> j % 8 & 1 ? value_at(s, at + before) : 0;
        at += all;
    }
}

void sparse_panels_row(const sparse_panels *s, size_t col, size_t k0, size_t kn, float *out) {
    (s->by_columns ? row_by_columns : row_by_k)(s, col, k0, kn, out);
}
