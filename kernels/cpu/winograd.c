#include "kernels/base/size.h"
#include "kernels/cpu/conv.h"
#include "kernels/cpu/sparse.h"

/* A task computes a block of tiles (4x4 pixels each) x a block of panels, over all input channels in slices. Its
 * scratch holds what belongs to one slice: V, the transformed input [36 points][tiles][SLICE]; U, the transformed
 * weights of one panel [36][SLICE][nr]; and the sums M [36][tiles][columns] of the whole block. Weights are transformed
 * anew for each block of tiles, 9 to 36 numbers: they are never resident, and at some 50 tiles that costs about 5% of a
 * task. */
enum {
    SLICE = 64,                     /* input channels */
    POINTS_A_ROW = GEMM_KC / SLICE, /* V's points share rows of GEMM_LDA floats: the stride of the tile kernel */
    ROWS_A_TILE = WINO_POINTS / POINTS_A_ROW,
    MAX_TILES = 56,
    MAX_COLS = 320,
    FEW_COLS = 128,
    WANTED_TASKS = 16,
};
_Static_assert(WINO_POINTS % POINTS_A_ROW == 0, "V's rows are full");
_Static_assert(sizeof(float) * (ROWS_A_TILE * MAX_TILES * GEMM_LDA + WINO_POINTS * (SLICE * 32 + 16) + 9 * SLICE * 32 +
                                WINO_POINTS * MAX_TILES * (MAX_COLS + 16) + WINO_OUT * WINO_OUT * MAX_COLS) <=
                   RUNG_POOL_SCRATCH,
               "a task's scratch");

static const winograd_kernels *kernels_for(unsigned cpu) {
#ifdef __x86_64__
    if (cpu & RUNG_CPU_AVX512) return &winograd_avx512;
    if (cpu & RUNG_CPU_AVX2) return &winograd_avx2;
#endif
    (void)cpu;
    return NULL;
}

struct job {
    const gemm_kernels *k;
    const winograd_kernels *wk;
    const conv_view *v;
    gemm_out out;
    size_t down, across, total;      /* tiles of a picture and of the batch */
    size_t tiles, tile_blocks, cols; /* of a task */
};

struct work {
    const struct job *j;
    size_t tile0, tiles, col0, cols;
    size_t c0, cn; /* the slice */
    float *v, *u, *taps, *m, *y;
    size_t ldm; /* floats between the tiles of a point */
};

/* Floats between the points of U. A line more than a slice: 36 stores a page apart would all meet in one cache set. */
static size_t u_stride(const gemm_kernels *k) { return SLICE * k->nr + 16; }

static void lay_out(struct work *s, float *scratch) {
    const struct job *j = s->j;
    s->ldm = j->cols + 16;
    s->v = scratch;
    s->u = s->v + ROWS_A_TILE * j->tiles * GEMM_LDA;
    s->taps = s->u + WINO_POINTS * u_stride(j->k);
    s->m = s->taps + 9 * SLICE * j->k->nr;
    s->y = s->m + WINO_POINTS * j->tiles * s->ldm;
}

/* Picture and upper left output pixel of a tile. */
static void place(const struct job *j, size_t tile, size_t *picture, size_t *oy, size_t *ox) {
    *picture = tile / (j->down * j->across);
    *oy = tile / j->across % j->down * WINO_OUT;
    *ox = tile % j->across * WINO_OUT;
}

/* The 36 input pixels of a tile of this task, at the slice's first channel; NULL: padding. */
static void locate(const struct work *s, size_t tile, const float **px) {
    const conv_view *v = s->j->v;
    const rung_conv_args *a = v->a;
    ptrdiff_t iy[WINO_IN], ix[WINO_IN];
    size_t picture, oy, ox;
    place(s->j, s->tile0 + tile, &picture, &oy, &ox);
    for (size_t i = 0; i < WINO_IN; i++) {
        iy[i] = conv_coordinate(oy + i, a->pad_top, v->uh, a->h);
        ix[i] = conv_coordinate(ox + i, a->pad_left, v->uw, a->w);
    }
    for (size_t p = 0; p < WINO_POINTS; p++) {
        const ptrdiff_t y = iy[p / WINO_IN], x = ix[p % WINO_IN];
        const bool padding = y == CONV_PADDING || x == CONV_PADDING;
        px[p] = padding ? NULL : v->x + ((picture * a->h + (size_t)y) * a->w + (size_t)x) * v->c->ic + s->c0;
    }
}

/* A slice of a pixel is too short for the hardware to see a stream. */
static void prefetch(const float *const *px, size_t n) {
    for (size_t p = 0; p < WINO_POINTS; p++)
        for (size_t c = 0; px[p] && c < n; c += 16) __builtin_prefetch(px[p] + c);
}

static void transform_input(const struct work *s) {
    const rung_conv_args *a = s->j->v->a;
    const float *px[2][WINO_POINTS];
    size_t at[WINO_POINTS];
    for (size_t p = 0; p < WINO_POINTS; p++) at[p] = p / POINTS_A_ROW * s->tiles * GEMM_LDA + p % POINTS_A_ROW * SLICE;
    locate(s, 0, px[0]);
    for (size_t t = 0; t < s->tiles; t++) {
        if (t + 1 < s->tiles) {
            locate(s, t + 1, px[(t + 1) % 2]);
            prefetch(px[(t + 1) % 2], s->cn);
        }
        const size_t picture = (s->tile0 + t) / (s->j->down * s->j->across);
        const size_t affine = picture * s->j->v->c->ic + s->c0;
        s->j->wk->input(s->v + t * GEMM_LDA, at, px[t % 2], s->cn, a->in_scale ? a->in_scale + affine : NULL,
                        a->in_scale ? a->in_shift + affine : NULL, a->in_act);
    }
}

