/* kernels/cpu/elementwise.h - what an instruction set brings to the elementwise operations. Internal to kernels/cpu. */
#ifndef RUNG_ELEMENTWISE_H
#define RUNG_ELEMENTWISE_H
#include <stddef.h>

#include "kernels/backend.h"

typedef struct {
    void (*act)(float *y, const float *x, size_t n, rung_act act); /* y = act(x), f32 [n]; not GEGLU; y == x allowed */
    void (*add)(float *y, const float *a, const float *b, size_t n); /* y = a + b, f32 [n]; y may be a or b */
} elementwise_kernels;

/* The scalar one computes in f64 and is the specification. */
extern const elementwise_kernels elementwise_ref, elementwise_avx2, elementwise_avx512;

#endif
