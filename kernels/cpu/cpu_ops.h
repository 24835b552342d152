/* kernels/cpu/cpu_ops.h - the CPU's side of kernels/backend.h: what fills its table, file by file. Internal. */
#ifndef RUNG_CPU_OPS_H
#define RUNG_CPU_OPS_H
#include <pthread.h>

#include "kernels/backend.h"
#include "kernels/base/cpu.h"

/* The CPU backend: every cpu_* operation gets it as its rung_backend *. */
typedef struct {
    rung_backend base;
    rung_pool *pool; /* borrowed */
    unsigned cpu;    /* RUNG_CPU_* to use */
    bool exact;      /* no Winograd: convolutions sum as the definition does */
    size_t only;     /* measurements: the tile of Winograd's wherever one fits; 0: what winograd_way() says */
    float *room;     /* [WINO_ROOM], a Winograd convolution's transformed input and weights; resident as far as used */
    pthread_mutex_t room_lock;
} cpu_backend;

enum { WINO_ROOM = 16 << 20 }; /* floats: 64 MiB */

static inline cpu_backend *cpu_of(rung_backend *be) { return (cpu_backend *)be; }

/* linear.c: packed GEMM. Weights [n, k] stay in their 16- or 6-bit form; a panel at a time becomes f32. */
rung_status cpu_linear_open(rung_backend *be, rung_linear **out, const rung_tensor *const *w,
                            const rung_tensor *const *bias, size_t parts, rung_store type, rung_err *err);
void cpu_linear_close(rung_backend *be, rung_linear **l);
void cpu_linear(rung_backend *be, float *y, const float *x, size_t x_row, size_t m, const rung_linear *l,
                const rung_epilogue *ep);

/* conv.c: NHWC convolution without an im2col buffer. */
rung_status cpu_conv_open(rung_backend *be, rung_conv **out, const rung_tensor *w, const rung_tensor *bias,
                          rung_store type, rung_err *err);
void cpu_conv_close(rung_backend *be, rung_conv **c);
void cpu_conv(rung_backend *be, float *y, const float *x, const rung_conv *c, const rung_conv_args *a,
              const rung_epilogue *ep);

/* attention.c */
void cpu_attention(rung_backend *be, const rung_attention_args *a);

/* norm.c */
void cpu_layer_norm(rung_backend *be, float *y, const float *x, size_t rows, size_t n, const float *w, const float *b,
                    float eps, const float *mod_scale, const float *mod_shift, size_t mod_stride,
                    size_t rows_per_sample);
void cpu_rms_norm(rung_backend *be, float *y, const float *x, size_t rows, size_t n, const float *w, float eps);
void cpu_group_norm(rung_backend *be, float *y, const float *x, size_t batch, size_t pixels, size_t ch, size_t groups,
                    const float *w, const float *b, float eps, rung_act act);
void cpu_group_norm_affine(rung_backend *be, float *scale, float *shift, const float *x, size_t batch, size_t pixels,
                           size_t ch, size_t groups, const float *w, const float *b, float eps);

/* elementwise.c */
void cpu_act(rung_backend *be, float *y, const float *x, size_t n, rung_act act);
void cpu_add(rung_backend *be, float *y, const float *a, const float *b, size_t n);
void cpu_add_rows(rung_backend *be, float *y, const float *x, const float *row, size_t rows, size_t rows_row, size_t n);
void cpu_copy2d(rung_backend *be, float *dst, size_t dst_row, const float *src, size_t src_row, size_t rows, size_t n);
void cpu_unpatchify(rung_backend *be, float *y, const float *x, size_t batch, size_t gh, size_t gw, size_t p,
                    size_t ch);

/* step.c */
void cpu_sinusoids(rung_backend *be, float *y, const float *t, size_t rows, size_t dim, bool flip, double shift);
void cpu_combine(rung_backend *be, float *y, const rung_term *terms, size_t count, float over, size_t n);
void cpu_normal(rung_backend *be, float *y, size_t n, uint64_t seed, uint64_t offset);

/* table.c */
rung_status cpu_table_open(rung_backend *be, rung_table **out, const rung_tensor *t, rung_err *err);
void cpu_table_close(rung_backend *be, rung_table **t);
void cpu_lookup(rung_backend *be, float *y, const rung_table *t, const int32_t *ids, size_t rows);
#endif
