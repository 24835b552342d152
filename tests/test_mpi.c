/* Ranks as MPI processes. tests/test_ranks.sh runs this under mpirun; alone it checks what a process alone can.
 *   test_mpi [poll|thread|none]   the transfers: values, order, several at once, long ones, groups; shuffled waits
 *   test_mpi dies|hangs|fails     rank 1 does; the others must end in time, with a message
 *   test_mpi leaves               rank 1 leaves with a sum under way whose buffer is gone: told, not crashed
 *   test_mpi asks                 a wait asks whether to stop after its first look (test of 5a85b85, as is `leaves`)
 *   test_mpi near A B [MOST]      two .npy or .png files differ by at most MOST (1e-4), or 2 of 255 in pictures */
#define _DEFAULT_SOURCE /* kill, sleep, MAP_ANONYMOUS */
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "assets/npy.h"
#include "kernels/base/comm_mpi.h"
#include "tests/check.h"
#include "vae/png.h"

enum { MOST = 6, LONG = 3 << 18 };

/* What rank r puts at place i of transfer k. */
static float value(int r, int k, size_t i) { return (float)((r + 1) * (k + 1)) + (float)(i % 97) * 0.25f; }

/* Several reduces under way, waited for in an order of its own on every rank. */
static void test_reduces(rung_comm *c, uint64_t seed) {
    static const size_t sizes[MOST] = {1, 3, 1000, LONG, 17, 65536};
    float *buf[MOST];
    rung_transfer t[MOST];
    int order[MOST];
    for (int k = 0; k < MOST; k++) {
        order[k] = k;
        buf[k] = malloc(sizes[k] * sizeof(float));
        for (size_t i = 0; i < sizes[k]; i++) buf[k][i] = value(c->rank, k, i);
        CHECK(rung_comm_reduce(c, &t[k], buf[k], sizes[k], NULL) == RUNG_OK && t[k] != 0);
        rung_comm_progress(c);
    }
    for (int k = MOST - 1; k > 0; k--) {
        seed = seed * 6364136223846793005u + 1442695040888963407u + (uint64_t)c->rank;
        const int j = (int)(seed >> 33) % (k + 1), o = order[k];
        order[k] = order[j];
        order[j] = o;
    }
    for (int n = 0; n < MOST; n++) {
        const int k = order[n];
        int wrong = 0;
        const float *rest = NULL;
        if (k % 2)
            CHECK(rung_comm_wait(c, &t[k], NULL) == RUNG_OK && t[k] == 0);
        else
            CHECK(rung_comm_wait_rest(c, &t[k], &rest, NULL) == RUNG_OK && t[k] == 0);
        for (size_t i = 0; i < sizes[k]; i++) {
            float want = 0;
            for (int r = 0; r < c->size; r++) want += value(r, k, i);
            wrong += buf[k][i] + (rest ? rest[i] : 0) != want; /* quarters of small whole numbers: exact in any order */
        }
        CHECK(wrong == 0);
        free(buf[k]);
    }
}

static void test_others(rung_comm *c) {
    int *all = calloc((size_t)c->size, sizeof *all), word = c->rank == c->size - 1 ? 77 : 0;
    all[c->rank] = 100 + c->rank;
    CHECK(rung_comm_gather_now(c, all, sizeof *all, NULL) == RUNG_OK);
    for (int r = 0; r < c->size; r++) CHECK(all[r] == 100 + r);
    CHECK(rung_comm_broadcast_now(c, &word, sizeof word, c->size - 1, NULL) == RUNG_OK && word == 77);
    free(all);
}

static void test_split(rung_comm *c) {
    rung_comm *part = NULL;
    float v = (float)c->rank;
    rung_transfer t;
    const int group = c->rank % 2, members = (c->size + 1 - group) / 2;
    if (!CHECK(rung_comm_split(c, &part, group, NULL) == RUNG_OK)) return;
    CHECK(part->size == members && part->rank == c->rank / 2);
    CHECK(rung_comm_reduce(part, &t, &v, 1, NULL) == RUNG_OK && rung_comm_wait(part, &t, NULL) == RUNG_OK);
    CHECK(v == (float)(members * (members - 1) + group * members)); /* group, group + 2, ... */
    rung_comm_close(&part);
}

