#include <stdlib.h>
#include <string.h>

#include "kernels/base/fp6.h"
#include "kernels/base/pages.h"
#include "kernels/base/size.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/sparse.h"
#include "kernels/sparse.h"

enum { PANEL_ALIGN = 64 };

static rung_status allocate_panels(gemm_weights *w, rung_err *err) {
    const size_t panels = size_div_up(w->n, w->nr);
    const size_t k = gemm_six_bit(w->dtype) ? size_div_up(w->k, GEMM_FP6_GROUP) : w->k;
    const size_t unit = gemm_six_bit(w->dtype) ? 6 * w->nr : (w->dtype == GEMM_F32 ? 4 : 2) * w->nr;
    size_t bytes;
    if (!size_mul(k, unit, &w->panel_bytes) || !size_mul(w->panel_bytes, panels, &bytes) ||
        bytes > SIZE_MAX - PANEL_ALIGN)
        return rung_fail(err, RUNG_ESHAPE, "layer weight [%zu, %zu] is too large", w->n, w->k);
    bytes = size_div_up(bytes, PANEL_ALIGN) * PANEL_ALIGN;
    w->panels = rung_pages_alloc(bytes);
    if (!w->panels) return rung_fail(err, RUNG_ENOMEM, "no memory for a layer weight [%zu, %zu]", w->n, w->k);
    memset(w->panels, 0, bytes);
    return RUNG_OK;
}

static rung_status allocate(gemm_weights *w, const weight_stack *s, unsigned cpu, rung_err *err) {
    const size_t cols = size_div_up(w->n, w->nr) * w->nr;
    w->scale = s->scale ? calloc(cols, sizeof *w->scale) : NULL;
    w->bias = s->bias ? calloc(cols, sizeof *w->bias) : NULL;
    if ((s->scale && !w->scale) || (s->bias && !w->bias))
        return rung_fail(err, RUNG_ENOMEM, "no memory for a layer weight [%zu, %zu]", w->n, w->k);
    if (!s->sparse) return allocate_panels(w, err);
    RUNG_TRY(sparse_panels_open(&w->sparse, s, w->nr, sparse_by_columns(s), err));
    w->sparse->kernels = sparse_kernels_for(cpu);
    return RUNG_OK;
}

/* Code of k = i of a group whose words of a column lie nr apart: see gemm_weights. */
static void put_code(uint16_t *w, size_t nr, size_t i, unsigned code) {
    if (i < 6) {
        w[i / 2 * nr] |= (uint16_t)(((code & 32) << 2 | (code & 31)) << (i % 2 ? 0 : 8));
        return;
    }
    const unsigned at = i == 6 ? 13 : 5;
    w[0] |= (uint16_t)((code >> 3 & 3) << at);
    w[nr] |= (uint16_t)((code >> 1 & 3) << at);
    w[2 * nr] |= (uint16_t)(((code >> 5 & 1) << 1 | (code & 1)) << at);
}

static unsigned code_at(const uint16_t *w, size_t nr, size_t i) {
    if (i < 6) {
        const unsigned byte = w[i / 2 * nr] >> (i % 2 ? 0 : 8);
        return (byte >> 2 & 32) | (byte & 31);
    }
    const unsigned at = i == 6 ? 13 : 5, last = w[2 * nr] >> at & 3;
    return (last >> 1) << 5 | (w[0] >> at & 3u) << 3 | (w[nr] >> at & 3u) << 1 | (last & 1);
}

