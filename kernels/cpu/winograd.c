#include "kernels/base/size.h"
#include "kernels/cpu/conv.h"
#include "kernels/cpu/sparse.h"

/* As many tiles (4x4 or 2x2 output pixels) as fit into the backend's room go through two jobs:
 *
 *   1. input: pixels, normalised, to V [slices][points][tiles][slice], once for all output channels.
 *   2. products: a task takes a block of tiles x some panels of output channels. Slice by slice of the input channels
 *      it transforms the weights of its panels to U [points][panels][slice][nr] and adds V U to the sums M
 *      [points][tiles][columns]; then it transforms M to pixels and stores them.
 *
 * Weights are transformed anew for each block of tiles, 9 to 36 numbers, and never resident: at a block of 128 tiles
 * that is some 3% of a task. With few tiles a slice is short, so that U stays in L2; with many it is long, so that sums
 * stay in registers and U may lie in L3, where each of its numbers meets many tiles.
 */
enum {
    LONG_SLICE = 320,
    SHORT_SLICE = 128,
    MANY_TILES = 96, /* of a task: from here on slices are long */
    MOST_TILES = 128,
    MOST_COLS = 128,
    FEW_COLS = 64,            /* with few tiles */
    MOST_U = LONG_SLICE * 64, /* floats of a point of U */
    WANTED_TASKS = 16,
    MOST_POINTS = WINO_MOST_IN * WINO_MOST_IN,
    INPUT_TILES = 8, /* of a task of the first job */
    PAD = 16,        /* floats between rows of a power of two: an odd number of cache lines */
};

struct job {
    const gemm_kernels *k;
    const winograd_kernels *wk;
    const conv_view *v;
    gemm_out out;
    size_t in, points;               /* of a tile: in x in pixels make `points` points */
    size_t down, across, total;      /* tiles of a picture and of the batch */
    size_t slice, slices, ldv;       /* input channels of a slice; floats between the tiles of V */
    size_t first, held;              /* tiles in the room */
    size_t tiles, tile_blocks, cols; /* of a task */
    float *room;                     /* V */
};

struct work {
    const struct job *j;
    size_t tile0, tiles, col0, cols; /* tile0 counts from the room's first */
    size_t c0, cn;                   /* the slice */
    float *u, *taps, *m, *y;
    size_t u_panel, ldu, ldm; /* floats between the panels of a point of U; its points; the tiles of a point of M */
};

_Static_assert(sizeof(float) *
                       (MOST_POINTS * (MOST_U + PAD) + 9 * LONG_SLICE * GEMM_MOST_NR +
                        MOST_POINTS * MOST_TILES * (MOST_COLS + PAD) + WINO_MOST_OUT * WINO_MOST_OUT * MOST_COLS) <=
                   RUNG_POOL_SCRATCH,
               "a task's scratch");

static void lay_out(struct work *s, float *scratch) {
    const struct job *j = s->j;
    const size_t panels = size_div_up(s->cols, j->k->nr);
    s->ldm = panels * j->k->nr + PAD;
    s->u_panel = j->slice * j->k->nr;
    s->ldu = panels * s->u_panel + PAD;
    s->u = scratch;
    s->taps = s->u + j->points * s->ldu;
    s->m = s->taps + 9 * s->u_panel;
    s->y = s->m + j->points * s->tiles * s->ldm;
}

/* Where the tile's points of a slice begin; the next point lies held * ldv floats on. */
static float *v_at(const struct job *j, size_t slice, size_t tile) {
    return j->room + (slice * j->points * j->held + tile) * j->ldv;
}

/* ---- the first job ---- */

/* Picture and upper left output pixel of a tile. */
static void place(const struct job *j, size_t tile, size_t *picture, size_t *oy, size_t *ox) {
    *picture = tile / (j->down * j->across);
    *oy = tile / j->across % j->down * j->wk->out;
    *ox = tile % j->across * j->wk->out;
}

/* The input pixels of a tile at their first channel; NULL: padding. */
static void locate(const struct job *j, size_t picture, size_t oy, size_t ox, const float **px) {
    const conv_view *v = j->v;
    const rung_conv_args *a = v->a;
    for (size_t p = 0; p < j->points; p++) {
        const ptrdiff_t y = conv_coordinate(oy + p / j->in, a->pad_top, v->uh, a->h);
        const ptrdiff_t x = conv_coordinate(ox + p % j->in, a->pad_left, v->uw, a->w);
        const bool padding = y == CONV_PADDING || x == CONV_PADDING;
        px[p] = padding ? NULL : v->x + ((picture * a->h + (size_t)y) * a->w + (size_t)x) * v->c->ic;
    }
}