/* What a rank does when another fails: the first wait that cannot end says so. */
static int expect_failure(rung_comm *c, const char *how, const char *want) {
    rung_err err = {0};
    float *v = calloc(LONG, sizeof *v);
    rung_transfer t;
    for (int i = 0; i < 1000 && !err.code; i++) {
        if (rung_comm_reduce(c, &t, v, LONG, &err) == RUNG_OK) (void)rung_comm_wait(c, &t, &err);
        if (i < 3 || c->rank != 1) continue;
        if (strcmp(how, "dies") == 0) kill(getpid(), SIGKILL);
        if (strcmp(how, "hangs") == 0) sleep(1000);
        rung_fail(&err, RUNG_ENOMEM, "no memory left on purpose");
    }
    fprintf(stderr, "test_mpi: rank %d: %s\n", c->rank, err.msg);
    const bool told = c->rank == 1 ? err.code == RUNG_ENOMEM : err.code == RUNG_EPEER && strstr(err.msg, want);
    rung_comm_tell(c, err.msg);
    rung_mpi_leave(&c, told ? 1 : 3);
    return 3;
}

/* Every rank has a sum under way that rank 1 will not wait for: its buffer is no memory any more when it leaves. */
static int leave_early(rung_comm *c) {
    const size_t bytes = LONG * sizeof(float) * 8;
    float *v = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    rung_err err = {0};
    rung_transfer t;
    if (!CHECK(v != MAP_FAILED && rung_comm_reduce(c, &t, v, LONG * 8, NULL) == RUNG_OK)) return check_result();
    if (c->rank == 1) {
        munmap(v, bytes);
        rung_comm_tell(c, "left on purpose");
        rung_mpi_leave(&c, 1);
    }
    const rung_status st = rung_comm_wait(c, &t, &err);
    fprintf(stderr, "test_mpi: rank %d: %s\n", c->rank, err.msg);
    rung_mpi_leave(&c, st == RUNG_EPEER ? 1 : 3);
    return 3;
}

/* In place of the system's: what waits do between two looks is counted. */
static int breaths;

int sched_yield(void) {
    breaths++;
    return 0;
}

static int breaths_when_asked = -1;

static int stop(void *user) {
    (void)user;
    if (breaths_when_asked < 0) breaths_when_asked = breaths;
    return 1;
}

/* Rank 1 waits for a sum that rank 0 will not start in time; whoever wants to stop it does not wait for many looks. */
static int ask_early(rung_comm *c) {
    float v = 1;
    rung_err err = {0};
    rung_transfer t;
    if (c->rank == 0) sleep(1);
    breaths = 0;
    rung_status st = rung_comm_reduce(c, &t, &v, 1, &err);
    if (!st) st = rung_comm_wait(c, &t, &err);
    if (c->rank == 1) CHECK(st == RUNG_ECANCELLED && breaths_when_asked >= 0 && breaths_when_asked < 32);
    fprintf(stderr, "test_mpi: rank %d: asked after %d breaths: %s\n", c->rank, breaths_when_asked, err.msg);
    rung_comm_tell(c, "stopped on purpose");
    rung_mpi_leave(&c, check_result() ? 3 : 1);
    return 3;
}

static int near_npy(const char *a, const char *b, double allowed) {
    rung_npy x = {0}, y = {0};
    rung_err err = {0};
    if (!CHECK(rung_npy_read(&x, a, &err) == RUNG_OK && rung_npy_read(&y, b, &err) == RUNG_OK)) return check_result();
    double most = 0;
    CHECK(x.count == y.count && x.ndim == y.ndim);
    for (size_t i = 0; i < x.count && i < y.count; i++) most = fmax(most, fabs((double)x.data[i] - (double)y.data[i]));
    CHECK(most <= allowed);
    fprintf(stderr, "%s: %zu latents, largest difference %.2g\n", b, x.count, most);
    rung_npy_free(&x);
    rung_npy_free(&y);
    return check_result();
}

