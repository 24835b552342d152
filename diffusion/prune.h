/* diffusion/prune.h - which weights of a row go, what it costs, and how a sparsity is shared out among layers.
 *
 * A weight's score is |W[r, c]| * norm[c], where norm[c] is the 2-norm of the layer's c-th input over calibration data
 * (Sun et al. 2024, Wanda), or 1 (magnitude). Of each output row the smallest scores go. What that costs is the share
 * of the squared scores that is lost: for norms of the inputs that is the relative squared error of the layer's output,
 * the correlation between different inputs left out.
 */
#ifndef RUNG_PRUNE_H
#define RUNG_PRUNE_H
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/err.h"

enum { PRUNE_LEVELS = 32 };

/* Squared scores that are lost when i / PRUNE_LEVELS of every row goes, and how many weights that are. lost[LEVELS]
 * is the sum of all. Convex in i, for the smallest go first. */
typedef struct {
    double lost[PRUNE_LEVELS + 1];
    uint64_t weights;
} prune_curve;

/** scores f32 [n] = |w[c]| * norm[c]; norm NULL: 1. w finite. */
void prune_scores(float *scores, const float *w, const double *norm, size_t n);

/** The `count` elements of w with the smallest scores become 0; of equal scores the first ones. count <= n.
 *  work f32 [n], its content is lost. */
void prune_row(float *w, const float *scores, size_t n, size_t count, float *work);

/** Adds a row to the curve. scores f32 [n] is sorted in place. */
void prune_curve_add(prune_curve *curve, float *scores, size_t n);

/** How many of n weights go at this sparsity: the nearest whole number. */
size_t prune_count(double sparsity, size_t n);

/**
 * Sparsity of each of `count` layers, so that `target` of all their weights goes and the sum of the layers' relative
 * losses (each against its own total) is least. No layer keeps less than a quarter of what the target leaves, i.e.
 * (1 - target) / 4. out [count]. RUNG_ENOMEM. 0 <= target < 1.
 */
rung_status prune_share(double *out, const prune_curve *curves, size_t count, double target, rung_err *err);
#endif
