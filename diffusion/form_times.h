/* diffusion/form_times.h - what sparse weights cost in time on this machine. Internal to diffusion/. */
#ifndef RUNG_FORM_TIMES_H
#define RUNG_FORM_TIMES_H
#include "kernels/base/pool.h"
#include "kernels/sparse.h"

/**
 * Products of a random layer, its weights dense and sparse, with few rows and with many; `values` F16, BF16 or a type
 * of six or five bits (then six). A second or two. RUNG_EARG: RUNG_CPU, RUNG_ENOMEM.
 */
rung_status form_times_measure(rung_form_times *t, rung_pool *pool, rung_dtype values, rung_err *err);
#endif
