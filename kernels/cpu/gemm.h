/* kernels/cpu/gemm.h - the packed matrix and the one product behind cpu_linear and cpu_conv. Internal to kernels/cpu.
 *
 *   y[r, c] = epilogue(sum_k A[r, k] * W[c, k])
 *
 * W is packed once at load; A is not a matrix in memory but something that can write any part of any of its rows: the
 * rows of x for a linear layer, patches of an image for a convolution.
 */
#ifndef RUNG_GEMM_H
#define RUNG_GEMM_H
#include "kernels/cpu/cpu_ops.h"
#include "kernels/weight_rows.h"

/* ---- weights --------------------------------------------------------------------------------------------------- */

enum { GEMM_FP6_GROUP = 8, GEMM_FP6_UNIT = 4096, GEMM_E2M3_UNIT = 16384 };
static inline bool gemm_six_bit(gemm_dtype t) { return t == GEMM_FP6 || t == GEMM_E2M3; }

typedef struct sparse_panels sparse_panels; /* sparse.h */

/* W [n, k] in panels of nr columns (rows of W), each panel k-major: the nr weights that meet one A[r, k] lie side by
 * side. The last panel is filled up with zeros. FP6 (E3M2, codes S EEE MM) panels hold groups of 8 k in three vectors
 * of nr little-endian 16-bit words. With two bits between S and EEE a code is the upper byte of an f16 number, 2^12 too
 * small (GEMM_FP6_UNIT), subnormal ones too; so word w_i of a column holds the codes of k = 2i and 2i + 1 of its group
 * as bytes S..EEEMM, upper byte first, and in the two bits left of each byte a part of k = 6 (upper bytes) and k = 7:
 * w_0 the upper two bits of EEEMM, w_1 the next two, w_2 S and the last. E2M3 panels are alike; an f16 number needs the
 * magnitude one bit further down, and is 2^14 too small. */
typedef struct {
    gemm_dtype dtype;
    size_t n, k, nr;
    size_t panel_bytes;
    unsigned char *panels; /* [ceil(n / nr)][panel_bytes], 64-byte aligned; NULL with sparse panels */
    sparse_panels *sparse; /* what there is instead, and `dtype` does not count; NULL: none */
    float *scale;          /* f32 [ceil(n / nr) * nr]: what column c is multiplied by; NULL: 1 */
    float *bias;           /* f32 [ceil(n / nr) * nr]; NULL: none */
} gemm_weights;

/** Packs the stack for these CPU features. RUNG_EFORMAT (dtype; NaN or infinity where FP6 is asked for), RUNG_ESHAPE,
 * RUNG_ENOMEM. */
rung_status gemm_weights_open(gemm_weights *out, const gemm_part *parts, size_t count, rung_store store, unsigned cpu,
                              rung_err *err);
void gemm_weights_close(gemm_weights *w); /* a zeroed struct is fine */

/** W[col, k0 .. k0 + kn) without the scale, as f32. */
void gemm_weights_row(const gemm_weights *w, size_t col, size_t k0, size_t kn, float *out);

/** Panel `panel` of an f32 matrix from row k0 of k on: [k - k0, nr]. */
static inline const float *gemm_panel_f32(const gemm_weights *w, size_t panel, size_t k0) {
    return (const float *)(w->panels + panel * w->panel_bytes) + k0 * w->nr;
}

/** Columns of a panel for these CPU features. */
size_t gemm_panel_width(unsigned cpu);

/* ---- the product ----------------------------------------------------------------------------------------------- */

typedef struct gemm_source gemm_source;
struct gemm_source {
    /** A[row, k0 .. k0 + kn) into dst. */
    void (*gather)(const gemm_source *s, float *dst, size_t row, size_t k0, size_t kn);
    /* Where A is a matrix in memory after all: row r begins at rows + r * stride. Else NULL. */
    const float *rows;
    size_t stride;
};

/** y f32 [m, n] (n / 2 columns for GEGLU), rows contiguous. ep may be NULL. */
void gemm_run(cpu_backend *be, float *y, size_t m, const gemm_weights *w, const gemm_source *src,
              const rung_epilogue *ep);

/* An epilogue bound to one product. */
typedef struct {
    const gemm_weights *w;
    const rung_epilogue *ep; /* never NULL */
    float *y;
    size_t y_cols; /* n, or n / 2 for GEGLU */
} gemm_out;

/* ---- the specification: f64 sums in the order of k -------------------------------------------------------------- */

void gemm_run_ref(cpu_backend *be, const gemm_out *out, size_t m, const gemm_source *src);
double gemm_act_ref(double v, rung_act act); /* not GEGLU */

/* ---- what an ISA brings ------------------------------------------------------------------------------------------ */

/* KC: most k of one block; a multiple of GEMM_FP6_GROUP. LDA: floats between the rows of a block of A; an odd number of
 * cache lines, so that rows spread over the cache's sets. MOST_*: of any ISA. */
enum { GEMM_KC = 384, GEMM_LDA = GEMM_KC + 16, GEMM_MOST_MR = 14, GEMM_MOST_NR = 32 };

typedef struct {
    size_t nr, mr;    /* a tile is up to mr rows of nr columns */
    size_t thin_rows; /* of one call of thin() */
    size_t few_rows;  /* up to so many, in several calls, thin() is faster than expanding */
    /** c [rows, nr] (+)= a [rows, kn] b [kn, nr]; a's rows are lda floats apart. 1 <= rows <= mr. add: c has sums
     * already. Meanwhile it asks for kn cache lines from `ahead` on, which may be any address, to come nearer. */
    void (*tile)(size_t rows, size_t kn, const float *a, size_t lda, const float *b, float *c, size_t ldc, bool add,
                 const float *ahead);
    /** The f16, bf16, FP6 or sparse panel, k0 .. k0 + kn, as f32 [kn, nr] (FP6: kn rounded up to its group). */
    void (*expand)(const gemm_weights *w, size_t panel, size_t k0, size_t kn, float *out);
    /** As tile, from the packed panel. rows <= thin_rows; FP6 reads a up to its group's end. */
    void (*thin)(const gemm_weights *w, size_t panel, size_t k0, size_t kn, const float *a, size_t lda, size_t rows,
                 float *c, size_t ldc, bool add);
    /** Sums acc [rows, cols] (rows ld apart; gate_acc alike, for GEGLU) through the epilogue to y. */
    void (*store)(const gemm_out *o, const float *acc, const float *gate_acc, size_t ld, size_t row0, size_t rows,
                  size_t col0, size_t cols);
    /** y = act(x * scale + shift), f32 [n] each; act NONE or SILU. */
    void (*affine)(float *y, const float *x, const float *scale, const float *shift, size_t n, rung_act act);
} gemm_kernels;

extern const gemm_kernels gemm_avx2, gemm_avx512;

/** The best for these features; NULL: only the specification. */
const gemm_kernels *gemm_kernels_for(unsigned cpu);
#endif
