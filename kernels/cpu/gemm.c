#include <string.h>

#include "kernels/base/size.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/sparse.h"

/* A task computes rows x columns of y: up to TILES_DOWN tiles of rows and MAX_PANELS panels of columns, over all of k
 * in blocks. Its scratch: a block of A, a panel expanded to f32, and the sums. */
enum {
    TILES_DOWN = 24, /* 336 or 144 rows: a panel is read from L3, and expanded, for so many at a time */
    MAX_PANELS = 16, /* the sums of a task stay in L2 */
    MIN_PANELS = 4,
    MIN_GATHERED = 8,  /* below, gathering A costs too much of a task */
    WANTED_TASKS = 48, /* enough for the threads to finish together */
    THIN_KC = 4096,    /* thin() needs no block but A's scratch */
    THIN_LDA = THIN_KC + 16,
    FEW_KC = 128, /* up to two tiles of rows: what a panel expands to had better stay in L1 */
};

const gemm_kernels *gemm_kernels_for(unsigned cpu) {
#ifdef __x86_64__
    if (cpu & RUNG_CPU_AVX512) return &gemm_avx512;
    if (cpu & RUNG_CPU_AVX2) return &gemm_avx2;
#endif
    (void)cpu;
    return NULL;
}

size_t gemm_panel_width(unsigned cpu) {
    const gemm_kernels *k = gemm_kernels_for(cpu);
    return k ? k->nr : 16;
}

struct job {
    const gemm_kernels *k;
    gemm_out out;
    const gemm_source *src;
    size_t m, rows, row_blocks; /* rows of a task */
    size_t cols, col_blocks;    /* columns of a task: whole panels */
    size_t kc;                  /* k of a block */
    size_t height;              /* of a tile, at most */
    bool thin, geglu;
    bool in_place; /* A is read where it lies */
    bool direct;   /* sums are the output, and are made where it lies */
};

/* A task under way, and what it has in its worker's scratch. */
struct work {
    const struct job *j;
    size_t row0, rows, col0, cols;
    size_t k0, kn;  /* the block */
    const float *a; /* [rows][lda] */
    float *copy;    /* of A where it is not read in place */
    float *panel;   /* [kn][nr] */
    float *c;       /* [rows][ldc]: the sums of the value panels, then (GEGLU) of the gate panels; or y itself */
    size_t lda, ldc;
};

_Static_assert(sizeof(float) * (TILES_DOWN * GEMM_MOST_MR * (GEMM_LDA + (2 * MAX_PANELS + 1) * GEMM_MOST_NR + 16) +
                                GEMM_KC * GEMM_MOST_NR) <=
                   RUNG_POOL_SCRATCH,
               "a task's scratch");

static void lay_out(struct work *s, void *scratch) {
    const struct job *j = s->j;
    /* GEGLU's gate columns may start inside a panel, which takes one more. An odd number of lines a row spreads the
     * rows over the cache's sets. */
    s->ldc = (j->geglu ? 2 * j->cols + j->k->nr : j->cols) + 16;
    s->lda = j->in_place ? j->src->stride : j->thin ? THIN_LDA : GEMM_LDA;
    s->a = s->copy = scratch;
    s->panel = s->copy + (j->in_place ? 0 : j->rows * s->lda);
    s->c = s->panel + (j->thin ? 0 : GEMM_KC * j->k->nr);
    if (!j->direct) return;
    s->ldc = j->out.y_cols;
    s->c = j->out.y + s->row0 * s->ldc + s->col0;
}

/* Sums of a panel over this block; rows r0.. of the task. */
static void sum_tile(const struct work *s, size_t panel, const float *b, float *c, size_t r0, size_t rows,
                     const void *ahead) {
    const gemm_kernels *k = s->j->k;
    const float *a = s->a + r0 * s->lda;
    if (s->j->thin)
        k->thin(s->j->out.w, panel, s->k0, s->kn, a, s->lda, rows, c, s->ldc, s->k0 > 0);
    else
        k->tile(rows, s->kn, a, s->lda, b, c, s->ldc, s->k0 > 0, ahead);
}

