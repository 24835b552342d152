#include "bench/bench_ladder.h"

#include <stdlib.h>
#include <string.h>

#include "bench/bench_ops.h"
#include "bench/ladder_models.h"
#include "bench/slow_link.h"
#include "unet/denoiser.h"

/* A transformer and how many steps of it are measured. */
typedef struct {
    const char *name;
    bool shipped;
    ladder_geometry g;
    size_t batch, side, tokens_of_text; /* pictures, latent cells */
    int steps;
} subject;

static const subject subjects[] = {
    {"icons", true, {0}, 2, 16, 12, 60},
    {"pixart-xl/8", false, {16, 72, 8, 4096}, 1, 64, 120, 5}, /* of 28 layers: all are alike */
};

enum { STANDARD, LADDER, PARALLEL, NO_COMM, MODES, MOST_STEPS = 64, REDUCES = 9 };
static const char *const mode_names[MODES] = {"standard", "ladder", "parallel", "no-comm"};

/* ---- a communicator whose reduces do nothing ---- */

typedef struct {
    rung_comm base;
} mute_comm;

static rung_status mute_reduce(rung_comm *c, rung_transfer *t, float *buf, size_t n, rung_err *err) {
    (void)c, (void)t, (void)buf, (void)n, (void)err;
    return RUNG_OK;
}

static rung_comm mute(const rung_comm *c) {
    static const rung_comm_ops ops = {.name = "mute", .reduce = mute_reduce}; /* a step asks for nothing else */
    return (rung_comm){.ops = &ops, .rank = c->rank, .size = c->size};
}

/* ---- one subject ---- */

typedef struct {
    const subject *s;
    rung_comm *comm; /* NULL: one rank */
    rung_comm silent;
    rung_backend *be;
    rung_model *models[MODES];
    rung_denoiser *nets[MODES];
    rung_denoiser_run *runs[MODES];
    size_t modules, floats; /* of a step; of a reduce */
    float *x, *out, *ctx;
    double step[MODES], waited[MODES], reduce;
} bed;

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, int n) {
    qsort(v, (size_t)n, sizeof *v, by_value);
    return v[n / 2];
}

static rung_status open_mode(bed *b, int mode, const ladder_models *folders, rung_err *err) {
    static const module_order orders[MODES] = {ORDER_STANDARD, ORDER_LADDER, ORDER_PARALLEL, ORDER_STANDARD};
    char path[512];
    rung_config c;
    ladder_models_path(folders, orders[mode], path, sizeof path);
    RUNG_TRY(rung_model_open(&b->models[mode], path, err));
    RUNG_TRY(rung_denoiser_open_part(&b->nets[mode], b->models[mode], b->be, RUNG_STORE_STORED,
                                     mode == NO_COMM && b->comm ? &b->silent : b->comm, err));
    const rung_denoiser_info *info = rung_denoiser_describe(b->nets[mode]);
    const subject *s = b->s;
    const size_t cells = s->batch * s->side * s->side, tokens = cells / (info->size_multiple * info->size_multiple);
    if (!b->x) {
        b->x = bench_numbers(cells * info->in_channels);
        b->out = bench_numbers(cells * info->out_channels);
        b->ctx = bench_numbers(s->batch * s->tokens_of_text * info->context_dim);
        if (!b->x || !b->out || !b->ctx) return rung_fail(err, RUNG_ENOMEM, "bench: out of memory");
    }
    RUNG_TRY(rung_model_config(b->models[mode], "transformer", &c, err));
    b->modules = 3 * (size_t)cfg_int(&c, "num_layers", 1, 1, 1024);
    b->floats = tokens * (size_t)cfg_int(&c, "num_attention_heads", 1, 1, 4096) *
                (size_t)cfg_int(&c, "attention_head_dim", 1, 1, 4096);
    RUNG_TRY(c.status);
    const rung_denoiser_cond cond = {.batch = s->batch,
                                     .h = s->side,
                                     .w = s->side,
                                     .n_ctx = s->tokens_of_text,
                                     .ctx = b->ctx,
                                     .image_h = 512,
                                     .image_w = 512};
    return rung_denoiser_begin(b->nets[mode], &b->runs[mode], &cond, err);
}

/* Nobody goes on before all are here. */
static rung_status line_up(rung_comm *c, rung_err *err) {
    if (!c) return RUNG_OK;
    unsigned char *all = calloc((size_t)c->size, 1);
    if (!all) return rung_fail(err, RUNG_ENOMEM, "bench: out of memory");
    const rung_status st = rung_comm_gather_now(c, all, 1, err);
    free(all);
    return st;
}

/* Modes take turns, so that what else the machine does meets them alike. The first step of each is not counted. */
static rung_status run_steps(bed *b, rung_err *err) {
    double took[MODES][MOST_STEPS], waits[MODES][MOST_STEPS];
    const float t[2] = {500, 500};
    const int steps = b->s->steps;
    for (int i = -1; i < steps; i++) {
        for (int m = 0; m < MODES; m++) {
            RUNG_TRY(line_up(b->comm, err));
            if (b->comm) b->comm->stats = (rung_comm_stats){0};
            const double start = bench_now();
            RUNG_TRY(rung_denoiser_step(b->runs[m], b->out, b->x, t, err));
            if (i < 0) continue;
            took[m][i] = bench_now() - start;
            waits[m][i] = b->comm ? b->comm->stats.waited : 0;
        }
    }
    for (int m = 0; m < MODES; m++) {
        b->step[m] = median(took[m], steps);
        b->waited[m] = median(waits[m], steps);
    }
    return RUNG_OK;
}

