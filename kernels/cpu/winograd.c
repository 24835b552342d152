#include "kernels/base/size.h"
#include "kernels/cpu/conv.h"
#include "kernels/cpu/sparse.h"

/* As many tiles (6x6, 4x4 or 2x2 output pixels) as fit into the backend's room go through two or three jobs:
 *
 *   1. input: pixels, normalised, to V [slices][points][tiles][slice], once for all output channels.
 *   2. weights, where many tiles share them: those of a block of panels to U [slices][points][panels][slice][nr].
 *   3. products: a task takes a block of tiles x some panels of output channels. Slice by slice of the input channels
 *      it adds V U to the sums M [points][tiles][columns]; then it transforms M to pixels and stores them.
 *
 * With few tiles there is no second job: a task transforms the weights of a slice itself, a short one, into L2.
 * Transformed weights, 4 to 7 times as many as the layer has, are never resident.
 */
enum {
    MANY_TILES = 96, /* from here on weights are shared */
    SHARED_SLICE = 192,
    SHARED_TILES = 42, /* of a task; M stays in L2, V and U come from L3 */
    SHARED_COLS = 128,
    OWN_SLICE = 128,
    OWN_COLS = 64,
    MOST_SLICE = SHARED_SLICE,
    WANTED_TASKS = 12,
    MOST_POINTS = WINO_MOST_IN * WINO_MOST_IN,
    INPUT_TILES = 8,                /* of a task of the first job */
    TAP_EXTRA = 2 * GEMM_FP6_GROUP, /* rows of a tap's weights: it may begin and end within a group */
    PAD = 16,                       /* floats between rows of a power of two: an odd number of cache lines */
    ROOM_V = WINO_ROOM / 2,
    ROOM_U = WINO_ROOM / 2,
};

struct job {
    const gemm_kernels *k;
    const winograd_kernels *wk;
    const conv_view *v;
    gemm_out out;
    size_t in, points;          /* of a tile: in x in pixels make `points` points */
    size_t down, across, total; /* tiles of a picture and of the batch */
    size_t slice, slices, ldv;  /* input channels of a slice; floats between the tiles of V */
    size_t first, held;         /* tiles in the room */
    size_t tiles, cols;         /* of a task */
    bool shared;                /* U is */
    size_t panel0, panels;      /* of the block of U that is under way */
    float *v_room, *u_room;
};

struct work {
    const struct job *j;
    size_t tile0, tiles, col0, cols; /* tile0 counts from the room's first */
    size_t c0, cn;                   /* the slice */
    const float *u;                  /* of the slice and the first panel */
    float *own_u, *taps, *m, *y;
    size_t u_panel, ldu, ldm; /* floats between the panels of a point of U; its points; the tiles of a point of M */
};

#define M_FLOATS(tiles, cols) (MOST_POINTS * (tiles) * ((cols) + PAD) + WINO_MOST_OUT * WINO_MOST_OUT * (cols))
#define TAP_FLOATS            (9 * (MOST_SLICE + TAP_EXTRA) * GEMM_MOST_NR)
_Static_assert(sizeof(float) * (TAP_FLOATS + M_FLOATS(SHARED_TILES, SHARED_COLS)) <= RUNG_POOL_SCRATCH, "third job");
_Static_assert(sizeof(float) *
                       (TAP_FLOATS + M_FLOATS(MANY_TILES, OWN_COLS) + MOST_POINTS * (OWN_SLICE * OWN_COLS + PAD)) <=
                   RUNG_POOL_SCRATCH,
               "its own weights");
_Static_assert(sizeof(float) * WINO_MOST_IN * (INPUT_TILES * WINO_MOST_OUT + 2) * MOST_SLICE <= RUNG_POOL_SCRATCH,
               "first job");

static void lay_out(struct work *s, float *scratch) {
    const struct job *j = s->j;
    const size_t panels = size_div_up(s->cols, j->k->nr);
    s->ldm = panels * j->k->nr + PAD;
    s->u_panel = j->slice * j->k->nr;
    s->ldu = (j->shared ? j->panels : panels) * s->u_panel + PAD;
    s->own_u = scratch;
    s->taps = s->own_u + (j->shared ? 0 : j->points * s->ldu);
    s->m = s->taps + 9 * (j->slice + TAP_EXTRA) * j->k->nr;
    s->y = s->m + j->points * s->tiles * s->ldm;
}

