/* The product by skipping: rows lie across the lanes, so that one stored weight meets VL rows of A at once, and a
 * weight that is not stored costs nothing. A is transposed block by block for that, the sums back at the end. */
#include <string.h>

#include "kernels/base/size.h"
#include "kernels/cpu/sparse.h"

enum {
    MOST_ROWS = 256, /* of a task: the lists are made once for so many */
    MOST_COLS = 512, /* A is transposed once for so many, values and gates together */
    MOST_KB = 256,
    WANTED_TASKS = 8,
    LEAST_PANELS = 4,
};

const sparse_kernels *sparse_kernels_for(unsigned cpu) {
#ifdef __x86_64__
    if (cpu & RUNG_CPU_AVX512) return &sparse_avx512;
    if (cpu & RUNG_CPU_AVX2) return &sparse_avx2;
#endif
    (void)cpu;
    return NULL;
}

bool sparse_skipping_suits(const cpu_backend *be, const gemm_weights *w, size_t m) {
    enum { LEAST_ROWS = 32, DENSEST = 35 /* of 100 */ };
    if (!w->sparse || !sparse_kernels_for(be->cpu) || m < LEAST_ROWS) return false;
    return w->sparse->held <= w->n * w->k / 100 * DENSEST;
}

struct job {
    const gemm_kernels *k;
    const sparse_kernels *sk;
    gemm_out out;
    const gemm_source *src;
    size_t m, row_blocks, rows, cols; /* rows and columns of a task */
    size_t tile, kb;                  /* rows of a tile, k of a block */
};

/* A task under way. Panels of the values come first, then (GEGLU) those that hold the gates, from gate_at on. */
struct work {
    const struct job *j;
    size_t row0, rows, padded, col0, cols;     /* padded: rows, to whole vectors */
    size_t panels, gate_panel, gate_at, total; /* total: columns of all panels */
    size_t k0, kn;
    float *a, *across, *sums, *c;
    sparse_entry *list;
    size_t *count;
};

static size_t lda(const struct job *j) { return j->kb + 16; }
static size_t ld_sums(const struct work *s) { return s->padded + 16; }
static size_t ld_c(const struct work *s) { return s->total + 16; }

enum { MOST_TOTAL = MOST_COLS + 2 * GEMM_MOST_NR };
_Static_assert(sizeof(float) * (MOST_ROWS * (MOST_KB + 16) + MOST_ROWS * MOST_KB + MOST_TOTAL * (MOST_ROWS + 16)) +
                       (sizeof(sparse_entry) * MOST_KB + sizeof(size_t)) * MOST_TOTAL <=
                   RUNG_POOL_SCRATCH,
               "a task's scratch");
_Static_assert(sizeof(float) * MOST_ROWS * (MOST_TOTAL + 16) <= sizeof(sparse_entry) * MOST_KB * MOST_TOTAL,
               "c takes the lists' place");

static void lay_out(struct work *s, void *scratch) {
    const struct job *j = s->j;
    s->a = scratch;
    s->across = s->a + j->rows * lda(j);
    s->sums = s->across + size_div_up(j->rows, j->tile) * j->tile * j->kb;
    s->list = (sparse_entry *)(s->sums + s->total * ld_sums(s));
    s->count = (size_t *)(s->list + s->total * MOST_KB);
    s->c = (float *)s->list; /* the lists are done with when c is needed */
}

/* The block of A, transposed: tiles of [kn][tile]. */
static void turn_block(const struct work *s) {
    const struct job *j = s->j;
    const size_t whole = size_div_up(s->kn, 8) * 8;
    for (size_t r = 0; r < s->padded; r++) {
        float *a = s->a + r * lda(j);
        const size_t n = r < s->rows ? s->kn : 0;
        if (n) j->src->gather(j->src, a, s->row0 + r, s->k0, n);
        memset(a + n, 0, (whole - n) * sizeof *a);
    }
    for (size_t r = 0; r < s->padded; r += j->tile)
        j->sk->transpose(s->across + r * j->kb, j->tile, s->a + r * lda(j), lda(j), size_min(j->tile, s->padded - r),
                         whole);
}

static void add_block(const struct work *s) {
    const struct job *j = s->j;
    const size_t nr = j->k->nr;
    for (size_t p = 0; p * nr < s->total; p++) {
        const size_t panel = p < s->panels ? s->col0 / nr + p : s->gate_panel + p - s->panels;
        j->sk->lists(j->out.w->sparse, panel, s->k0, s->kn, j->tile, s->list + p * nr * j->kb, j->kb,
                     s->count + p * nr);
    }
    for (size_t r = 0; r < s->padded; r += j->tile)
        j->sk->skip(s->list, j->kb, s->count, s->total, s->across + r * j->kb,
                    size_min(j->tile, s->padded - r) / j->sk->vl, s->sums + r, ld_sums(s), s->k0 > 0);
}

static void task(void *arg, size_t number, void *scratch) {
    const struct job *j = arg;
    const size_t nr = j->k->nr, k = j->out.w->k;
    struct work s = {.j = j};
    s.row0 = number % j->row_blocks * j->rows;
    s.rows = size_min(j->rows, j->m - s.row0);
    s.padded = size_div_up(s.rows, j->sk->vl) * j->sk->vl;
    s.col0 = number / j->row_blocks * j->cols;
    s.cols = size_min(j->cols, j->out.y_cols - s.col0);
    s.panels = size_div_up(s.cols, nr);
    s.gate_panel = (j->out.y_cols + s.col0) / nr;
    s.gate_at = (j->out.y_cols + s.col0) % nr;
    const bool geglu = j->out.ep->act == RUNG_ACT_GEGLU;
    s.total = (s.panels + (geglu ? size_div_up(s.gate_at + s.cols, nr) : 0)) * nr;
    lay_out(&s, scratch);
    for (s.k0 = 0; s.k0 < k; s.k0 += j->kb) {
        s.kn = size_min(j->kb, k - s.k0);
        turn_block(&s);
        add_block(&s);
    }
    j->sk->transpose(s.c, ld_c(&s), s.sums, ld_sums(&s), s.total, s.padded);
    j->k->store(&j->out, s.c, s.c + s.panels * nr + s.gate_at, ld_c(&s), s.row0, s.rows, s.col0, s.cols);
}

void sparse_skip_run(cpu_backend *be, const gemm_out *out, size_t m, const gemm_source *src) {
    struct job j = {.k = gemm_kernels_for(be->cpu), .sk = sparse_kernels_for(be->cpu), .out = *out, .src = src, .m = m};
    const size_t nr = j.k->nr, panels = size_div_up(out->y_cols, nr);
    j.tile = SPARSE_VECTORS * j.sk->vl;
    j.kb = SPARSE_L1 / j.tile;
    j.row_blocks = size_div_up(m, MOST_ROWS);
    j.rows = size_div_up(size_div_up(m, j.row_blocks), j.tile) * j.tile;
    j.row_blocks = size_div_up(m, j.rows);
    const size_t most = MOST_COLS / nr / (out->ep->act == RUNG_ACT_GEGLU ? 2 : 1);
    const size_t blocks = size_max(size_div_up(panels, most), size_min(size_div_up(WANTED_TASKS, j.row_blocks),
                                                                       size_div_up(panels, LEAST_PANELS)));
    const size_t task_panels = size_div_up(panels, blocks);
    j.cols = task_panels * nr;
    rung_pool_run(be->pool, task, &j, j.row_blocks * size_div_up(panels, task_panels));
}
