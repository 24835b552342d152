/* kernels/cuda/cuda_matrix.c - weights on their way to the device, a few megabytes at a time. */
#include <stdlib.h>
#include <string.h>

#include "kernels/base/fp6.h"
#include "kernels/base/size.h"
#include "kernels/cuda/cuda_ops.h"

enum { ROUND = 8, STRIPE = 4 << 20 };

static size_t round_up(size_t n) { return size_div_up(n, ROUND) * ROUND; }

cuda_x_kind cuda_matrix_kind(const cuda_matrix *w) {
    if (w->dtype == GEMM_F32 || (w->dtype == GEMM_BF16 && w->conv)) return CUDA_X_F32;
    return w->dtype == GEMM_BF16 ? CUDA_X_BF16 : CUDA_X_F16;
}

static size_t row_bytes(const cuda_matrix *w) {
    if (w->dtype == GEMM_FP6) return w->kp / 4 * 3;
    return w->kp * (w->dtype == GEMM_F32 ? sizeof(float) : sizeof(uint16_t));
}

/* Rows on the host until a stripe is full. */
struct packer {
    cuda_backend *c;
    cuda_matrix *w;
    unsigned char *stripe;
    float *scale;
    size_t each, room, held, first; /* bytes of a row; rows of a stripe; rows in it, and the first one's number */
};

static void send_stripe(struct packer *p) {
    cuda_upload(&p->c->base, (char *)p->w->w + p->first * p->each, p->stripe, p->held * p->each);
    p->first += p->held;
    p->held = 0;
}

static void put_number(const cuda_matrix *w, unsigned char *row, size_t k, float v) {
    switch (w->dtype) {
    case GEMM_F32:
        ((float *)row)[k] = v;
        break;
    case GEMM_F16:
        ((uint16_t *)row)[k] = rung_f32_to_f16(v);
        break;
    case GEMM_BF16:
        ((uint16_t *)row)[k] = rung_f32_to_bf16(v);
        break;
    case GEMM_FP6:
        rung_fp6_put(row, k, rung_f32_to_e3m2(v));
        break;
    case GEMM_E2M3: /* of the CPU's panels alone */
        break;
    }
}

static rung_status put_row(void *user, size_t row, const float *numbers, float scale, rung_err *err) {
    struct packer *p = user;
    const cuda_matrix *w = p->w;
    (void)err;
    unsigned char *out = p->stripe + p->held * p->each;
    memset(out, 0, p->each);
    for (size_t t = 0; t < w->taps; t++)
        for (size_t i = 0; i < w->channels; i++) put_number(w, out, t * w->cp + i, numbers[t * w->channels + i]);
    if (p->scale) p->scale[row] = scale;
    if (++p->held == p->room) send_stripe(p);
    return RUNG_OK;
}

/* f32 [rows] on the device. */
static rung_status send_vector(cuda_backend *c, float **out, const float *host, size_t rows, rung_err *err) {
    RUNG_TRY(cuda_alloc(&c->base, (void **)out, rows * sizeof **out, err));
    cuda_upload(&c->base, *out, host, rows * sizeof **out);
    return RUNG_OK;
}

static rung_status measure(cuda_matrix *w, const weight_stack *s, size_t taps, bool conv, size_t *bytes,
                           rung_err *err) {
    *w = (cuda_matrix){.dtype = s->dtype, .n = s->n, .taps = taps, .channels = s->k / taps, .conv = conv};
    w->rows = conv ? round_up(s->n) : s->n;
    w->cp = round_up(w->channels);
    if (s->k <= SIZE_MAX / 64 && s->n <= SIZE_MAX / 64 && size_mul(taps, w->cp, &w->kp) && w->kp <= SIZE_MAX / 64 &&
        size_mul(row_bytes(w), w->rows, bytes))
        return RUNG_OK;
    return rung_fail(err, RUNG_ESHAPE, "layer weight [%zu, %zu] is too large", s->n, s->k);
}

rung_status cuda_matrix_open(cuda_backend *c, cuda_matrix *out, const gemm_part *parts, size_t count, rung_store store,
                             bool conv, rung_err *err) {
    cuda_matrix w = {0};
    weight_stack s;
    size_t bytes = 0;
    struct packer p = {.c = c, .w = &w};
    float *bias = NULL;
    rung_status st;
    *out = w;
    RUNG_TRY(weight_stack_of(&s, parts, count, store, err));
    RUNG_TRY(measure(&w, &s, parts[0].taps, conv, &bytes, err));
    RUNG_TRY_GOTO(st, done, cuda_alloc(&c->base, &w.w, bytes, err));
    p.each = row_bytes(&w);
    p.room = size_min(size_max(STRIPE / p.each, 1), w.rows);
    p.stripe = malloc(p.room * p.each);
    p.scale = s.scale ? calloc(w.rows, sizeof *p.scale) : NULL;
    bias = s.bias ? calloc(w.rows, sizeof *bias) : NULL;
    if (!p.stripe || (s.scale && !p.scale) || (s.bias && !bias))
        RUNG_TRY_GOTO(st, done, rung_fail(err, RUNG_ENOMEM, "no memory for a layer weight [%zu, %zu]", s.n, s.k));
    RUNG_TRY_GOTO(st, done, weight_stack_read(&s, parts, count, put_row, &p, bias, err));
    send_stripe(&p);
    while (p.first < w.rows) { /* the rows that fill up */
        p.held = size_min(p.room, w.rows - p.first);
        memset(p.stripe, 0, p.held * p.each);
        send_stripe(&p);
    }
    if (p.scale) RUNG_TRY_GOTO(st, done, send_vector(c, &w.scale, p.scale, w.rows, err));
    if (bias) RUNG_TRY_GOTO(st, done, send_vector(c, &w.bias, bias, w.rows, err));
    *out = w;
    w = (cuda_matrix){0};
done:
    free(p.stripe);
    free(p.scale);
    free(bias);
    cuda_matrix_close(c, &w);
    return st;
}

void cuda_matrix_close(cuda_backend *c, cuda_matrix *w) {
    cuda_free(&c->base, w->w);
    cuda_free(&c->base, w->scale);
    cuda_free(&c->base, w->bias);
    *w = (cuda_matrix){0};
}

const void *cuda_matrix_plain(cuda_backend *c, const cuda_matrix *w) {
    const bool widen = w->dtype == GEMM_BF16 && w->conv;
    if (w->dtype != GEMM_FP6 && !widen) return w->w;
    void *plain = cuda_scratch(c, SCRATCH_WEIGHTS, w->rows * w->kp * (widen ? sizeof(float) : sizeof(uint16_t)));
    if (plain && widen) cuda_k_widen_bf16(c->stream, plain, w->w, w->rows * w->kp);
    if (plain && !widen) cuda_k_expand_fp6(c->stream, plain, w->w, w->rows, w->kp);
    return plain;
}