/* Output and residual come from memory while the tile is summed. */
static void prefetch_out(const gemm_out *o, size_t row, size_t rows, size_t col) {
    for (size_t i = row * o->y_cols + col; rows > 0; rows--, i += o->y_cols) {
        __builtin_prefetch(o->y + i, 1);
        __builtin_prefetch(o->y + i + 16, 1);
        if (!o->ep->residual || o->ep->residual == o->y) continue;
        __builtin_prefetch(o->ep->residual + i);
        __builtin_prefetch(o->ep->residual + i + 16);
    }
}

/* Where the packed weights lie that are expanded after this panel's: the next panel of the block, or the next block. */
static const void *next_weights(const struct work *s, size_t panel, bool last) {
    const gemm_weights *w = s->j->out.w;
    if (w->sparse || s->j->thin) return s->a;
    const size_t k = last ? s->k0 + s->kn : s->k0;
    return w->panels + (last ? s->col0 / w->nr : panel + 1) * w->panel_bytes + w->panel_bytes * k / w->k;
}

/* c [rows, panels] (+)= a W^T over the block. `finish`: the sums are complete and go to y while they are in L1; gates
 * [rows, panels] are what GEGLU multiplies them by. */
static void sum_panels(const struct work *s, float *c, size_t panel0, size_t panels, bool finish, const float *gates) {
    const gemm_weights *w = s->j->out.w;
    const gemm_kernels *k = s->j->k;
    const size_t tiles = size_div_up(s->rows, s->j->height);
    for (size_t p = 0; p < panels; p++) {
        const float *b = s->panel;
        if (w->dtype == GEMM_F32)
            b = gemm_panel_f32(w, panel0 + p, s->k0);
        else if (!s->j->thin)
            k->expand(w, panel0 + p, s->k0, s->kn, s->panel);
        for (size_t t = 0; t < tiles; t++) { /* tiles of equal height */
            const size_t r = s->rows * t / tiles, rows = s->rows * (t + 1) / tiles - r, at = r * s->ldc + p * k->nr;
            if (finish) prefetch_out(&s->j->out, s->row0 + r, rows, s->col0 + p * k->nr);
            const void *ahead = t == 0 ? next_weights(s, panel0 + p, p + 1 == panels) : b;
            sum_tile(s, panel0 + p, b, c + at, r, rows, ahead);
            if (finish && !s->j->direct)
                k->store(&s->j->out, c + at, gates ? gates + at : NULL, s->ldc, s->row0 + r, rows, s->col0 + p * k->nr,
                         size_min(k->nr, s->cols - p * k->nr));
        }
    }
}

static void gather_block(const struct work *s) {
    for (size_t r = 0; r < s->rows; r++) {
        float *a = s->copy + r * s->lda;
        s->j->src->gather(s->j->src, a, s->row0 + r, s->k0, s->kn);
        memset(a + s->kn, 0, GEMM_FP6_GROUP * sizeof *a); /* FP6 panels are read to the end of a group */
    }
}

static void task(void *arg, size_t number, void *scratch) {
    const struct job *j = arg;
    struct work s = {.j = j};
    /* Neighbouring tasks share their columns: weights come from memory once, A from the cache. */
    s.row0 = number % j->row_blocks * j->rows;
    s.rows = size_min(j->rows, j->m - s.row0);
    s.col0 = number / j->row_blocks * j->cols;
    s.cols = size_min(j->cols, j->out.y_cols - s.col0);
    lay_out(&s, scratch);
    const size_t nr = j->k->nr, k = j->out.w->k, panels = size_div_up(s.cols, nr);
    const size_t gate0 = (j->out.y_cols + s.col0) / nr, gate_at = (j->out.y_cols + s.col0) % nr;
    float *gates = s.c + panels * nr;
    for (s.k0 = 0; s.k0 < k; s.k0 += j->kc) {
        s.kn = size_min(j->kc, k - s.k0);
        if (j->in_place)
            s.a = j->src->rows + s.row0 * j->src->stride + s.k0;
        else
            gather_block(&s);
        if (j->geglu) sum_panels(&s, gates, gate0, size_div_up(gate_at + s.cols, nr), false, NULL);
        sum_panels(&s, s.c, s.col0 / nr, panels, s.k0 + s.kn == k, j->geglu ? gates + gate_at : NULL);
    }
}