/* Row `col` of W to its place in the panel. */
static void put_row(const gemm_weights *w, size_t col, const float *row) {
    unsigned char *panel = w->panels + col / w->nr * w->panel_bytes;
    const size_t j = col % w->nr, nr = w->nr;
    if (w->dtype == GEMM_F32) {
        float *p = (float *)panel + j;
        for (size_t k = 0; k < w->k; k++) p[k * nr] = row[k];
    } else if (w->dtype == GEMM_F16) {
        uint16_t *p = (uint16_t *)panel + j;
        for (size_t k = 0; k < w->k; k++) p[k * nr] = rung_f32_to_f16(row[k]);
    } else if (w->dtype == GEMM_BF16) {
        uint16_t *p = (uint16_t *)panel + j;
        for (size_t k = 0; k < w->k; k++) p[k * nr] = rung_f32_to_bf16(row[k]);
    } else {
        uint16_t *p = (uint16_t *)panel + j;
        for (size_t k = 0; k < w->k; k++) {
            const uint8_t code = w->dtype == GEMM_FP6 ? rung_f32_to_e3m2(row[k]) : rung_f32_to_e2m3(row[k]);
            put_code(p + k / GEMM_FP6_GROUP * 3 * nr, nr, k % GEMM_FP6_GROUP, code);
        }
    }
}

static rung_status pack_row(void *user, size_t row, const float *numbers, float scale, rung_err *err) {
    const gemm_weights *w = user;
    (void)err;
    if (w->sparse)
        sparse_panels_put(w->sparse, row, numbers);
    else
        put_row(w, row, numbers);
    if (w->scale) w->scale[row] = scale;
    return RUNG_OK;
}

/* To a stack E2M3 is sparse, however much of it is there. */
static bool is_dense_e2m3(const weight_stack *s) {
    const bool e2m3 = s->values == RUNG_F6_E2M3 || s->values == RUNG_F5_E2M2;
    return s->sparse && e2m3 && rung_form_choose(RUNG_F6_E2M3, s->n, s->k, s->held, NULL) == RUNG_FORM_DENSE;
}

rung_status gemm_weights_open(gemm_weights *out, const gemm_part *parts, size_t count, rung_store store, unsigned cpu,
                              rung_err *err) {
    gemm_weights w = {.nr = gemm_panel_width(cpu)};
    weight_stack s;
    rung_status st;
    *out = w;
    RUNG_TRY(weight_stack_of(&s, parts, count, store, err));
    w.dtype = is_dense_e2m3(&s) ? GEMM_E2M3 : s.dtype;
    s.sparse &= w.dtype != GEMM_E2M3;
    w.n = s.n;
    w.k = s.k;
    RUNG_TRY_GOTO(st, done, allocate(&w, &s, cpu, err));
    RUNG_TRY_GOTO(st, done, weight_stack_read(&s, parts, count, pack_row, &w, w.bias, err));
    *out = w;
    w = (gemm_weights){0};
done:
    gemm_weights_close(&w);
    return st;
}

void gemm_weights_close(gemm_weights *w) {
    free(w->panels);
    sparse_panels_close(&w->sparse);
    free(w->scale);
    free(w->bias);
    *w = (gemm_weights){0};
}

void gemm_weights_row(const gemm_weights *w, size_t col, size_t k0, size_t kn, float *out) {
    if (w->sparse) {
        sparse_panels_row(w->sparse, col, k0, kn, out);
        return;
    }
    const unsigned char *panel = w->panels + col / w->nr * w->panel_bytes;
    const size_t j = col % w->nr, nr = w->nr;
    for (size_t i = 0; i < kn; i++) {
        const size_t k = k0 + i;
        if (w->dtype == GEMM_F32) {
            out[i] = ((const float *)panel)[k * nr + j];
        } else if (w->dtype == GEMM_F16) {
            out[i] = rung_f16_to_f32(((const uint16_t *)panel)[k * nr + j]);
        } else if (w->dtype == GEMM_BF16) {
            out[i] = rung_bf16_to_f32(((const uint16_t *)panel)[k * nr + j]);
        } else {
            const uint16_t *g = (const uint16_t *)panel + k / GEMM_FP6_GROUP * 3 * nr + j;
            const uint8_t code = (uint8_t)code_at(g, nr, k % GEMM_FP6_GROUP);
            out[i] = w->dtype == GEMM_FP6 ? rung_e3m2_to_f32(code) : rung_e2m3_to_f32(code);
        }
    }
}