static void input_task(void *arg, size_t number, void *scratch) {
    const struct job *j = arg;
    const rung_conv_args *a = j->v->a;
    const size_t ic = j->v->c->ic, end = size_min((number + 1) * INPUT_TILES, j->held);
    const float *px[MOST_POINTS];
    (void)scratch;
    for (size_t t = number * INPUT_TILES; t < end; t++) {
        size_t picture, oy, ox;
        place(j, j->first + t, &picture, &oy, &ox);
        locate(j, picture, oy, ox, px);
        const float *scale = a->in_scale ? a->in_scale + picture * ic : NULL;
        const float *shift = a->in_scale ? a->in_shift + picture * ic : NULL;
        for (size_t i = 0; i < j->slices; i++)
            j->wk->input(v_at(j, i, t), j->held * j->ldv, px, i * j->slice, size_min(j->slice, ic - i * j->slice),
                         scale, shift, a->in_act);
    }
}

/* ---- the second job ---- */

static void transform_weights(const struct work *s, size_t panel) {
    const gemm_weights *w = s->j->out.w;
    const gemm_kernels *k = s->j->k;
    const float *taps[9];
    for (size_t t = 0; t < 9; t++) {
        const size_t k0 = t * s->j->v->c->ic + s->c0, at = s->col0 / k->nr + panel;
        float *room = s->taps + t * s->u_panel;
        if (w->dtype != GEMM_F32) k->expand(w, at, k0, s->cn, room);
        taps[t] = w->dtype == GEMM_F32 ? gemm_panel_f32(w, at, k0) : room;
    }
    s->j->wk->weights(s->u + panel * s->u_panel, s->ldu, taps, s->cn * k->nr);
}

/* M (+)= V U over the slice: a product [tiles, cn] x [cn, columns] for each point. */
static void multiply(const struct work *s, size_t panels) {
    const struct job *j = s->j;
    const size_t heights = size_div_up(s->tiles, j->k->mr);
    for (size_t p = 0; p < j->points; p++) {
        const float *v = v_at(j, s->c0 / j->slice, s->tile0) + p * j->held * j->ldv;
        for (size_t i = 0; i < heights; i++) {
            const size_t t = s->tiles * i / heights, rows = s->tiles * (i + 1) / heights - t;
            float *m = s->m + (p * s->tiles + t) * s->ldm;
            for (size_t panel = 0; panel < panels; panel++)
                j->k->tile(rows, s->cn, v + t * j->ldv, j->ldv, s->u + p * s->ldu + panel * s->u_panel,
                           m + panel * j->k->nr, s->ldm, s->c0 > 0);
        }
    }
}

static void store_tiles(const struct work *s) {
    const struct job *j = s->j;
    const size_t padded = s->ldm - PAD, out = j->wk->out;
    for (size_t t = 0; t < s->tiles; t++) {
        size_t picture, oy, ox;
        place(j, j->first + s->tile0 + t, &picture, &oy, &ox);
        j->wk->output(s->y, s->m + t * s->ldm, s->tiles * s->ldm, padded);
        for (size_t i = 0; i < size_min(out, j->v->oh - oy); i++)
            j->k->store(&j->out, s->y + i * out * padded, NULL, padded, (picture * j->v->oh + oy + i) * j->v->ow + ox,
                        size_min(out, j->v->ow - ox), s->col0, s->cols);
    }
}

static void product_task(void *arg, size_t number, void *scratch) {
    const struct job *j = arg;
    const size_t ic = j->v->c->ic;
    struct work s = {.j = j};
    /* Neighbouring tasks share their tiles. */
    const size_t col_blocks = size_div_up(j->out.y_cols, j->cols);
    s.tile0 = number / col_blocks * j->tiles;
    s.tiles = size_min(j->tiles, j->held - s.tile0);
    s.col0 = number % col_blocks * j->cols;
    s.cols = size_min(j->cols, j->out.y_cols - s.col0);
    lay_out(&s, scratch);
    const size_t panels = size_div_up(s.cols, j->k->nr);
    for (s.c0 = 0; s.c0 < ic; s.c0 += j->slice) {
        s.cn = size_min(j->slice, ic - s.c0);
        for (size_t panel = 0; panel < panels; panel++) transform_weights(&s, panel);
        multiply(&s, panels);
    }
    store_tiles(&s);
}

