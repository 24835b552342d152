/* kernels/cpu/norm.h - the parts that the normalisations are made of. Internal to kernels/cpu. */
#ifndef RUNG_NORM_H
#define RUNG_NORM_H
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

/* The specification: f64, mean first, then the squares of the differences. */
void layer_norm_row_ref(const layer_norm_args *a, size_t row);
void rms_norm_row_ref(float *y, const float *x, size_t n, const float *w, float eps);
void group_norm_ref(const group_norm_args *a, size_t picture, size_t group);

#endif