/* Not where rows lie a multiple of 4 KiB apart and meet in one set of L1, more of them than it has ways; and not where
 * thin() would read an FP6 group past the end of a row. */
static bool reads_in_place(const struct job *j) {
    if (!j->src->rows || (j->thin && j->out.w->sparse)) return false;
    if (j->thin) return !gemm_six_bit(j->out.w->dtype) || j->out.w->k % GEMM_FP6_GROUP == 0;
    return j->k->mr <= 8 || j->src->stride % 1024 != 0;
}

/* No epilogue, whole panels, and rows that do not meet in the same sets of L1, as above. */
static bool sums_are_output(const gemm_out *o, size_t nr) {
    const rung_epilogue *e = o->ep;
    const bool plain = e->act == RUNG_ACT_NONE && (e->out_scale == 0 || e->out_scale == 1) && !e->sample_add &&
                       !e->gate && !e->residual && !o->w->bias && !o->w->scale;
    return plain && o->y_cols % nr == 0 && o->y_cols % 1024 != 0;
}

/* Tasks by shape alone: how many workers there are must not show in the result. */
static void split(struct job *j) {
    const size_t mr = j->k->mr, panels = size_div_up(j->out.y_cols, j->k->nr);
    j->row_blocks = size_div_up(j->m, mr * TILES_DOWN);
    j->rows = j->thin ? j->m : size_div_up(size_div_up(j->m, j->row_blocks), mr) * mr;
    j->row_blocks = size_div_up(j->m, j->rows);
    const size_t fewest = j->m <= mr ? 1 : j->in_place ? MIN_PANELS : MIN_GATHERED;
    const size_t blocks = size_max(size_div_up(panels, j->geglu ? MAX_PANELS / 2 : MAX_PANELS),
                                   size_min(size_div_up(WANTED_TASKS, j->row_blocks), size_div_up(panels, fewest)));
    const size_t task_panels = size_div_up(panels, blocks);
    j->cols = task_panels * j->k->nr;
    j->col_blocks = size_div_up(panels, task_panels);
    const size_t kc = j->thin ? THIN_KC : j->m <= 2 * mr ? FEW_KC : GEMM_KC, k = j->out.w->k;
    const size_t unit = j->out.w->sparse ? SPARSE_RUN : GEMM_FP6_GROUP;
    j->kc = size_div_up(size_div_up(k, size_div_up(k, kc)), unit) * unit;
}

void gemm_run(cpu_backend *be, float *y, size_t m, const gemm_weights *w, const gemm_source *src,
              const rung_epilogue *ep) {
    static const rung_epilogue plain = {0};
    if (!ep) ep = &plain;
    const bool geglu = ep->act == RUNG_ACT_GEGLU;
    struct job j = {.k = gemm_kernels_for(be->cpu), .src = src, .m = m, .geglu = geglu};
    j.out = (gemm_out){w, ep, y, geglu ? w->n / 2 : w->n};
    if (m == 0 || j.out.y_cols == 0) return;
    if (!j.k) {
        gemm_run_ref(be, &j.out, m, src);
        return;
    }
    const bool by_columns = w->sparse && w->sparse->by_columns;
    if (by_columns && m > w->sparse->kernels->few_columns) {
        sparse_skip_run(be, &j.out, m, src);
        return;
    }
    const size_t thin = by_columns ? SPARSE_THIN_COLUMNS : w->sparse ? SPARSE_THIN : j.k->thin_rows;
    j.thin = by_columns || m <= (w->sparse ? thin : j.k->few_rows);
    j.height = j.thin ? thin : j.k->mr;
    j.in_place = reads_in_place(&j);
    j.direct = sums_are_output(&j.out, j.k->nr);
    split(&j);
    rung_pool_run(be->pool, task, &j, j.row_blocks * j.col_blocks);
}
