#include <math.h>
#include <stdint.h>

#include "kernels/base/size.h"
#include "kernels/cpu/attention.h"

enum { COLS = 256 }; /* of the output at a time; wider heads compute their scores again for the next ones */

static double score(const rung_attention_args *a, size_t b, size_t h, size_t i, size_t j) {
    const float *q = a->q + b * a->q_batch + i * a->q_row + h * a->d;
    const float *k = a->k + b * a->k_batch + j * a->k_row + h * a->d;
    double s = 0;
    if (a->causal && j > i) return -INFINITY;
    for (size_t c = 0; c < a->d; c++) s += (double)q[c] * k[c];
    s *= a->scale;
    if (a->key_bias) s += a->key_bias[b * a->lk + j];
    if (a->pair_bias) s += a->pair_bias[(h * a->lq + i) * a->lk + j];
    return s;
}

/* o[i, c0 .. c0 + n) of one query. */
static void query(const rung_attention_args *a, size_t b, size_t h, size_t i, size_t c0, size_t n) {
    float *o = a->o + b * a->o_batch + i * a->o_row + h * a->d + c0;
    double max = -INFINITY, sum = 0, acc[COLS] = {0};
    for (size_t j = 0; j < a->lk; j++) max = fmax(max, score(a, b, h, i, j));
    for (size_t j = 0; j < a->lk; j++) {
        const float *v = a->v + b * a->v_batch + j * a->v_row + h * a->d + c0;
        const double s = score(a, b, h, i, j);
        const double p = s == -INFINITY ? 0 : exp(s - max); /* all masked: max is -INFINITY too */
        sum += p;
        for (size_t c = 0; c < n; c++) acc[c] += p * v[c];
    }
    for (size_t c = 0; c < n; c++) o[c] = sum == 0 ? 0 : (float)(acc[c] / sum);
}

static void block(const rung_attention_args *a, size_t b, size_t h, size_t i0, size_t n, void *scratch) {
    (void)scratch;
    for (size_t i = i0; i < i0 + n; i++)
        for (size_t c = 0; c < a->d; c += COLS) query(a, b, h, i, c, size_min(COLS, a->d - c));
}

const attention_kernels attention_ref = {.step = 16, .queries = 16, .max_d = SIZE_MAX, .block = block};
