/* kernels/cpu/sparse.h - weights that stay sparse in memory, and the two ways to multiply with them: expand a panel and
 * compute as dense, or skip what is not there. Internal to kernels/cpu.
 *
 * A panel is nr columns (rows of W), as in gemm.h. A mask says which weights are there, and the values of the bits that
 * are set follow each other, in one of two orders:
 *
 * By k, which is what expanding wants: for each k a mask of nr bits, bit j for column j. Every SPARSE_BLOCK of k an
 * index says which value comes next.
 *
 * By columns, which is what skipping wants: SPARSE_RUN of k at a time, column after column, a mask of as many bits for
 * each. The index is one for each run.
 *
 * Six-bit values lie in chunks of four planes of codes in three planes of bytes, a plane being 2 nr of them: one
 * vector. Byte i of plane p holds code p * plane + i of the chunk: the sign, two bits that are not its own, the
 * magnitude. In those two bits the bytes i hold code 3 * plane + i: plane 0 the upper two bits of the magnitude, plane
 * 1 the next two, plane 2 the sign and the last. Bytes for a weight at density d: 1/8 + 0.75 d, and 1/(8 nr) of index
 * (by columns a quarter of it).
 */
#ifndef RUNG_CPU_SPARSE_H
#define RUNG_CPU_SPARSE_H
#include "kernels/cpu/gemm.h"

typedef enum { SPARSE_E3M2, SPARSE_E2M3, SPARSE_F16, SPARSE_BF16 } sparse_values;
enum { SPARSE_BLOCK = 32, SPARSE_RUN = 128, SPARSE_STEPS = 16 };

typedef struct sparse_kernels sparse_kernels;

struct sparse_panels {
    const sparse_kernels *kernels; /* what multiplies with them; NULL: only the specification */
    sparse_values type;
    bool by_columns;
    size_t nr, n, k, panels, blocks; /* blocks: of a panel; or runs */
    unsigned char *masks; /* [panels][k][nr / 8]; by columns [panels][blocks][nr][16], the last block's shorter ones
                           * without gaps, [panels][nr * ceil(k / 8)] in all */
    uint32_t *block_at;   /* [panels][blocks + 1]: the block's first value, counted from the panel's first */
    size_t *panel_at;     /* [panels]: the panel's first value */
    unsigned char *values;
    size_t end;                          /* of the values; the last chunk is filled up */
    float magnitude[32];                 /* of the six-bit codes */
    uint8_t code[28 * SPARSE_STEPS + 1]; /* of a magnitude, which is a whole number of 1 / SPARSE_STEPS */
    uint16_t *words;                     /* [nr, k]: the panel being filled; NULL once all rows are there */
    uint16_t *held;                      /* values on their way: six-bit ones wait here until they make a chunk */
    size_t waiting;
};

/** For the rows of a sparse stack, which are to be put in order. RUNG_ENOMEM, RUNG_ESHAPE. */
rung_status sparse_panels_open(sparse_panels **out, const weight_stack *stack, size_t nr, bool by_columns,
                               rung_err *err);
/** Which order is the faster one: does skipping pay? */
bool sparse_by_columns(const weight_stack *stack);
/** Codes of a plane of six-bit values. */
static inline size_t sparse_plane(size_t nr) { return 2 * nr; }
/** Row 0, 1, ... of W, without the scale; n of them make it whole. */
void sparse_panels_put(sparse_panels *s, size_t row, const float *numbers);
void sparse_panels_close(sparse_panels **s);
size_t sparse_panels_bytes(const sparse_panels *s);
/** W[col, k0 .. k0 + kn) without the scale. */
void sparse_panels_row(const sparse_panels *s, size_t col, size_t k0, size_t kn, float *out);

/** The masks of a run, by columns: `each` bytes for a column, one column after the other. */
static inline const unsigned char *sparse_run_masks(const sparse_panels *s, size_t panel, size_t run, size_t *each) {
    const size_t bytes = (s->k + 7) / 8, before = run * (SPARSE_RUN / 8), left = bytes - before;
    *each = left < SPARSE_RUN / 8 ? left : SPARSE_RUN / 8;
    return s->masks + (panel * bytes + before) * s->nr;
}

/** gemm_run by skipping: weights by columns. An element that is not stored multiplies nothing, not even a NaN. */
void sparse_skip_run(cpu_backend *be, const gemm_out *out, size_t m, const gemm_source *src);

/* ---- what an ISA brings ------------------------------------------------------------------------------------------ */

/* A tile of rows in vectors; rows that thin() takes, by k and by columns; panels that skip() takes: they share A's rows
 * while those are in L1. */
enum { SPARSE_VECTORS = 4, SPARSE_THIN = 4, SPARSE_THIN_COLUMNS = 8, SPARSE_PANELS = 2 };

struct sparse_kernels {
    size_t vl;
    size_t few_columns; /* up to so many rows thin() is faster than skip(); at most SPARSE_THIN_COLUMNS */
    /** Panel `panel`, k0 .. k0 + kn, as f32 [kn, nr]. By k only. */
    void (*expand)(const sparse_panels *s, size_t panel, size_t k0, size_t kn, float *out);
    /** c [rows, nr] (+)= a [rows, kn] times that; rows <= SPARSE_THIN(_COLUMNS). By columns: k0 is a multiple of
     * SPARSE_RUN. */
    void (*thin)(const sparse_panels *s, size_t panel, size_t k0, size_t kn, const float *a, size_t lda, size_t rows,
                 float *c, size_t ldc, bool add);
    /** c += W a over the stored weights of panels `panel` .. + panels in run `run`; panels <= SPARSE_PANELS. Rows of A
     * in tiles of up to 4 vl: a [tiles][SPARSE_RUN + 1, tile], of which the last is zeros; c [tiles][panels * nr,
     * tile], tiles a_tile and c_tile floats apart; of the last one only the vectors that `rows` reach. */
    void (*skip)(const sparse_panels *s, size_t panel, size_t panels, size_t run, const float *a, size_t a_tile,
                 size_t tile, size_t rows, float *c, size_t c_tile);
    /** dst [cols, rows] = src [rows, cols]; rows and cols multiples of 8. */
    void (*transpose)(float *dst, size_t dst_ld, const float *src, size_t src_ld, size_t rows, size_t cols);
};

extern const sparse_kernels sparse_avx2, sparse_avx512, sparse_avx512vbmi;
/** NULL: only the specification. */
const sparse_kernels *sparse_kernels_for(unsigned cpu);
#endif
