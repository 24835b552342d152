#include "kernels/cpu/norm.h"

#include <string.h>

#include "kernels/base/size.h"
#include "kernels/cpu/cpu_ops.h"

/* Floats of a task, long against the start of a job, short against a cache. */
enum { ROWS_CHUNK = 8 << 10, GROUPS_CHUNK = 32 << 10 };

/* NULL: only the specification. */
static const norm_kernels *kernels_for(unsigned cpu) {
#ifdef __x86_64__
    if (cpu & RUNG_CPU_AVX512) return &norm_avx512;
    if (cpu & RUNG_CPU_AVX2) return &norm_avx2;
#endif
    (void)cpu;
    return NULL;
}

/* ---- rows ---------------------------------------------------------------------------------------------------------
 */

struct layer_norm_job {
    layer_norm_args a;
    void (*some)(const layer_norm_args *a, size_t row, size_t rows);
    size_t task_rows;
};

static void layer_norm_task(void *arg, size_t task, void *scratch) {
    const struct layer_norm_job *j = arg;
    const size_t first = task * j->task_rows;
    (void)scratch;
    j->some(&j->a, first, size_min(j->task_rows, j->a.rows - first));
}

static size_t rows_of_task(size_t n) { return size_max(ROWS_CHUNK / size_max(n, 1), 1); }

void cpu_layer_norm(rung_backend *be, float *y, const float *x, size_t rows, size_t n, const float *w, const float *b,
                    float eps, const float *mod_scale, const float *mod_shift, size_t mod_stride,
                    size_t rows_per_sample) {
    const norm_kernels *k = kernels_for(cpu_of(be)->cpu);
    struct layer_norm_job j = {
        .a = {y, x, w, b, rows, n, eps, mod_scale, mod_shift, mod_stride, rows_per_sample},
        .some = k ? k->layer_norm_rows : layer_norm_rows_ref,
        .task_rows = rows_of_task(n),
    };
    rung_pool_run(cpu_of(be)->pool, layer_norm_task, &j, size_div_up(rows, j.task_rows));
}

struct rms_norm_job {
    float *y;
    const float *x, *w;
    size_t rows, n;
    float eps;
    void (*row)(float *y, const float *x, size_t n, const float *w, float eps);
    size_t task_rows;
};

static void rms_norm_task(void *arg, size_t task, void *scratch) {
    const struct rms_norm_job *j = arg;
    const size_t first = task * j->task_rows, end = size_min(first + j->task_rows, j->rows);
    (void)scratch;
    for (size_t r = first; r < end; r++) j->row(j->y + r * j->n, j->x + r * j->n, j->n, j->w, j->eps);
}

void cpu_rms_norm(rung_backend *be, float *y, const float *x, size_t rows, size_t n, const float *w, float eps) {
    const norm_kernels *k = kernels_for(cpu_of(be)->cpu);
    struct rms_norm_job j = {y, x, w, rows, n, eps, k ? k->rms_norm_row : rms_norm_row_ref, rows_of_task(n)};
    rung_pool_run(cpu_of(be)->pool, rms_norm_task, &j, size_div_up(rows, j.task_rows));
}

/* ---- groups -------------------------------------------------------------------------------------------------------
 */

/* The pixels of a picture are cut into at most MAX_CHUNKS chunks. Two jobs: every chunk sums its pixels, the caller
 * adds up the chunks in their order, every chunk is normalised. The sums lie on the caller's stack, PARTS at a time:
 * some pictures at once, or, where a picture has very many groups, some of its groups. */
enum { MAX_CHUNKS = 64, PARTS = 4096, SUM_PAD = 16 };

struct part {
    double sum, squares;
};

struct group_job {
    const group_norm_args *a;
    const norm_kernels *k;
    size_t chunks, group_ch;   /* of a picture; of a group */
    size_t picture0, pictures; /* under way */
    size_t group0, groups;
    struct part *parts; /* [pictures, chunks, groups] */
    norm_stats *stats;  /* [pictures, groups] */
};