static void transform_weights(const struct work *s, size_t panel) {
    const gemm_weights *w = s->j->out.w;
    const gemm_kernels *k = s->j->k;
    const float *taps[9];
    for (size_t t = 0; t < 9; t++) {
        const size_t k0 = t * s->j->v->c->ic + s->c0;
        float *room = s->taps + t * SLICE * k->nr;
        if (w->dtype != GEMM_F32) k->expand(w, panel, k0, s->cn, room);
        taps[t] = w->dtype == GEMM_F32 ? gemm_panel_f32(w, panel, k0) : room;
    }
    s->j->wk->weights(s->u, u_stride(k), taps, s->cn * k->nr);
}

/* M (+)= V U for one panel of the slice: 36 products [tiles, cn] x [cn, nr]. */
static void multiply(const struct work *s, float *m) {
    const gemm_kernels *k = s->j->k;
    const size_t heights = size_div_up(s->tiles, k->mr);
    for (size_t p = 0; p < WINO_POINTS; p++) {
        const float *v = s->v + p / POINTS_A_ROW * s->tiles * GEMM_LDA + p % POINTS_A_ROW * SLICE;
        for (size_t i = 0; i < heights; i++) {
            const size_t t = s->tiles * i / heights, rows = s->tiles * (i + 1) / heights - t;
            k->tile(rows, s->cn, v + t * GEMM_LDA, s->u + p * u_stride(k), m + (p * s->tiles + t) * s->ldm, s->ldm,
                    s->c0 > 0);
        }
    }
}

static void store_tiles(const struct work *s) {
    const struct job *j = s->j;
    const size_t padded = size_div_up(s->cols, j->k->nr) * j->k->nr;
    for (size_t t = 0; t < s->tiles; t++) {
        size_t picture, oy, ox;
        place(j, s->tile0 + t, &picture, &oy, &ox);
        j->wk->output(s->y, s->m + t * s->ldm, s->tiles * s->ldm, padded);
        for (size_t i = 0; i < size_min(WINO_OUT, j->v->oh - oy); i++)
            j->k->store(&j->out, s->y + i * WINO_OUT * padded, NULL, padded,
                        (picture * j->v->oh + oy + i) * j->v->ow + ox, size_min(WINO_OUT, j->v->ow - ox), s->col0,
                        s->cols);
    }
}

static void task(void *arg, size_t number, void *scratch) {
    const struct job *j = arg;
    const size_t ic = j->v->c->ic, nr = j->k->nr;
    struct work s = {.j = j};
    s.tile0 = number % j->tile_blocks * j->tiles;
    s.tiles = size_min(j->tiles, j->total - s.tile0);
    s.col0 = number / j->tile_blocks * j->cols;
    s.cols = size_min(j->cols, j->out.y_cols - s.col0);
    lay_out(&s, scratch);
    for (s.c0 = 0; s.c0 < ic; s.c0 += SLICE) {
        s.cn = size_min(SLICE, ic - s.c0);
        transform_input(&s);
        for (size_t c = 0; c < s.cols; c += nr) {
            transform_weights(&s, (s.col0 + c) / nr);
            multiply(&s, s.m + c);
        }
    }
    store_tiles(&s);
}

bool conv_winograd_suits(const cpu_backend *be, const conv_view *v) {
    enum { LEAST_CHANNELS = 64, LEAST_PIXELS = 64 };
    const rung_conv *c = v->c;
    if (be->exact || !kernels_for(be->cpu) || c->kh != 3 || c->kw != 3 || v->a->stride != 1) return false;
    if (c->ic < LEAST_CHANNELS || c->oc < LEAST_CHANNELS || v->oh * v->ow < LEAST_PIXELS) return false;
    if (c->w.dtype == GEMM_FP6 && !c->w.sparse && c->ic % GEMM_FP6_GROUP != 0) return false; /* a tap would begin inside a group */
    if (sparse_skipping_suits(be, &c->w, v->a->batch * v->oh * v->ow)) return false;
    /* Products for each weight: 36 a tile and a fifth for the transforms, and some 80 for the weight's own transform,
     * against 9 a pixel. Of one picture: the batch must not change a picture. */
    const size_t tiles = size_div_up(v->oh, WINO_OUT) * size_div_up(v->ow, WINO_OUT);
    return tiles * WINO_POINTS * 6 / 5 + 80 < v->oh * v->ow * 9;
}

void conv_winograd(cpu_backend *be, float *y, const conv_view *v, const rung_epilogue *ep) {
    struct job j = {.k = gemm_kernels_for(be->cpu), .wk = kernels_for(be->cpu), .v = v};
    j.out = (gemm_out){&v->c->w, ep, y, v->c->oc};
    const size_t nr = j.k->nr, panels = size_div_up(v->c->oc, nr);
    j.down = size_div_up(v->oh, WINO_OUT);
    j.across = size_div_up(v->ow, WINO_OUT);
    j.total = v->a->batch * j.down * j.across;
    j.tiles = size_div_up(j.total, size_div_up(j.total, MAX_TILES));
    j.tile_blocks = size_div_up(j.total, j.tiles);
    const size_t blocks =
        size_max(size_div_up(panels, MAX_COLS / nr),
                 size_min(size_div_up(WANTED_TASKS, j.tile_blocks), size_div_up(panels, FEW_COLS / nr)));
    j.cols = size_div_up(panels, blocks) * nr;
    rung_pool_run(be->pool, task, &j, j.tile_blocks * size_div_up(v->c->oc, j.cols));
}
