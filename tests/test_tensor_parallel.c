/* A denoiser cut over ranks draws what one rank draws: every golden network over 1, 2, 3 and 5 ranks against diffusers,
 * the shipped model over every number of ranks up to more than it has heads, stored and in six bits; transfers that
 * complete in any order, buffers that hold NaN meanwhile; and each wait, taken out in turn, shows in the result. */
#include "tests/comm_threads.h"
#include "tests/denoiser_golden.h"

#define ICONS RUNG_SOURCE_DIR "/assets/icons"

/* One network, one input; what a rank makes of it. */
typedef struct {
    const char *path;
    rung_store store;
    rung_weights *cases; /* NULL: numbers made up here */
    size_t batch, h, w, n_ctx, in, dim, out;
    float *x, *ctx, *t, *image, *pooled;
    unsigned char *mask;
} job;

typedef struct {
    const job *j;
    hub *h;
    int rank;
    bool alone; /* without a communicator at all */
    float *out;
    size_t transfers, resident; /* waits; bytes of the run's arena */
    rung_err err;
} rank_arg;

static float *numbers(size_t n, uint64_t seed) {
    float *v = malloc(n * sizeof *v);
    for (size_t i = 0; i < n; i++) v[i] = rnd(&seed);
    return v;
}

static void *run_rank(void *arg) {
    rank_arg *a = arg;
    const job *j = a->j;
    hub_comm own;
    rung_comm *comm = a->alone ? NULL : hub_join(a->h, &own, a->rank);
    rung_pool *pool = NULL;
    rung_backend *be = NULL;
    rung_model *model = NULL;
    rung_denoiser *d = NULL;
    rung_denoiser_run *run = NULL;
    rung_status st = rung_pool_open(&pool, 1, &a->err);
    if (!st) st = rung_cpu_backend_open(&be, pool, rung_cpu_detect(), &a->err);
    if (!st) st = rung_model_open(&model, j->path, &a->err);
    if (!st) st = rung_denoiser_open_part(&d, model, be, j->store, comm, &a->err);
    const rung_denoiser_cond cond = {.batch = j->batch,
                                     .h = j->h,
                                     .w = j->w,
                                     .n_ctx = j->n_ctx,
                                     .ctx = j->ctx,
                                     .mask = j->mask,
                                     .pooled = j->pooled,
                                     .image_h = j->image ? j->image[0] : 64,
                                     .image_w = j->image ? j->image[1] : 64};
    if (comm) rung_pool_poll(pool, rung_comm_progress, comm);
    if (!st) st = rung_denoiser_begin(d, &run, &cond, &a->err);
    if (!st) st = rung_denoiser_step(run, a->out, j->x, j->t, &a->err);
    if (comm && st) rung_comm_tell(comm, a->err.msg);
    a->transfers = comm ? (size_t)own.waits : 0;
    if (run) a->resident = rung_denoiser_run_bytes(run);
    rung_denoiser_end(&run);
    rung_denoiser_close(&d);
    rung_model_close(&model);
    rung_backend_close(&be);
    rung_pool_close(&pool);
    return NULL;
}

static size_t out_floats(const job *j) { return j->batch * j->h * j->w * j->out; }

/* Runs j over h's ranks; rank r's result in outs[r] (malloc'd). */
static void run_ranks(const job *j, hub *h, rank_arg *args) {
    pthread_t threads[HUB_RANKS];
    for (int r = 0; r < h->size; r++) {
        args[r] = (rank_arg){.j = j, .h = h, .rank = r, .out = calloc(out_floats(j), sizeof(float))};
        if (pthread_create(&threads[r], NULL, run_rank, &args[r]) != 0) abort();
    }
    for (int r = 0; r < h->size; r++) pthread_join(threads[r], NULL);
}

static void free_ranks(const hub *h, rank_arg *args) {
    for (int r = 0; r < h->size; r++) free(args[r].out);
}

static float *run_alone(const job *j) {
    rank_arg a = {.j = j, .alone = true, .out = calloc(out_floats(j), sizeof(float))};
    run_rank(&a);
    if (!CHECK(!a.err.code)) fprintf(stderr, "  %s: %s\n", j->path, a.err.msg);
    return a.out;
}

/* Largest difference between any rank's result and `want`, NaN kept. The number of transfers in *transfers. */
static double over_ranks(const job *j, int size, bool late, const float *want, double *apart) {
    hub h;
    rank_arg args[HUB_RANKS];
    double worst = 0;
    hub_open(&h, size);
    h.late = late;
    h.seed = (uint64_t)size * 31 + late;
    run_ranks(j, &h, args);
    for (int r = 0; r < size; r++) {
        if (!CHECK(!args[r].err.code)) fprintf(stderr, "  %s, rank %d of %d: %s\n", j->path, r, size, args[r].err.msg);
        worst = fmax(worst, rel_l2(args[r].out, want, out_floats(j)));
        if (memcmp(args[r].out, args[0].out, out_floats(j) * sizeof(float)) != 0) *apart = 1;
        if (isnan(args[r].out[0])) worst = NAN;
    }
    free_ranks(&h, args);
    hub_close(&h);
    return worst;
}

