#include <string.h>

#include "kernels/base/size.h"
#include "kernels/cpu/gemm.h"

/* A task computes rows x columns of y: up to MC rows (a multiple of the kernel's mr) and NC columns, over all of k in
 * blocks. Its scratch: a block of A, a panel expanded to f32, and the sums. For 14 x 32 tiles that is 183 + 32 + 360
 * KiB, which a large L2 holds; for 6 x 16 tiles 104 + 16 + 104 KiB, which a small one holds. */
enum { TILES_DOWN = 12, THIN_KC = 4096, THIN_LDA = THIN_KC + 16, WANTED_TASKS = 48, MIN_PANELS = 4, MAX_PANELS = 16 };

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
    bool thin, geglu;
};

/* What a task has in its worker's scratch. */
struct work {
    float *a;     /* [rows][lda] */
    float *panel; /* [kn][nr] */
    float *c;     /* [rows][ldc]: the sums of the value panels, then (GEGLU) of the gate panels */
    size_t lda, ldc;
};

static struct work lay_out(const struct job *j, void *scratch) {
    /* GEGLU's gate columns may start inside a panel, which takes one more. An odd number of lines a row spreads the
     * rows over the cache's sets. */
    const size_t c_cols = j->geglu ? 2 * j->cols + j->k->nr : j->cols;
    struct work w = {.lda = j->thin ? THIN_LDA : GEMM_LDA, .ldc = c_cols + 16};
    w.a = scratch;
    w.panel = w.a + j->rows * w.lda;
    w.c = w.panel + (j->thin ? 0 : GEMM_KC * j->k->nr);
    return w;
}

/* c[rows, panels] (+)= a W^T over [k0, k0 + kn). */
static void block(const struct job *j, const struct work *s, float *c, size_t rows, size_t panel0, size_t panels,
                  size_t k0, size_t kn) {
    const gemm_weights *w = j->out.w;
    const gemm_kernels *k = j->k;
    for (size_t p = 0; p < panels; p++) {
        float *cp = c + p * k->nr;
        if (j->thin) {
            k->thin(w, panel0 + p, k0, kn, s->a, s->lda, rows, cp, s->ldc, k0 > 0);
            continue;
        }
        const float *b = s->panel;
        if (w->dtype == GEMM_F32)
            b = (const float *)(w->panels + (panel0 + p) * w->panel_bytes) + k0 * k->nr;
        else
            k->expand(w, panel0 + p, k0, kn, s->panel);
        for (size_t tiles = size_div_up(rows, k->mr), t = 0; t < tiles; t++) { /* tiles of equal height */
            const size_t r = rows * t / tiles, next = rows * (t + 1) / tiles;
            k->tile(next - r, kn, s->a + r * s->lda, b, cp + r * s->ldc, s->ldc, k0 > 0);
        }
    }
}

static void task(void *arg, size_t number, void *scratch) {
    const struct job *j = arg;
    const gemm_weights *w = j->out.w;
    const size_t nr = j->k->nr;
    /* Neighbouring tasks share their columns: weights come from memory once, A from the cache. */
    const size_t row0 = number % j->row_blocks * j->rows, rows = size_min(j->rows, j->m - row0);
    const size_t col0 = number / j->row_blocks * j->cols, cols = size_min(j->cols, j->out.y_cols - col0);
    const size_t panels = size_div_up(cols, nr);
    const size_t gate0 = (j->out.y_cols + col0) / nr, gate_at = (j->out.y_cols + col0) % nr;
    const size_t gate_panels = size_div_up(gate_at + cols, nr);
    const struct work s = lay_out(j, scratch);
    const size_t kc = j->thin ? THIN_KC : GEMM_KC;
    for (size_t k0 = 0; k0 < w->k; k0 += kc) {
        const size_t kn = size_min(kc, w->k - k0);
        for (size_t r = 0; r < rows; r++) {
            float *a = s.a + r * s.lda;
            j->src->gather(j->src, a, row0 + r, k0, kn);
            memset(a + kn, 0, GEMM_FP6_GROUP * sizeof *a); /* FP6 panels are read to the end of a group */
        }
        block(j, &s, s.c, rows, col0 / nr, panels, k0, kn);
        if (j->geglu) block(j, &s, s.c + panels * nr, rows, gate0, gate_panels, k0, kn);
    }
    j->k->store(&j->out, s.c, s.c + panels * nr + gate_at, s.ldc, row0, rows, col0, cols);
}

/* Tasks by shape alone: how many workers there are must not show in the result. */
static void split(struct job *j) {
    const size_t mr = j->k->mr, panels = size_div_up(j->out.y_cols, j->k->nr);
    j->row_blocks = size_div_up(j->m, mr * TILES_DOWN);
    j->rows = j->thin ? j->m : size_div_up(size_div_up(j->m, j->row_blocks), mr) * mr;
    j->row_blocks = size_div_up(j->m, j->rows);
    const size_t fewest = j->m <= mr ? 1 : MIN_PANELS;
    const size_t blocks = size_max(size_div_up(panels, MAX_PANELS),
                                   size_min(size_div_up(WANTED_TASKS, j->row_blocks), size_div_up(panels, fewest)));
    const size_t task_panels = size_div_up(panels, blocks);
    j->cols = task_panels * j->k->nr;
    j->col_blocks = size_div_up(panels, task_panels);
}

void gemm_run(cpu_backend *be, float *y, size_t m, const gemm_weights *w, const gemm_source *src,
              const rung_epilogue *ep) {
    static const rung_epilogue plain = {0};
    if (!ep) ep = &plain;
    const bool geglu = ep->act == RUNG_ACT_GEGLU;
    struct job j = {.k = gemm_kernels_for(be->cpu), .src = src, .m = m, .thin = m <= GEMM_THIN, .geglu = geglu};
    j.out = (gemm_out){w, ep, y, geglu ? w->n / 2 : w->n};
    if (m == 0 || j.out.y_cols == 0) return;
    if (!j.k) {
        gemm_run_ref(be, &j.out, m, src);
        return;
    }
    split(&j);
    rung_pool_run(be->pool, task, &j, j.row_blocks * j.col_blocks);
}