/* The task's chunk: how many pixels, and where it begins in x and y. */
static size_t chunk_of(const struct group_job *j, size_t task, size_t *pixels) {
    const size_t chunk = task % j->chunks, picture = j->picture0 + task / j->chunks;
    const size_t first = j->a->pixels * chunk / j->chunks, end = j->a->pixels * (chunk + 1) / j->chunks;
    *pixels = end - first;
    return (picture * j->a->pixels + first) * j->a->ch;
}

/* Along the channels, which group it is (counted from the first one under way), without a division for each. */
struct walk {
    size_t group, left, group_ch;
};

static struct walk walk_from(const struct group_job *j, size_t c) {
    return (struct walk){c / j->group_ch - j->group0, j->group_ch - c % j->group_ch, j->group_ch};
}

static inline void walk_on(struct walk *w) {
    if (--w->left == 0) {
        w->group++;
        w->left = w->group_ch;
    }
}

/* Four sums in turn: one would wait for itself. */
static double sum_of(const double *x, size_t n) {
    double s[4] = {0};
    size_t i = 0;
    for (; i + 4 <= n; i += 4)
        for (size_t k = 0; k < 4; k++) s[k] += x[i + k];
    for (; i < n; i++) s[0] += x[i];
    return s[0] + s[1] + (s[2] + s[3]);
}

static void sums_task(void *arg, size_t task, void *scratch) {
    struct group_job *j = arg;
    double sum[NORM_SLAB + SUM_PAD], squares[NORM_SLAB + SUM_PAD];
    struct part *part = j->parts + task * j->groups;
    const size_t c_end = (j->group0 + j->groups) * j->group_ch;
    size_t pixels;
    const size_t at = chunk_of(j, task, &pixels);
    (void)scratch;
    memset(part, 0, j->groups * sizeof *part);
    for (size_t c0 = j->group0 * j->group_ch, n; c0 < c_end; c0 += n) {
        n = size_min(NORM_SLAB, c_end - c0);
        memset(sum, 0, sizeof sum);
        memset(squares, 0, sizeof squares);
        j->k->channel_sums(sum, squares, j->a->x + at + c0, pixels, j->a->ch, n);
        for (size_t c = 0, run; c < n; c += run) {
            run = size_min(n - c, j->group_ch - (c0 + c) % j->group_ch);
            struct part *group = part + (c0 + c) / j->group_ch - j->group0;
            group->sum += sum_of(sum + c, run);
            group->squares += sum_of(squares + c, run);
        }
    }
}

static void fill_slab(const struct group_job *j, norm_slab *s, const norm_stats *stats, size_t c0) {
    struct walk g = walk_from(j, c0);
    for (size_t c = 0; c < s->n; c++, walk_on(&g)) {
        const norm_stats *st = &stats[g.group];
        const double scale = j->a->w ? st->k * j->a->w[c0 + c] : st->k, b = j->a->b ? j->a->b[c0 + c] : 0;
        s->mean[c] = (float)st->mean;
        s->scale[c] = (float)scale;
        s->b[c] = (float)(b + (s->mean[c] - st->mean) * scale); /* what the f32 mean leaves */
    }
}

static void affine_task(void *arg, size_t task, void *scratch) {
    const struct group_job *j = arg;
    const size_t c_end = (j->group0 + j->groups) * j->group_ch;
    norm_slab *s = scratch;
    size_t pixels;
    const size_t at = chunk_of(j, task, &pixels);
    for (size_t c0 = j->group0 * j->group_ch; c0 < c_end; c0 += s->n) {
        s->n = size_min(NORM_SLAB, c_end - c0);
        fill_slab(j, s, j->stats + task / j->chunks * j->groups, c0);
        j->k->channel_affine(j->a->y + at + c0, j->a->x + at + c0, pixels, j->a->ch, s, j->a->act);
    }
}

