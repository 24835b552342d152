/* The product by skipping: rows lie across the lanes, so that one stored weight meets VL rows of A at once, and a
 * weight that is not stored costs nothing. A is transposed block by block for that, the sums back at the end. */
#include <string.h>

#include "kernels/base/size.h"
#include "kernels/cpu/sparse.h"

enum {
    ROWS = 256, /* of a task: they share the lists of what is stored */
    MOST_TILE = 64,
    MOST_COLS = 1024, /* A is transposed once for so many, values and gates together */
    STORE_COLS = 256, /* ... and so many go through the epilogue at a time */
    STORE_LD = 2 * STORE_COLS + 32,
    LDA = SPARSE_RUN + 16,
    ACROSS = SPARSE_RUN + 1, /* rows of a transposed tile: the last one is zeros */
    WANTED_TASKS = 12,
    LEAST_PANELS = 4,
};

const sparse_kernels *sparse_kernels_for(unsigned cpu) {
#ifdef __x86_64__
    if (cpu & RUNG_CPU_AVX512VBMI) return &sparse_avx512vbmi;
    if (cpu & RUNG_CPU_AVX512) return &sparse_avx512;
    if (cpu & RUNG_CPU_AVX2) return &sparse_avx2;
#endif
    (void)cpu;
    return NULL;
}

struct job {
    const gemm_kernels *k;
    const sparse_kernels *sk;
    gemm_out out;
    const gemm_source *src;
    size_t m, row_blocks, rows, cols; /* rows and columns of a task */
    size_t tile;                      /* rows of a tile */
};

/* A task under way. Panels of the values come first, then (GEGLU) those that hold the gates, from gate_at on. */
struct work {
    const struct job *j;
    size_t row0, rows, col0, cols;
    size_t panels, gate_panel, gate_at, all_panels;
    size_t k0, kn;
    float *a;      /* [tile][LDA] */
    float *across; /* [tiles][ACROSS][tile]: a run of A, transposed */
    float *sums;   /* [tiles][columns of all panels][tile] */
    float *c;      /* [tile][STORE_LD]: some of the sums, rows first: values, then gates */
};

static size_t tiles_of(const struct work *s) { return size_div_up(s->rows, s->j->tile); }
static size_t columns_of(const struct work *s) { return s->all_panels * s->j->k->nr; }

enum { MOST_TOTAL = MOST_COLS + 2 * GEMM_MOST_NR };
_Static_assert(sizeof(float) * (MOST_TILE * (LDA + STORE_LD) + ROWS * (ACROSS + MOST_TOTAL)) <= RUNG_POOL_SCRATCH,
               "a task's scratch");

static void lay_out(struct work *s, void *scratch) {
    const struct job *j = s->j;
    s->a = scratch;
    s->across = s->a + j->tile * LDA;
    s->sums = s->across + ROWS * ACROSS;
    s->c = s->sums + ROWS * columns_of(s);
    for (size_t t = 1; t <= tiles_of(s); t++)
        memset(s->across + (t * ACROSS - 1) * j->tile, 0, j->tile * sizeof *s->across);
    memset(s->sums, 0, tiles_of(s) * j->tile * columns_of(s) * sizeof *s->sums);
}

/* Rows [row, row + tile) of the run, transposed; rows that are not there are 0. */
static void turn_tile(const struct work *s, size_t row, float *across) {
    const struct job *j = s->j;
    const size_t whole = size_div_up(s->kn, 8) * 8;
    for (size_t r = 0; r < j->tile; r++) {
        float *a = s->a + r * LDA;
        const size_t there = row + r < s->rows ? s->kn : 0;
        if (there) j->src->gather(j->src, a, s->row0 + row + r, s->k0, there);
        memset(a + there, 0, (whole - there) * sizeof *a);
    }
    j->sk->transpose(across, j->tile, s->a, LDA, j->tile, whole);
}