/* Colours count as much as they can be seen: multiplied by alpha. */
static int seen(const uint8_t *pixel, size_t channels, size_t k) {
    return channels == 4 && k < 3 ? (pixel[k] * pixel[3] + 127) / 255 : pixel[k];
}

static int near_png(const char *a, const char *b) {
    uint8_t *x = NULL, *y = NULL;
    size_t w[2], h[2], n[2];
    rung_err err = {0};
    if (!CHECK(rung_png_read(a, &x, &w[0], &h[0], &n[0], NULL, &err) == RUNG_OK) ||
        !CHECK(rung_png_read(b, &y, &w[1], &h[1], &n[1], NULL, &err) == RUNG_OK))
        return check_result();
    int most = 0;
    if (CHECK(w[0] == w[1] && h[0] == h[1] && n[0] == n[1]))
        for (size_t i = 0; i < w[0] * h[0]; i++)
            for (size_t k = 0; k < n[0]; k++) {
                const int d = abs(seen(x + i * n[0], n[0], k) - seen(y + i * n[0], n[0], k));
                if (d > most) most = d;
            }
    CHECK(most <= 2);
    fprintf(stderr, "%s: largest difference %d of 255\n", b, most);
    free(x);
    free(y);
    return check_result();
}

/* Without mpirun. */
static int alone(void) {
    int rank = -1;
    CHECK(!rung_mpi_launched(&rank) && rank == 0);
    setenv("OMPI_COMM_WORLD_SIZE", "1", 1);
    setenv("OMPI_COMM_WORLD_RANK", "0", 1);
    CHECK(!rung_mpi_launched(&rank));
    setenv("OMPI_COMM_WORLD_SIZE", "3", 1);
    setenv("OMPI_COMM_WORLD_RANK", "2", 1);
    CHECK(rung_mpi_launched(&rank) == rung_mpi_built() && rank == (rung_mpi_built() ? 2 : 0));
    return check_result();
}

int main(int argc, char **argv) {
    const char *how = argc > 1 ? argv[1] : "poll";
    rung_comm *c = NULL;
    rung_err err = {0};
    int rank;
    if (argc >= 4 && !strstr(argv[2], ".npy")) return near_png(argv[2], argv[3]);
    if (argc >= 4) return near_npy(argv[2], argv[3], argc > 4 ? strtod(argv[4], NULL) : 1e-4);
    if (!rung_mpi_launched(&rank)) return alone();
    const rung_mpi_options o = {.cancelled = strcmp(how, "asks") == 0 && rank == 1 ? stop : NULL,
                                .timeout = strcmp(how, "hangs") == 0 ? 1 : 30,
                                .progress = strcmp(how, "thread") == 0 ? RUNG_PROGRESS_THREAD
                                            : strcmp(how, "none") == 0 ? RUNG_PROGRESS_NONE
                                                                       : RUNG_PROGRESS_POLL};
    if (!CHECK(rung_mpi_open(&c, &o, &err) == RUNG_OK)) return check_result();
    CHECK(c->rank == rank && c->size > 1);
    if (strcmp(how, "fails") == 0) return expect_failure(c, how, "on purpose");
    if (strcmp(how, "hangs") == 0) return expect_failure(c, how, "nothing heard");
    if (strcmp(how, "leaves") == 0) return leave_early(c);
    if (strcmp(how, "asks") == 0) return ask_early(c);
    if (strcmp(how, "dies") == 0) return expect_failure(c, how, "");
    for (int i = 0; i < 5; i++) test_reduces(c, (uint64_t)i);
    test_others(c);
    test_split(c);
    CHECK(c->stats.transfers > 30 && c->stats.bytes > 5 * LONG);
    CHECK(rung_mpi_done(c, &err) == RUNG_OK);
    const int failed = check_result();
    rung_mpi_leave(&c, failed);
    return failed;
}