/* Where the tile's points of a slice begin; the next point lies held * ldv floats on. */
static float *v_at(const struct job *j, size_t slice, size_t tile) {
    return j->v_room + (slice * j->points * j->held + tile) * j->ldv;
}

/* ---- the first job ---- */

/* Picture and upper left output pixel of a tile. */
static void place(const struct job *j, size_t tile, size_t *picture, size_t *oy, size_t *ox) {
    *picture = tile / (j->down * j->across);
    *oy = tile / j->across % j->down * j->wk->out;
    *ox = tile % j->across * j->wk->out;
}

/* What a run of neighbouring tiles of one row reads: `in` rows of pixels, each at a slice's first channel. */
typedef const float *run_pixels[WINO_MOST_IN][INPUT_TILES * WINO_MOST_OUT + 2];

/* n channels from c0 on of the pixels. Neighbouring tiles share pixels: what norm and SiLU make of one is made once,
 * into `band`, n rounded up to a cache line for each. */
static void read_run(const struct job *j, run_pixels px, size_t tile, size_t tiles, size_t c0, size_t n, float *band) {
    static const float zeros[MOST_SLICE];
    const conv_view *v = j->v;
    const rung_conv_args *a = v->a;
    size_t picture, oy, ox;
    place(j, tile, &picture, &oy, &ox);
    const float *scale = a->in_scale ? a->in_scale + picture * v->c->ic + c0 : NULL;
    const float *shift = a->in_scale ? a->in_shift + picture * v->c->ic + c0 : NULL;
    for (size_t i = 0; i < j->in; i++) {
        const ptrdiff_t y = conv_coordinate(oy + i, a->pad_top, v->uh, a->h);
        for (size_t k = 0; k < tiles * j->wk->out + 2; k++) {
            const ptrdiff_t x = conv_coordinate(ox + k, a->pad_left, v->uw, a->w);
            px[i][k] = zeros;
            if (y == CONV_PADDING || x == CONV_PADDING) continue;
            px[i][k] = v->x + ((picture * a->h + (size_t)y) * a->w + (size_t)x) * v->c->ic + c0;
            if (!scale) continue;
            j->k->affine(band, px[i][k], scale, shift, n, a->in_act);
            px[i][k] = band;
            band += size_div_up(n, PAD) * PAD;
        }
    }
}

/* Up to INPUT_TILES tiles, one slice. */
static void input_task(void *arg, size_t number, void *scratch) {
    const struct job *j = arg;
    const size_t slice = number % j->slices, c0 = slice * j->slice, n = size_min(j->slice, j->v->c->ic - c0);
    const size_t begin = number / j->slices * INPUT_TILES, end = size_min(begin + INPUT_TILES, j->held);
    run_pixels px;
    for (size_t t = begin, run; t < end; t += run) {
        run = size_min(end - t, j->across - (j->first + t) % j->across);
        read_run(j, px, j->first + t, run, c0, n, scratch);
        for (size_t i = 0; i < run; i++) {
            const float *patch[MOST_POINTS];
            for (size_t p = 0; p < j->points; p++) patch[p] = px[p / j->in][i * j->wk->out + p % j->in];
            j->wk->input(v_at(j, slice, t + i), j->held * j->ldv, patch, n);
        }
    }
}

/* ---- the second job, and what stands for it ---- */

/* Panel `panel` of the weight, c0 .. c0 + cn, to the points: point p begins at u + p * ldu. taps: scratch. */
static void transform_weights(const struct job *j, float *u, size_t ldu, size_t panel, size_t c0, size_t cn,
                              float *taps) {
    const gemm_weights *w = j->out.w;
    const float *tap[9];
    const bool in_place = w->dtype == GEMM_F32 && !w->sparse, groups = gemm_six_bit(w->dtype) && !w->sparse;
    for (size_t t = 0; t < 9; t++) {
        const size_t k0 = t * j->v->c->ic + c0, before = groups ? k0 % GEMM_FP6_GROUP : 0;
        float *room = taps + t * (cn + TAP_EXTRA) * w->nr;
        if (!in_place) j->k->expand(w, panel, k0 - before, before + cn, room);
        tap[t] = in_place ? gemm_panel_f32(w, panel, k0) : room + before * w->nr;
    }
    j->wk->weights(u, ldu, tap, cn * w->nr);
}