static void add_chunks(struct group_job *j) {
    for (size_t i = 0; i < j->pictures * j->groups; i++) {
        const struct part *p = j->parts + i / j->groups * j->chunks * j->groups + i % j->groups;
        double sum = 0, squares = 0;
        for (size_t c = 0; c < j->chunks; c++) {
            sum += p[c * j->groups].sum;
            squares += p[c * j->groups].squares;
        }
        j->stats[i] = norm_stats_of(sum, squares, (double)j->a->pixels * (double)j->group_ch, j->a->eps);
    }
}

static void write_affine(const struct group_job *j) {
    const size_t c0 = j->group0 * j->group_ch, n = j->groups * j->group_ch;
    for (size_t p = 0; p < j->pictures; p++) {
        struct walk g = walk_from(j, c0);
        for (size_t c = c0; c < c0 + n; c++, walk_on(&g)) {
            const norm_stats *st = &j->stats[p * j->groups + g.group];
            const double scale = j->a->w ? st->k * j->a->w[c] : st->k;
            j->a->scale[(j->picture0 + p) * j->a->ch + c] = (float)scale;
            j->a->shift[(j->picture0 + p) * j->a->ch + c] = (float)((j->a->b ? j->a->b[c] : 0) - st->mean * scale);
        }
    }
}

static void group_norm_fast(rung_pool *pool, const norm_kernels *k, const group_norm_args *a) {
    struct part parts[PARTS];
    norm_stats stats[PARTS];
    struct group_job j = {.a = a, .k = k, .group_ch = a->ch / a->groups, .parts = parts, .stats = stats};
    j.chunks = size_max(size_min(size_min(a->pixels * a->ch / GROUPS_CHUNK, a->pixels), MAX_CHUNKS), 1);
    const size_t most_groups = size_min(a->groups, PARTS / j.chunks);
    const size_t most_pictures = size_max(PARTS / (j.chunks * most_groups), 1);
    for (j.picture0 = 0; j.picture0 < a->batch; j.picture0 += j.pictures) {
        j.pictures = size_min(most_pictures, a->batch - j.picture0);
        for (j.group0 = 0; j.group0 < a->groups; j.group0 += j.groups) {
            j.groups = size_min(most_groups, a->groups - j.group0);
            rung_pool_run(pool, sums_task, &j, j.pictures * j.chunks);
            add_chunks(&j);
            if (a->scale) write_affine(&j);
            if (a->y) rung_pool_run(pool, affine_task, &j, j.pictures * j.chunks);
        }
    }
}

static void group_norm_ref_task(void *arg, size_t task, void *scratch) {
    const group_norm_args *a = arg;
    (void)scratch;
    group_norm_ref(a, task / a->groups, task % a->groups);
}

static void group_norm(rung_backend *be, group_norm_args *a) {
    const norm_kernels *k = kernels_for(cpu_of(be)->cpu);
    if (k)
        group_norm_fast(cpu_of(be)->pool, k, a);
    else
        rung_pool_run(cpu_of(be)->pool, group_norm_ref_task, a, a->batch * a->groups);
}

void cpu_group_norm(rung_backend *be, float *y, const float *x, size_t batch, size_t pixels, size_t ch, size_t groups,
                    const float *w, const float *b, float eps, rung_act act) {
    group_norm_args a = {y, NULL, NULL, x, w, b, batch, pixels, ch, groups, eps, act};
    group_norm(be, &a);
}

void cpu_group_norm_affine(rung_backend *be, float *scale, float *shift, const float *x, size_t batch, size_t pixels,
                           size_t ch, size_t groups, const float *w, const float *b, float eps) {
    group_norm_args a = {NULL, scale, shift, x, w, b, batch, pixels, ch, groups, eps, RUNG_ACT_NONE};
    group_norm(be, &a);
}
