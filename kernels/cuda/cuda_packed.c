/* kernels/cuda/cuda_packed.c - linear weights in the layouts of our own tensor-core kernels: six bits as TC-FPx, sparse
 * six-bit codes as bitmap strips, sparse 16-bit numbers as Tiled-CSL. */
#include "kernels/cuda/cuda_packed.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/base/fp6.h"
#include "kernels/base/size.h"
#include "kernels/cuda/cuda_tc.h"
#include "kernels/fp6_strips.h"
#include "kernels/tc_fpx.h"
#include "kernels/tiled_csl.h"

enum { TILE_ROWS = CUDA_TC_TILE_ROWS, FPX_ROW_MULTIPLE = RUNG_FPX_TILE };

cuda_packed_form cuda_packed_choose(const weight_stack *s) {
    if (s->dtype == GEMM_FP6) return s->sparse ? CUDA_PACKED_BITMAP : CUDA_PACKED_FPX;
    return s->sparse && s->dtype != GEMM_F32 ? CUDA_PACKED_CSL : CUDA_PACKED_NONE;
}

/* The whole matrix on the host, as codes or as 16-bit words. */
struct reader {
    const weight_stack *s;
    uint8_t *codes;  /* [n, k] */
    uint16_t *words; /* [n, k] */
    float *scale, *bias;
};

static rung_status put_row(void *user, size_t row, const float *numbers, float scale, rung_err *err) {
    struct reader *r = user;
    const size_t k = r->s->k;
    (void)err;
    for (size_t i = 0; r->codes && i < k; i++) r->codes[row * k + i] = rung_f32_to_e3m2(numbers[i]);
    for (size_t i = 0; r->words && i < k; i++)
        r->words[row * k + i] = r->s->dtype == GEMM_BF16 ? rung_f32_to_bf16(numbers[i]) : rung_f32_to_f16(numbers[i]);
    if (r->scale) r->scale[row] = scale;
    return RUNG_OK;
}

static rung_status read_all(struct reader *r, const gemm_part *parts, size_t count, rung_err *err) {
    const weight_stack *s = r->s;
    size_t numbers;
    if (!size_mul(s->n, s->k, &numbers) || numbers > SIZE_MAX / 64)
        return rung_fail(err, RUNG_ESHAPE, "layer weight [%zu, %zu] is too large", s->n, s->k);
    if (s->dtype == GEMM_FP6)
        r->codes = malloc(numbers);
    else
        r->words = malloc(numbers * sizeof *r->words);
    r->scale = s->scale ? calloc(s->n, sizeof *r->scale) : NULL;
    r->bias = s->bias ? calloc(s->n, sizeof *r->bias) : NULL;
    if ((!r->codes && !r->words) || (s->scale && !r->scale) || (s->bias && !r->bias))
        return rung_fail(err, RUNG_ENOMEM, "no memory for a layer weight [%zu, %zu]", s->n, s->k);
    return weight_stack_read(s, parts, count, put_row, r, r->bias, err);
}

static rung_status send(cuda_backend *c, void **out, const void *host, size_t bytes, rung_err *err) {
    RUNG_TRY(cuda_alloc(&c->base, out, bytes, err));
    cuda_upload(&c->base, *out, host, bytes);
    return RUNG_OK;
}

static rung_status no_memory(rung_err *err) { return rung_fail(err, RUNG_ENOMEM, "no memory to pack a layer weight"); }

static rung_status pack_fpx(cuda_backend *c, cuda_packed *p, const struct reader *r, rung_err *err) {
    const rung_fpx_shape shape = rung_fpx_shape_of(6, r->s->n, r->s->k, FPX_ROW_MULTIPLE);
    unsigned char *packed = malloc(rung_fpx_bytes(&shape));
    if (!packed) return no_memory(err);
    rung_fpx_pack(packed, r->codes, &shape);
    const rung_status st = send(c, &p->items, packed, rung_fpx_bytes(&shape), err);
    free(packed);
    return st;
}

static rung_status pack_bitmap(cuda_backend *c, cuda_packed *p, const struct reader *r, rung_err *err) {
    const size_t n = r->s->n, k = r->s->k, strips = rung_strips(n, k, TILE_ROWS);
    const size_t words = rung_strips_words(r->codes, n, k);
    uint32_t *bitmap = malloc(strips * RUNG_STRIP_WORDS * sizeof *bitmap), *at = malloc((strips + 1) * sizeof *at);
    uint32_t *codes = calloc(size_max(words, 1), sizeof *codes);
    rung_status st = bitmap && at && codes ? RUNG_OK : no_memory(err);
    if (!st && !rung_strips_pack(bitmap, at, codes, r->codes, n, k, TILE_ROWS))
        st = rung_fail(err, RUNG_ESHAPE, "layer weight [%zu, %zu] is too large", n, k);
    if (!st) st = send(c, &p->bitmap, bitmap, strips * RUNG_STRIP_WORDS * sizeof *bitmap, err);
    if (!st) st = send(c, &p->at, at, (strips + 1) * sizeof *at, err);
    if (!st) st = send(c, &p->items, codes, size_max(words, 1) * sizeof *codes, err);
    free(bitmap);
    free(at);
    free(codes);
    return st;
}