static void weights_task(void *arg, size_t number, void *scratch) {
    const struct job *j = arg;
    const size_t slice = number / j->panels, panel = number % j->panels, c0 = slice * j->slice;
    const size_t u_panel = j->slice * j->k->nr, ldu = j->panels * u_panel + PAD;
    transform_weights(j, j->u_room + slice * j->points * ldu + panel * u_panel, ldu, j->panel0 + panel, c0,
                      size_min(j->slice, j->v->c->ic - c0), scratch);
}

/* Finds or makes U of the task's panels and the slice. */
static void take_weights(struct work *s, size_t panels) {
    const struct job *j = s->j;
    const size_t panel = s->col0 / j->k->nr, slice = s->c0 / j->slice;
    s->u = j->shared ? j->u_room + slice * j->points * s->ldu + (panel - j->panel0) * s->u_panel : s->own_u;
    for (size_t i = 0; i < panels && !j->shared; i++)
        transform_weights(j, s->own_u + i * s->u_panel, s->ldu, panel + i, s->c0, s->cn, s->taps);
}

/* ---- the third job ---- */

/* Of the point's V and U, each in one piece, what the number-th tile of the point before it asks for. */
static const float *ahead(const struct work *s, const float *v, const float *u, size_t number) {
    const size_t at = number * s->cn * 16, v_floats = s->tiles * s->j->ldv;
    return at < v_floats ? v + at : u + (at - v_floats);
}