static void add_run(const struct work *s) {
    const struct job *j = s->j;
    const size_t nr = j->k->nr;
    for (size_t r = 0; r < s->rows; r += j->tile) turn_tile(s, r, s->across + r * ACROSS);
    for (size_t p = 0; p < s->all_panels;) { /* values, then gates: each panels side by side */
        const size_t end = p < s->panels ? s->panels : s->all_panels, count = size_min(SPARSE_PANELS, end - p);
        const size_t panel = p < s->panels ? s->col0 / nr + p : s->gate_panel + p - s->panels;
        j->sk->skip(j->out.w->sparse, panel, count, s->k0 / SPARSE_RUN, s->across, j->tile * ACROSS, j->tile, s->rows,
                    s->sums + p * nr * j->tile, j->tile * columns_of(s));
        p += count;
    }
}

/* The tile's sums from row `row` on, through the epilogue. Gates begin anywhere: the transposition at a multiple of 8.
 */
static void store_tile(const struct work *s, size_t row) {
    enum { UNIT = 8 };
    const struct job *j = s->j;
    const float *sums = s->sums + row * columns_of(s);
    for (size_t c0 = 0; c0 < s->cols; c0 += STORE_COLS) {
        const size_t cols = size_min(STORE_COLS, s->cols - c0), gate = s->panels * j->k->nr + s->gate_at + c0;
        const size_t gate0 = gate / UNIT * UNIT, values = size_div_up(cols, UNIT) * UNIT;
        float *gates = s->c + STORE_COLS;
        j->sk->transpose(s->c, STORE_LD, sums + c0 * j->tile, j->tile, values, j->tile);
        if (s->all_panels > s->panels)
            j->sk->transpose(gates, STORE_LD, sums + gate0 * j->tile, j->tile,
                             size_div_up(gate + cols - gate0, UNIT) * UNIT, j->tile);
        j->k->store(&j->out, s->c, gates + (gate - gate0), STORE_LD, s->row0 + row, size_min(j->tile, s->rows - row),
                    s->col0 + c0, cols);
    }
}

static void task(void *arg, size_t number, void *scratch) {
    const struct job *j = arg;
    const size_t nr = j->k->nr, k = j->out.w->k;
    struct work s = {.j = j};
    s.row0 = number % j->row_blocks * j->rows;
    s.rows = size_min(j->rows, j->m - s.row0);
    s.col0 = number / j->row_blocks * j->cols;
    s.cols = size_min(j->cols, j->out.y_cols - s.col0);
    s.panels = size_div_up(s.cols, nr);
    s.gate_panel = (j->out.y_cols + s.col0) / nr;
    s.gate_at = (j->out.y_cols + s.col0) % nr;
    const bool geglu = j->out.ep->act == RUNG_ACT_GEGLU;
    s.all_panels = s.panels + (geglu ? size_div_up(s.gate_at + s.cols, nr) : 0);
    lay_out(&s, scratch);
    for (s.k0 = 0; s.k0 < k; s.k0 += SPARSE_RUN) {
        s.kn = size_min(SPARSE_RUN, k - s.k0);
        add_run(&s);
    }
    for (size_t r = 0; r < s.rows; r += j->tile) store_tile(&s, r);
}

void sparse_skip_run(cpu_backend *be, const gemm_out *out, size_t m, const gemm_source *src) {
    struct job j = {.k = gemm_kernels_for(be->cpu), .sk = sparse_kernels_for(be->cpu), .out = *out, .src = src, .m = m};
    const size_t nr = j.k->nr, panels = size_div_up(out->y_cols, nr);
    j.tile = size_div_up(size_min(m, SPARSE_VECTORS * j.sk->vl), j.sk->vl) * j.sk->vl;
    j.row_blocks = size_div_up(m, ROWS);
    j.rows = size_div_up(size_div_up(m, j.row_blocks), j.tile) * j.tile;
    j.row_blocks = size_div_up(m, j.rows);
    const size_t most = MOST_COLS / nr / (out->ep->act == RUNG_ACT_GEGLU ? 2 : 1);
    const size_t blocks = size_max(size_div_up(panels, most), size_min(size_div_up(WANTED_TASKS, j.row_blocks),
                                                                       size_div_up(panels, LEAST_PANELS)));
    const size_t task_panels = size_div_up(panels, blocks);
    j.cols = task_panels * nr;
    rung_pool_run(be->pool, task, &j, j.row_blocks * size_div_up(panels, task_panels));
}