static void job_free(job *j) {
    rung_weights_close(&j->cases);
    free(j->x), free(j->ctx), free(j->t), free(j->mask), free(j->image), free(j->pooled);
}

/* Case 0 of a golden network, and diffusers' answer. */
static float *golden_job(job *j, const char *name, char *path, size_t cap) {
    size_t xs[4], cs[3], os[4];
    rung_err err = {0};
    snprintf(path, cap, GOLDEN "%s/cases.safetensors", name);
    *j = (job){.store = RUNG_STORE_STORED};
    if (!CHECK(rung_weights_open(&j->cases, path, &err) == RUNG_OK)) abort();
    snprintf(path, cap, GOLDEN "%s", name);
    j->path = path;
    j->x = golden(j->cases, 0, "x", xs);
    j->ctx = golden(j->cases, 0, "ctx", cs);
    j->t = golden(j->cases, 0, "t", NULL);
    j->image = golden(j->cases, 0, "image", NULL);
    j->pooled = golden(j->cases, 0, "pooled", NULL);
    float *mask = golden(j->cases, 0, "mask", NULL), *ref = golden(j->cases, 0, "out", os);
    if (mask) j->mask = malloc(cs[0] * cs[1]);
    for (size_t k = 0; mask && k < cs[0] * cs[1]; k++) j->mask[k] = mask[k] != 0;
    free(mask);
    j->batch = xs[0], j->h = xs[1], j->w = xs[2], j->n_ctx = cs[1], j->out = os[3];
    return ref;
}

static void test_golden(const char *name) {
    char path[400];
    job j;
    float *ref = golden_job(&j, name, path, sizeof path), *one = run_alone(&j);
    double apart = 0, worst = 0;
    const bool parallel = strcmp(name, "parallel") == 0; /* cannot be cut further than its heads, and sums otherwise */
    const int most = parallel ? 3 : 5;
    for (int size = 1; size <= most; size += size == 3 ? 2 : 1) {
        for (int late = 0; late < 2; late++) {
            const double off = over_ranks(&j, size, late, ref, &apart);
            if (!CHECK(off < 2e-5)) fprintf(stderr, "  %s over %d ranks: %g\n", name, size, off);
            if (!(off <= worst)) worst = off;
            if (size == 1 && !parallel) CHECK(over_ranks(&j, 1, late, one, &apart) == 0);
        }
    }
    CHECK(apart == 0); /* every rank has the same numbers, to the bit */
    fprintf(stderr, "%-14s 1, 2, 3, 5 ranks: rel l2 <= %.2g\n", name, worst);
    free(ref), free(one);
    job_free(&j);
}

static job icons_job(rung_store store) {
    job j = {.path = ICONS, .store = store, .batch = 2, .h = 16, .w = 16, .n_ctx = 9, .in = 8, .dim = 384, .out = 8};
    rung_err err = {0};
    rung_model *m = NULL;
    rung_config c;
    if (!CHECK(rung_model_open(&m, ICONS, &err) == RUNG_OK && rung_model_config(m, "transformer", &c, &err) == RUNG_OK))
        abort();
    j.in = j.out = (size_t)cfg_int(&c, "in_channels", 8, 1, 64);
    j.dim = (size_t)cfg_int(&c, "caption_channels", 384, 1, 4096);
    rung_model_close(&m);
    j.x = numbers(j.batch * j.h * j.w * j.in, 1);
    j.ctx = numbers(j.batch * j.n_ctx * j.dim, 2);
    j.t = numbers(2, 3);
    j.t[0] = j.t[1] = 500;
    return j;
}

static void test_icons(rung_store store) {
    job j = icons_job(store);
    float *one = run_alone(&j);
    double apart = 0;
    for (int size = 1; size <= 7; size++) { /* more ranks than heads: attention whole on each */
        const double off = over_ranks(&j, size, size % 2, one, &apart);
        if (!CHECK(off < 1e-5)) fprintf(stderr, "  icons over %d ranks: %g\n", size, off);
        if (size == 1) CHECK(off == 0);
    }
    CHECK(apart == 0);
    free(one);
    job_free(&j);
}

