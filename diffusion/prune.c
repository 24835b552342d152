#include "diffusion/prune.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

void prune_scores(float *scores, const float *w, const double *norm, size_t n) {
    for (size_t c = 0; c < n; c++) scores[c] = norm ? (float)(fabs((double)w[c]) * norm[c]) : fabsf(w[c]);
}

size_t prune_count(double sparsity, size_t n) { return (size_t)llround(sparsity * (double)n); }

/* The k-th smallest of x [n], k from 0 (Hoare's selection; the middle of three as the pivot). Reorders x. */
static float select_kth(float *x, size_t n, size_t k) {
    size_t lo = 0, hi = n - 1;
    while (lo < hi) {
        const float a = x[lo], b = x[lo + (hi - lo) / 2], c = x[hi];
        const float pivot = fmaxf(fminf(a, b), fminf(fmaxf(a, b), c));
        size_t i = lo, j = hi;
        for (;;) {
            while (x[i] < pivot) i++;
            while (x[j] > pivot) j--;
            if (i >= j) break;
            const float t = x[i];
            x[i++] = x[j];
            x[j--] = t;
        }
        /* x[lo .. j] <= pivot <= x[j + 1 .. hi]; with i == j the element there is the pivot */
        if (i == j && k == i) return pivot;
        if (k <= j)
            hi = j;
        else
            lo = j + 1;
    }
    return x[lo];
}

void prune_row(float *w, const float *scores, size_t n, size_t count, float *work) {
    if (count == 0) return;
    memcpy(work, scores, n * sizeof *work);
    const float last = select_kth(work, n, count - 1);
    size_t below = 0;
    for (size_t c = 0; c < n; c++) below += scores[c] < last;
    size_t equal = count - below; /* of those that tie with the last one */
    for (size_t c = 0; c < n; c++) {
        if (scores[c] > last || (scores[c] == last && equal == 0)) continue;
        if (scores[c] == last) equal--;
        w[c] = 0;
    }
}

static int by_value(const void *a, const void *b) {
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

void prune_curve_add(prune_curve *curve, float *scores, size_t n) {
    qsort(scores, n, sizeof *scores, by_value);
    double lost = 0;
    size_t gone = 0;
    for (size_t i = 0; i <= PRUNE_LEVELS; i++) {
        for (const size_t upto = prune_count((double)i / PRUNE_LEVELS, n); gone < upto; gone++)
            lost += (double)scores[gone] * scores[gone];
        curve->lost[i] += lost;
    }
    curve->weights += n;
}

/* Relative loss for each weight that goes on the way from level i to the next one. */
static double slope(const prune_curve *c, int i) {
    const double all = c->lost[PRUNE_LEVELS];
    return all > 0 ? (c->lost[i + 1] - c->lost[i]) / all / (double)c->weights : 0;
}

/* The curves are convex, so the best sharing takes the flattest pieces of all curves until there are enough. */
rung_status prune_share(double *out, const prune_curve *curves, size_t count, double target, rung_err *err) {
    const double most = 1 - (1 - target) / 4;
    double left = 0;
    int *level = calloc(count + 1, sizeof *level);
    if (!level) return rung_fail(err, RUNG_ENOMEM, "no memory to share sparsity among %zu layers", count);
    for (size_t l = 0; l < count; l++) {
        out[l] = 0;
        left += target * (double)curves[l].weights;
    }
    while (left > 0) {
        size_t best = count;
        for (size_t l = 0; l < count; l++)
            if (out[l] < most && level[l] < PRUNE_LEVELS && curves[l].weights > 0 &&
                (best == count || slope(&curves[l], level[l]) < slope(&curves[best], level[best])))
                best = l;
        if (best == count) break;
        const double weights = (double)curves[best].weights, next = (double)(level[best] + 1) / PRUNE_LEVELS;
        const double step = fmin(fmin(next, most) - out[best], left / weights);
        out[best] += step;
        left -= step * weights;
        level[best]++;
        if (left < 0.5) break; /* less than a weight */
    }
    free(level);
    return RUNG_OK;
}