static rung_status pack_csl(cuda_backend *c, cuda_packed *p, const struct reader *r, rung_err *err) {
    const size_t n = r->s->n, k = r->s->k, tiles = rung_csl_tiles(n, k), across = size_div_up(k, RUNG_CSL_COLS);
    size_t held = 0, count = 0;
    for (size_t i = 0; i < n * k; i++) held += r->words[i] != 0;
    /* a tile is filled up to its unit; the last one is packed with room for all it could hold */
    uint32_t *items = malloc((held + tiles * RUNG_CSL_UNIT + RUNG_CSL_TILE) * sizeof *items);
    int32_t *at = calloc(tiles + 1, sizeof *at);
    rung_status st = items && at ? RUNG_OK : no_memory(err);
    for (size_t t = 0; !st && t < tiles; t++) {
        const size_t row = t / across * RUNG_CSL_ROWS, col = t % across * RUNG_CSL_COLS;
        count += rung_csl_pack_tile(items + count, r->words + row * k + col, k, size_min(RUNG_CSL_ROWS, n - row),
                                    size_min(RUNG_CSL_COLS, k - col));
        if (count / RUNG_CSL_UNIT > INT32_MAX)
            st = rung_fail(err, RUNG_ESHAPE, "layer weight [%zu, %zu] is too large", n, k);
        at[t + 1] = (int32_t)(count / RUNG_CSL_UNIT);
    }
    if (!st) st = send(c, &p->items, items, size_max(count, 1) * sizeof *items, err);
    if (!st) st = send(c, &p->at, at, (tiles + 1) * sizeof *at, err);
    free(items);
    free(at);
    return st;
}

rung_status cuda_packed_open(cuda_backend *c, cuda_packed *out, cuda_matrix *w, const weight_stack *s,
                             const gemm_part *parts, size_t count, rung_err *err) {
    struct reader r = {.s = s};
    cuda_packed p = {.form = cuda_packed_choose(s)};
    *w = (cuda_matrix){.dtype = s->dtype, .n = s->n, .taps = 1, .channels = s->k, .rows = s->n};
    w->cp = w->kp = size_div_up(s->k, 8) * 8;
    rung_status st = read_all(&r, parts, count, err);
    if (!st && p.form == CUDA_PACKED_FPX) st = pack_fpx(c, &p, &r, err);
    if (!st && p.form == CUDA_PACKED_BITMAP) st = pack_bitmap(c, &p, &r, err);
    if (!st && p.form == CUDA_PACKED_CSL) st = pack_csl(c, &p, &r, err);
    if (!st && r.scale) st = send(c, (void **)&w->scale, r.scale, s->n * sizeof *r.scale, err);
    if (!st && r.bias) st = send(c, (void **)&w->bias, r.bias, s->n * sizeof *r.bias, err);
    free(r.codes);
    free(r.words);
    free(r.scale);
    free(r.bias);
    *out = p;
    if (st) {
        cuda_packed_close(c, out);
        cuda_matrix_close(c, w);
    }
    return st;
}

void cuda_packed_close(cuda_backend *c, cuda_packed *p) {
    cuda_free(&c->base, p->items);
    cuda_free(&c->base, p->bitmap);
    cuda_free(&c->base, p->at);
    *p = (cuda_packed){0};
}

/* The weights as the libraries take them, in scratch, and a product by cuBLASLt. */
static void run_expanded(cuda_backend *c, float *y, const void *x, size_t m, const cuda_packed *p, const cuda_matrix *w,
                         const rung_epilogue *ep) {
    cuda_matrix plain = *w;
    uint16_t *numbers = cuda_scratch(c, SCRATCH_WEIGHTS, w->n * w->kp * sizeof *numbers);
    if (!numbers) return;
    if (p->form == CUDA_PACKED_FPX) cuda_k_fpx_expand(c->stream, numbers, p->items, w->n, w->kp);
    if (p->form == CUDA_PACKED_BITMAP)
        cuda_k_bitmap_expand(c->stream, numbers, p->bitmap, p->items, p->at, w->n, w->kp);
    if (p->form == CUDA_PACKED_CSL) cuda_k_csl_expand(c->stream, numbers, p->items, p->at, w->n, w->kp);
    if (plain.dtype == GEMM_FP6) plain.dtype = GEMM_F16;
    plain.w = numbers;
    cuda_gemm(c, y, x, w->kp, m, &plain, ep);
}

void cuda_packed_run(cuda_backend *c, float *y, const void *x, size_t m, const cuda_packed *p, const cuda_matrix *w,
                     const rung_epilogue *ep) {
    if (m >= CUDA_PACKED_LARGE) {
        run_expanded(c, y, x, m, p, w, ep);
        return;
    }
    const unsigned tile_rows = p->form == CUDA_PACKED_FPX ? CUDA_TC_FPX_ROWS : TILE_ROWS;
    cuda_tc_gemm g = {
        .x = x, .x_row = w->kp, .bf16 = w->dtype == GEMM_BF16, .two_parts = w->dtype == GEMM_BF16, .k = w->kp};
    g.out = (cuda_epilogue_args){.y = y,
                                 .y_row = ep->act == RUNG_ACT_GEGLU ? w->n / 2 : w->n,
                                 .m = m,
                                 .n = w->n,
                                 .scale = w->scale,
                                 .bias = w->bias,
                                 .ep = *ep};
    const size_t rows = cuda_tc_rows(&g);
    g.splits = cuda_tc_splits(rows, w->n, w->kp, tile_rows, c->multiprocessors);
    if (cuda_tc_needs_split(&g) &&
        !(g.split = cuda_scratch(c, SCRATCH_SPLIT, g.splits * rows * w->n * sizeof *g.split)))
        return;
    if (p->form == CUDA_PACKED_FPX) cuda_k_fpx_gemm(c->stream, &g, p->items);
    if (p->form == CUDA_PACKED_BITMAP) cuda_k_bitmap_gemm(c->stream, &g, p->bitmap, p->items, p->at);
    if (p->form == CUDA_PACKED_CSL) cuda_k_spmm(c->stream, &g, p->items, p->at);
}