/* Sums longer than the blocks that they are added in. */
static void test_long_sums(void) {
    job j = icons_job(RUNG_STORE_STORED);
    free(j.x);
    j.batch = 3, j.h = 36, j.w = 40;
    j.x = numbers(j.batch * j.h * j.w * j.in, 4);
    j.t = realloc(j.t, j.batch * sizeof *j.t);
    j.t[2] = 500;
    free(j.ctx);
    j.ctx = numbers(j.batch * j.n_ctx * j.dim, 5);
    float *one = run_alone(&j);
    double apart = 0;
    CHECK(over_ranks(&j, 2, true, one, &apart) < 1e-5 && apart == 0);
    free(one);
    job_free(&j);
}

/* Every wait is needed: without any one of them a buffer that still is NaN is read. */
static void test_waits(const char *name, int size) {
    char path[400];
    job j;
    float *ref = golden_job(&j, name, path, sizeof path);
    size_t waits = 1;
    for (size_t k = 0; k < waits; k++) {
        hub h;
        rank_arg args[HUB_RANKS];
        hub_open(&h, size);
        h.late = true;
        h.drop = (long)k;
        run_ranks(&j, &h, args);
        waits = args[0].transfers;
        const double off = rel_l2(args[0].out, ref, out_floats(&j));
        if (!CHECK(!(off < 2e-5))) fprintf(stderr, "  %s: wait %zu of %zu is not needed\n", name, k, waits);
        free_ranks(&h, args);
        hub_close(&h);
    }
    CHECK(waits > 3);
    fprintf(stderr, "%-14s %d ranks: %zu waits, none to spare\n", name, size, waits);
    free(ref);
    job_free(&j);
}

/* A rank that fails takes the others along, with its own words. */
static void test_dead_rank(void) {
    job j = icons_job(RUNG_STORE_STORED);
    hub h;
    rank_arg args[HUB_RANKS];
    hub_open(&h, 3);
    h.dead_rank = 1;
    run_ranks(&j, &h, args);
    CHECK(args[1].err.code == RUNG_EDEVICE);
    CHECK(args[0].err.code == RUNG_EPEER && strstr(args[0].err.msg, "rank 1") && strstr(args[0].err.msg, "network"));
    CHECK(args[2].err.code == RUNG_EPEER);
    free_ranks(&h, args);
    hub_close(&h);
    job_free(&j);
}

/* One sum of three modules cannot be half cut and half whole. */
static void test_refused(void) {
    char path[400];
    job j;
    hub h;
    rank_arg args[HUB_RANKS];
    free(golden_job(&j, "parallel", path, sizeof path));
    hub_open(&h, 5);
    run_ranks(&j, &h, args);
    for (int r = 0; r < h.size; r++)
        CHECK(args[r].err.code == RUNG_ESHAPE && strstr(args[r].err.msg, "4 heads") && strstr(args[r].err.msg, "5"));
    free_ranks(&h, args);
    hub_close(&h);
    job_free(&j);
}

static void test_shares(void) {
    for (int size = 1; size <= 9; size++) {
        size_t next = 0;
        for (int r = 0; r < size; r++) {
            const rung_share s = rung_share_of(10, 8, r, size);
            CHECK(s.first == next && s.count % 8 == 0);
            next += s.count;
        }
        CHECK(next == 80);
    }
}

/* Alone, a communicator changes nothing and never waits. */
static void test_alone(void) {
    rung_comm *c = NULL, *part = NULL;
    rung_err err = {0};
    float v[3] = {1, 2, 3};
    rung_transfer t = 9;
    CHECK(rung_comm_alone_open(&c, &err) == RUNG_OK && c->rank == 0 && c->size == 1);
    CHECK(rung_comm_reduce(c, &t, v, 3, &err) == RUNG_OK && t == 0 && rung_comm_wait(c, &t, &err) == RUNG_OK);
    CHECK(rung_comm_gather_now(c, v, sizeof v, &err) == RUNG_OK && v[0] == 1 && v[2] == 3);
    CHECK(rung_comm_split(c, &part, 4, &err) == RUNG_OK && part->size == 1);
    rung_comm_close(&part);
    rung_comm_close(&c);
}

int main(void) {
    static const char *const networks[] = {"pixart",      "pixart_plain",  "pixart_patch", "ladder",
                                           "ladder_off",  "ladder_hybrid", "ladder_last",  "ladder_none",
                                           "parallel",    "lists",         "no_depth",     "one_level",
                                           "scale_shift", "sd1",           "sd2",          "sdxl"};
    test_shares();
    test_alone();
    for (size_t i = 0; i < sizeof networks / sizeof *networks; i++) test_golden(networks[i]);
    test_icons(RUNG_STORE_STORED);
    test_icons(RUNG_STORE_FP6);
    test_icons(RUNG_STORE_F16);
    test_long_sums();
    test_waits("ladder", 2);
    test_waits("ladder_hybrid", 2);
    test_waits("pixart", 2);
    test_waits("sd1", 2);
    test_waits("sdxl", 3);
    test_refused();
    test_dead_rank();
    return check_result();
}