/* ---- which way, and how it is cut: by shape alone ---- */

static const winograd_kernels *kernels_for(unsigned cpu, size_t out) {
#ifdef __x86_64__
    if (cpu & RUNG_CPU_AVX512) return out == 4 ? &winograd4_avx512 : &winograd2_avx512;
    if (cpu & RUNG_CPU_AVX2) return out == 4 ? &winograd4_avx2 : &winograd2_avx2;
#endif
    (void)cpu, (void)out;
    return NULL;
}

static size_t tiles_of(const conv_view *v, size_t out) { return size_div_up(v->oh, out) * size_div_up(v->ow, out); }

/* Slices of equal size, whole vectors, so that FP6 groups and the rounded-up stores of the input transform fit. */
static void cut_slices(struct job *j, size_t most) {
    const size_t ic = j->v->c->ic;
    j->slice = size_div_up(size_div_up(ic, size_div_up(ic, most)), GEMM_MOST_NR / 2) * (GEMM_MOST_NR / 2);
    j->slices = size_div_up(ic, j->slice);
    j->ldv = (j->slice / 16 % 2 ? j->slice : j->slice + PAD);
}

static void cut(struct job *j) {
    const size_t nr = j->k->nr, panels = size_div_up(j->out.y_cols, nr);
    const bool many = j->total >= MANY_TILES;
    cut_slices(j, many ? LONG_SLICE : SHORT_SLICE);
    const size_t fit = WINO_ROOM / (j->points * j->slices * j->ldv);
    j->held = size_div_up(j->total, size_div_up(j->total, size_max(fit, 1)));
    j->tiles = size_div_up(j->held, size_div_up(j->held, MOST_TILES));
    j->tile_blocks = size_div_up(j->held, j->tiles);
    const size_t most = (many ? size_min(MOST_COLS, MOST_U / j->slice) : FEW_COLS) / nr;
    const size_t blocks =
        size_max(size_div_up(panels, most), size_min(size_div_up(WANTED_TASKS, j->tile_blocks), panels));
    j->cols = size_div_up(panels, blocks) * nr;
}

size_t conv_winograd_suits(const cpu_backend *be, const conv_view *v) {
    enum { LEAST_CHANNELS = 64, LEAST_PIXELS = 16 };
    const rung_conv *c = v->c;
    if (be->exact || !kernels_for(be->cpu, 4) || c->kh != 3 || c->kw != 3 || v->a->stride != 1) return 0;
    if (c->ic < LEAST_CHANNELS || c->oc < LEAST_CHANNELS || v->oh * v->ow < LEAST_PIXELS) return 0;
    /* A tap would begin inside a group. */
    if (c->w.dtype == GEMM_FP6 && !c->w.sparse && c->ic % GEMM_FP6_GROUP != 0) return 0;
    if (sparse_skipping_suits(be, &c->w, v->a->batch * v->oh * v->ow)) return 0;
    /* Products for each weight: 36 a tile and a fifth for the transforms, and some 80 for the weight's own transform,
     * against 9 a pixel. Of one picture: the batch must not change a picture. */
    const size_t four = tiles_of(v, 4) * 36 * 6 / 5 + 80, two = tiles_of(v, 2) * 16 * 6 / 5 + 45;
    const size_t direct = v->oh * v->ow * 9;
    if (size_min(four, two) >= direct) return 0;
    return four <= two ? 4 : 2;
}

void conv_winograd(cpu_backend *be, float *y, const conv_view *v, size_t out, const rung_epilogue *ep) {
    struct job j = {.k = gemm_kernels_for(be->cpu), .wk = kernels_for(be->cpu, out), .v = v};
    j.out = (gemm_out){&v->c->w, ep, y, v->c->oc};
    j.in = out + 2;
    j.points = j.in * j.in;
    j.down = size_div_up(v->oh, out);
    j.across = size_div_up(v->ow, out);
    j.total = v->a->batch * j.down * j.across;
    cut(&j);
    pthread_mutex_lock(&be->room_lock);
    j.room = be->room;
    const size_t most = j.held;
    for (j.first = 0; j.first < j.total; j.first += most) {
        j.held = size_min(most, j.total - j.first);
        rung_pool_run(be->pool, input_task, &j, size_div_up(j.held, INPUT_TILES));
        rung_pool_run(be->pool, product_task, &j, size_div_up(j.held, j.tiles) * size_div_up(v->c->oc, j.cols));
    }
    pthread_mutex_unlock(&be->room_lock);
}