static rung_status time_reduce(bed *b, rung_err *err) {
    double took[REDUCES];
    if (!b->comm) return RUNG_OK;
    float *v = bench_numbers(b->floats);
    if (!v) return rung_fail(err, RUNG_ENOMEM, "bench: out of memory");
    rung_status st = RUNG_OK;
    for (int i = 0; !st && i < REDUCES; i++) {
        rung_transfer t;
        st = line_up(b->comm, err);
        const double start = bench_now();
        if (!st) st = rung_comm_reduce(b->comm, &t, v, b->floats, err);
        if (!st) st = rung_comm_wait(b->comm, &t, err);
        took[i] = bench_now() - start;
    }
    free(v);
    if (!st) b->reduce = median(took, REDUCES);
    return st;
}

double bench_ladder_predict(size_t modules, double share) {
    double end = 0, link = 0, reduced[2] = {0, 0}; /* of modules i-1 and i-2 */
    for (size_t i = 0; i < modules; i++) {
        end = (end > reduced[1] ? end : reduced[1]) + 1;
        link = (end > link ? end : link) + share;
        reduced[1] = reduced[0];
        reduced[0] = link;
    }
    const double all = (double)modules, standard = all * (1 + share), ladder = end > link ? end : link;
    return share > 0 ? (standard - ladder) / (standard - all) : 0;
}

static void report(const bed *b, const bench_ladder_options *o) {
    if (!o->row) return;
    const double module = b->step[NO_COMM] / (double)b->modules, lost = b->step[STANDARD] - b->step[NO_COMM];
    const double waited = b->waited[STANDARD] / (double)b->modules; /* for one reduce that nothing hides */
    for (int m = 0; m < MODES; m++) {
        bench_ladder_row r = {.model = b->s->name,
                              .ranks = b->comm ? b->comm->size : 1,
                              .link = o->link,
                              .progress = o->progress,
                              .mode = mode_names[m],
                              .step = b->step[m],
                              .waited = b->waited[m],
                              .modules = b->modules,
                              .reduce = b->reduce,
                              .reduce_share = waited / module,
                              .reduce_bytes = b->floats * sizeof(float)};
        if (m == LADDER && b->comm && lost > 0) r.recovered = (b->step[STANDARD] - b->step[LADDER]) / lost;
        if (m == LADDER && b->comm) r.predicted = bench_ladder_predict(b->modules, r.reduce_share);
        o->row(o->arg, &r);
    }
}

static void bed_close(bed *b) {
    for (int m = 0; m < MODES; m++) {
        rung_denoiser_end(&b->runs[m]);
        rung_denoiser_close(&b->nets[m]);
        rung_model_close(&b->models[m]);
    }
    free(b->x);
    free(b->out);
    free(b->ctx);
}

static rung_status run_subject(rung_comm *comm, rung_backend *be, const subject *s, const bench_ladder_options *o,
                               rung_err *err) {
    bed b = {.s = s, .comm = comm, .be = be};
    ladder_models folders;
    if (comm) b.silent = mute(comm);
    RUNG_TRY(ladder_models_make(&folders, s->shipped ? o->model : NULL, &s->g, err));
    rung_status st = RUNG_OK;
    for (int m = 0; !st && m < MODES; m++) st = open_mode(&b, m, &folders, err);
    if (!st) st = run_steps(&b, err);
    if (!st) st = time_reduce(&b, err);
    if (!st) report(&b, o);
    bed_close(&b);
    ladder_models_remove(&folders);
    return st;
}

/* *slow is NULL when `link` is but a name. */
static rung_status simulate(rung_comm **slow, rung_comm *comm, const char *link, rung_err *err) {
    static const char key[] = "simulated:";
    char *end;
    if (!comm || strncmp(link, key, sizeof key - 1) != 0) return RUNG_OK;
    const double gbit = strtod(link + sizeof key - 1, &end);
    if (*end || !(gbit >= 1e-3 && gbit <= 1e6))
        return rung_fail(err, RUNG_EARG, "bench ladder: '%s', wanted simulated:N with N in Gbit/s", link);
    return slow_link_open(slow, comm, gbit * 1e9 / 8, err);
}

rung_status bench_ladder_run(rung_comm *comm, rung_pool *pool, unsigned cpu, const bench_ladder_options *o,
                             rung_err *err) {
    rung_backend *be;
    rung_comm *slow = NULL;
    RUNG_TRY(rung_cpu_backend_open(&be, pool, cpu, err));
    if (comm) rung_pool_poll(pool, rung_comm_progress, comm);
    rung_status st = simulate(&slow, comm, o->link, err);
    if (slow) comm = slow;
    for (size_t i = 0; !st && i < sizeof subjects / sizeof *subjects; i++)
        st = run_subject(comm, be, &subjects[i], o, err);
    rung_comm_close(&slow);
    rung_backend_close(&be);
    return st;
}
