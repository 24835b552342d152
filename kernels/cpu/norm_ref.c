#include <math.h>

#include "kernels/cpu/gemm.h"
#include "kernels/cpu/norm.h"

static void layer_norm_row_ref(const layer_norm_args *a, size_t row) {
    const float *x = a->x + row * a->n;
    const size_t mod = a->mod_scale || a->mod_shift ? row / a->rows_per_sample * a->mod_stride : 0;
    double mean = 0, var = 0;
    for (size_t c = 0; c < a->n; c++) mean += x[c];
    mean /= (double)a->n;
    for (size_t c = 0; c < a->n; c++) var += (x[c] - mean) * (x[c] - mean);
    const double k = 1 / sqrt(var / (double)a->n + a->eps);
    for (size_t c = 0; c < a->n; c++) {
        double v = (x[c] - mean) * k;
        if (a->w) v *= a->w[c];
        if (a->b) v += a->b[c];
        if (a->mod_scale) v *= 1.0 + a->mod_scale[mod + c];
        if (a->mod_shift) v += a->mod_shift[mod + c];
        a->y[row * a->n + c] = (float)v;
    }
}

void layer_norm_rows_ref(const layer_norm_args *a, size_t row, size_t rows) {
    for (size_t r = row; r < row + rows; r++) layer_norm_row_ref(a, r);
}

void rms_norm_row_ref(float *y, const float *x, size_t n, const float *w, float eps) {
    double ss = 0;
    for (size_t c = 0; c < n; c++) ss += (double)x[c] * x[c];
    const double k = 1 / sqrt(ss / (double)n + eps);
    for (size_t c = 0; c < n; c++) y[c] = (float)(x[c] * k * w[c]);
}

void group_norm_ref(const group_norm_args *a, size_t picture, size_t group) {
    const size_t n = a->ch / a->groups, c0 = group * n, first = picture * a->pixels * a->ch;
    const double count = (double)n * (double)a->pixels;
    double mean = 0, var = 0;
    for (size_t p = 0; p < a->pixels; p++)
        for (size_t c = c0; c < c0 + n; c++) mean += a->x[first + p * a->ch + c];
    mean /= count;
    for (size_t p = 0; p < a->pixels; p++) {
        for (size_t c = c0; c < c0 + n; c++) {
            const double d = a->x[first + p * a->ch + c] - mean;
            var += d * d;
        }
    }
    const double k = 1 / sqrt(var / count + a->eps);
    for (size_t c = c0; c < c0 + n; c++) {
        const double w = a->w ? a->w[c] : 1.0, b = a->b ? a->b[c] : 0.0;
        if (a->scale) {
            a->scale[picture * a->ch + c] = (float)(k * w);
            a->shift[picture * a->ch + c] = (float)(b - mean * k * w);
        }
        for (size_t p = 0; a->y && p < a->pixels; p++) {
            const size_t i = first + p * a->ch + c;
            a->y[i] = (float)gemm_act_ref((a->x[i] - mean) * k * w + b, a->act);
        }
    }
}
