/* kernels/cpu/attention.h - blocks of attention: what a task computes. Internal to kernels/cpu. */
#ifndef RUNG_ATTENTION_H
#define RUNG_ATTENTION_H
#include "kernels/backend.h"

typedef struct {
    size_t step;    /* queries that are computed together; less is wasted work */
    size_t queries; /* the most in a block: step * 2^n */
    size_t max_d;   /* a larger head does not fit the worker's scratch */
    /** Queries i0 .. i0 + n of head h of picture b, against all keys. */
    void (*block)(const rung_attention_args *a, size_t b, size_t h, size_t i0, size_t n, void *scratch);
} attention_kernels;

/* attention_ref is the specification: f64, the maximum first. */
extern const attention_kernels attention_ref, attention_avx2, attention_avx512;

#endif