/* M (+)= V U over the slice: a product [tiles, cn] x [cn, columns] for each point. */
static void multiply(const struct work *s, size_t panels) {
    const struct job *j = s->j;
    const size_t heights = size_div_up(s->tiles, j->k->mr), v_point = j->held * j->ldv;
    const float *v = v_at(j, s->c0 / j->slice, s->tile0), *u = s->u;
    float *m = s->m;
    for (size_t p = 0; p < j->points; p++, v += v_point, u += s->ldu) {
        for (size_t i = 0; i < heights; i++) {
            const size_t t = s->tiles * i / heights, rows = s->tiles * (i + 1) / heights - t;
            for (size_t panel = 0; panel < panels; panel++)
                j->k->tile(rows, s->cn, v + t * j->ldv, j->ldv, u + panel * s->u_panel,
                           m + t * s->ldm + panel * j->k->nr, s->ldm, s->c0 > 0,
                           ahead(s, v + v_point, u + s->ldu, i * panels + panel));
        }
        m += s->tiles * s->ldm;
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
    const size_t ic = j->v->c->ic, nr = j->k->nr;
    struct work s = {.j = j};
    /* Neighbouring tasks share their tiles. */
    const size_t col_blocks = size_div_up(j->panels * nr, j->cols);
    s.tile0 = number / col_blocks * j->tiles;
    s.tiles = size_min(j->tiles, j->held - s.tile0);
    s.col0 = j->panel0 * nr + number % col_blocks * j->cols;
    s.cols = size_min(j->cols, size_min((j->panel0 + j->panels) * nr, j->out.y_cols) - s.col0);
    lay_out(&s, scratch);
    const size_t panels = size_div_up(s.cols, nr);
    for (s.c0 = 0; s.c0 < ic; s.c0 += j->slice) {
        s.cn = size_min(j->slice, ic - s.c0);
        take_weights(&s, panels);
        multiply(&s, panels);
    }
    store_tiles(&s);
}

/* ---- which way, and how it is cut: by shape alone ---- */

static const winograd_kernels *kernels_for(unsigned cpu, size_t out) {
#ifdef __x86_64__
    static const winograd_kernels *const avx512[] = {&winograd2_avx512, &winograd4_avx512, &winograd6_avx512};
    static const winograd_kernels *const avx2[] = {&winograd2_avx2, &winograd4_avx2, &winograd6_avx2};
    if (cpu & RUNG_CPU_AVX512) return avx512[out / 2 - 1];
    if (cpu & RUNG_CPU_AVX2) return avx2[out / 2 - 1];
#endif
    (void)cpu, (void)out;
    return NULL;
}

/* Slices of equal size, whole vectors, so that FP6 groups and the rounded-up stores of the input transform fit. */
static void cut_slices(struct job *j, size_t most) {
    const size_t ic = j->v->c->ic;
    j->slice = size_div_up(size_div_up(ic, size_div_up(ic, most)), GEMM_MOST_NR / 2) * (GEMM_MOST_NR / 2);
    j->slices = size_div_up(ic, j->slice);
    j->ldv = (j->slice / 16 % 2 ? j->slice : j->slice + PAD);
}

/* The room, then tasks of equal size. */
static void cut(struct job *j) {
    const size_t nr = j->k->nr, panels = size_div_up(j->out.y_cols, nr);
    j->shared = j->total >= MANY_TILES;
    cut_slices(j, j->shared ? SHARED_SLICE : OWN_SLICE);
    const size_t fit_v = size_max(ROOM_V / (j->points * j->slices * j->ldv), 1);
    const size_t fit_u = size_max((ROOM_U - j->points * j->slices * PAD) / (j->points * j->slices * j->slice * nr), 1);
    j->held = size_div_up(j->total, size_div_up(j->total, fit_v));
    j->tiles = j->shared ? size_div_up(j->held, size_div_up(j->held, SHARED_TILES)) : j->held;
    j->panels = j->shared ? size_div_up(panels, size_div_up(panels, fit_u)) : panels;
    const size_t wanted = size_min(size_div_up(WANTED_TASKS, size_div_up(j->held, j->tiles)), j->panels);
    const size_t least = size_div_up(j->panels, (j->shared ? SHARED_COLS : OWN_COLS) / nr);
    j->cols = size_div_up(j->panels, size_max(least, wanted)) * nr;
}

/* What a way costs for each weight of the layer, in hundredths of a multiplication: a tile, and the weight's own
 * transform with what comes before it; against 9 multiplications a pixel. The numbers are what tools/winograd_costs.py
 * finds for the times in bench/winograd.csv; tests/test_winograd_ways.c compares. error: the most that is measured
 * there, rounded up. */
static const struct way {
    size_t out, tile, weight;
    double error;
} ways[] = {{6, 7680, 30000, 1.2e-5}, {4, 4320, 8000, 3e-6}, {2, 1920, 4500, 2e-6}};
enum { WAYS = sizeof ways / sizeof *ways };

size_t winograd_way(size_t oh, size_t ow) {
    /* Of a network's output, relative; and the most 3x3 convolutions that one has in a row (52 in SD1.5's U-Net), whose
     * errors add up at worst. */
    const double budget = 1e-3, layers = 60;
    size_t best = oh * ow * 900, out = 0;
    for (size_t i = 0; i < WAYS; i++) {
        const struct way *w = &ways[i];
        const size_t cost = size_div_up(oh, w->out) * size_div_up(ow, w->out) * w->tile + w->weight;
        if (w->error * layers > budget || cost >= best) continue;
        best = cost;
        out = w->out;
    }
    return out;
}

double winograd_error(size_t way) {
    for (size_t i = 0; i < WAYS; i++)
        if (ways[i].out == way) return ways[i].error;
    return 0;
}

size_t conv_winograd_suits(const cpu_backend *be, const conv_view *v) {
    enum { LEAST_CHANNELS = 64, LEAST_PIXELS = 16, MOST_CHANNELS = 20 * SHARED_SLICE };
    _Static_assert(MOST_POINTS * 20 * (SHARED_SLICE * GEMM_MOST_NR + PAD) <= ROOM_U, "a panel of the widest layer");
    const rung_conv *c = v->c;
    if (be->exact || !kernels_for(be->cpu, 6) || c->kh != 3 || c->kw != 3 || v->a->stride != 1) return 0;
    if (c->ic < LEAST_CHANNELS || c->ic > MOST_CHANNELS || v->oh * v->ow < LEAST_PIXELS) return 0;
    if (c->w.sparse && c->w.sparse->by_columns) return 0;
    return be->only ? be->only : winograd_way(v->oh, v->ow);
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
    j.v_room = be->room;
    j.u_room = be->room + ROOM_V;
    const size_t most = j.held, most_panels = j.panels, panels = size_div_up(v->c->oc, j.k->nr);
    const bool again = most_panels < panels; /* U does not hold the whole layer */
    for (j.first = 0; j.first < j.total; j.first += most) {
        j.held = size_min(most, j.total - j.first);
        rung_pool_run(be->pool, input_task, &j, size_div_up(j.held, INPUT_TILES) * j.slices);
        for (j.panel0 = 0; j.panel0 < panels; j.panel0 += most_panels) {
            j.panels = size_min(most_panels, panels - j.panel0);
            if (j.shared && (again || j.first == 0)) rung_pool_run(be->pool, weights_task, &j, j.panels * j.slices);
            rung_pool_run(be->pool, product_task, &j,
                          size_div_up(j.held, j.tiles) * size_div_up(j.panels * j.k->nr, j.cols));
        }
    }
    pthread_mutex_unlock(&be->room_lock);
}
