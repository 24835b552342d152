/* kernels/cpu/norm.h - the parts that the normalisations are made of. Internal to kernels/cpu. */
#ifndef RUNG_NORM_H
#define RUNG_NORM_H
#include <math.h>

#include "kernels/backend.h"

/* One layer_norm; NULL pointers leave their step out. Shapes as in kernels/backend.h. */
typedef struct {
    float *y;
    const float *x, *w, *b;
    size_t rows, n;
    float eps;
    const float *mod_scale, *mod_shift;
    size_t mod_stride, rows_per_sample;
} layer_norm_args;

/* One group_norm. y: the normalised image, or NULL; scale and shift f32 [batch, ch]: the affine, or NULL. */
typedef struct {
    float *y, *scale, *shift;
    const float *x, *w, *b;
    size_t batch, pixels, ch, groups;
    float eps;
    rung_act act;
} group_norm_args;

/* ---- the specification: f64, the mean first, then the squares of the differences --------------------------------- */

void layer_norm_rows_ref(const layer_norm_args *a, size_t row, size_t rows);
void rms_norm_row_ref(float *y, const float *x, size_t n, const float *w, float eps);
void group_norm_ref(const group_norm_args *a, size_t picture, size_t group);

/* ---- what an instruction set brings -------------------------------------------------------------------------------
 */

/* Mean and 1 / sqrt(variance + eps). */
typedef struct {
    double mean, k;
} norm_stats;

static inline norm_stats norm_stats_of(double sum, double squares, double count, double eps) {
    const double mean = sum / count, var = squares / count - mean * mean;
    return (norm_stats){mean, 1 / sqrt((var < 0 ? 0 : var) + eps)}; /* a NaN stays */
}

/* Some neighbouring channels of a picture: y = (x - mean) * scale + b. Arrays are filled to NORM_SLAB. */
enum { NORM_SLAB = 512 };
typedef struct {
    size_t n; /* channels, at most NORM_SLAB */
    float mean[NORM_SLAB], scale[NORM_SLAB], b[NORM_SLAB];
} norm_slab;

typedef struct {
    void (*layer_norm_rows)(const layer_norm_args *a, size_t row, size_t rows);
    void (*rms_norm_row)(float *y, const float *x, size_t n, const float *w, float eps);
    /** sum, squares [n rounded up to 16] += x and x^2 of n <= NORM_SLAB channels; x [pixels, ...], ch floats apart. */
    void (*channel_sums)(double *sum, double *squares, const float *x, size_t pixels, size_t ch, size_t n);
    /** The slab's channels of `pixels` pixels, ch floats apart; act NONE or SILU; y == x allowed. */
    void (*channel_affine)(float *y, const float *x, size_t pixels, size_t ch, const norm_slab *s, rung_act act);
} norm_kernels;

extern const norm_kernels norm_avx2, norm_avx512;

#endif
