#define _POSIX_C_SOURCE 200809L /* clock_gettime, nanosleep */
#include "kernels/base/comm_mpi.h"

#include <limits.h>
#include <mpi.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MOST = 64, MESSAGE = 300, TAG_TOLD = 1, TAG_ALIVE = 2, TAG_SUM = 3 };

static const double poll_every = 10e-6, leave_within = 2;

/* A transfer under way. `parts` are MPI_REQUEST_NULL once complete. */
struct transfer {
    bool taken;           /* not waited for yet */
    MPI_Request parts[2]; /* the second one in an exchange only */
    float *sum;           /* exchange: what becomes sum + room when both are complete; NULL: nothing is left to do */
    size_t n;
    float *room; /* [room_n], kept from one exchange to the next */
    size_t room_n;
};

/* What all communicators of a process share. */
struct world {
    MPI_Comm control; /* messages about the ranks themselves */
    int rank, size;
    rung_mpi_options o;
    struct transfer transfers[MOST]; /* by transfer - 1 */
    int under_way;
    double polled, alive_sent; /* when */
    char told[MESSAGE];        /* ours, while it is sent */
    bool has_thread, quit;
    pthread_t thread;
    pthread_mutex_t lock; /* one thread in MPI at a time */
    pthread_cond_t wake;
};

struct mpi_comm {
    rung_comm base;
    struct world *w;
    MPI_Comm comm;
    bool owns_world;
};

static struct mpi_comm *self_of(rung_comm *c) { return (struct mpi_comm *)c; }

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void nap(long nanoseconds) { nanosleep(&(struct timespec){.tv_nsec = nanoseconds}, NULL); }

/* MPI's own words for what went wrong: the network, or a process that is gone. */
static rung_status check(const struct world *w, int rc, rung_err *err) {
    char text[MPI_MAX_ERROR_STRING] = "";
    int n = 0;
    if (rc == MPI_SUCCESS) return RUNG_OK;
    MPI_Error_string(rc, text, &n);
    return rung_fail(err, RUNG_EPEER, "rank %d of %d: MPI: %.200s", w->rank, w->size, text);
}

/* ---- signs of life, and of death ---- */

/* A rank that computes for long without a transfer says so, four times in the time that others wait. */
static void say_alive(struct world *w, double t) {
    const char nothing = 0;
    if (t - w->alive_sent < w->o.timeout / 4) return;
    w->alive_sent = t;
    for (int r = 0; r < w->size; r++) {
        MPI_Request sent;
        if (r == w->rank) continue;
        if (MPI_Isend(&nothing, 0, MPI_CHAR, r, TAG_ALIVE, w->control, &sent) == MPI_SUCCESS) MPI_Request_free(&sent);
    }
}

/* Messages of the others: *heard when one is alive; RUNG_EPEER when one has failed. */
static rung_status listen(struct world *w, bool *heard, rung_err *err) {
    int there = 1;
    for (;;) {
        char text[MESSAGE] = "";
        MPI_Status from;
        RUNG_TRY(check(w, MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, w->control, &there, &from), err));
        if (!there) return RUNG_OK;
        RUNG_TRY(
            check(w, MPI_Recv(text, MESSAGE - 1, MPI_CHAR, from.MPI_SOURCE, from.MPI_TAG, w->control, &from), err));
        if (from.MPI_TAG == TAG_TOLD)
            return rung_fail(err, RUNG_EPEER, "rank %d of %d stops, because rank %d failed: %s", w->rank, w->size,
                             from.MPI_SOURCE, text);
        *heard = true;
    }
}

static rung_status listen_now(rung_comm *c, rung_err *err) {
    struct world *w = self_of(c)->w;
    bool heard;
    pthread_mutex_lock(&w->lock);
    const rung_status st = listen(w, &heard, err);
    pthread_mutex_unlock(&w->lock);
    return st;
}

static void tell(rung_comm *c, const char *message) {
    struct world *w = self_of(c)->w;
    pthread_mutex_lock(&w->lock);
    snprintf(w->told, sizeof w->told, "%s", message);
    for (int r = 0; r < w->size; r++) {
        MPI_Request sent; /* small enough to leave at once; leave() gives it the time */
        if (r == w->rank) continue;
        if (MPI_Isend(w->told, (int)strlen(w->told) + 1, MPI_CHAR, r, TAG_TOLD, w->control, &sent) == MPI_SUCCESS)
            MPI_Request_free(&sent);
    }
    pthread_mutex_unlock(&w->lock);
}

/* ---- progress ---- */

/* *done: all of r [n] are complete. One call that finds something incomplete has looked for all. */
static int test(int n, MPI_Request *r, int *done) {
    *done = 1;
    for (int i = 0; i < n && *done; i++) {
        const int rc = MPI_Test(&r[i], done, MPI_STATUS_IGNORE);
        if (rc) return rc;
    }
    return MPI_SUCCESS;
}

/* One look moves a fragment of a message at most, over TCP 128 KiB, and the next task may be milliseconds long: a few
 * looks at each transfer. Under the lock. */
static void test_all(struct world *w) {
    enum { LOOKS = 4 };
    int done = 0, seen = 0;
    for (int i = 0; i < MOST && seen < w->under_way; i++) {
        struct transfer *t = &w->transfers[i];
        if (!t->taken) continue;
        seen++;
        done = 0;
        for (int k = 0; k < LOOKS && !done; k++) test(2, t->parts, &done);
    }
}

static void progress(rung_comm *c) {
    struct world *w = self_of(c)->w;
    const double t = now();
    if (t - w->polled < poll_every) return;
    pthread_mutex_lock(&w->lock);
    say_alive(w, t);
    if (w->o.progress == RUNG_PROGRESS_POLL) test_all(w);
    pthread_mutex_unlock(&w->lock);
    w->polled = w->o.progress == RUNG_PROGRESS_POLL && w->under_way ? now() : t;
}

static void *progress_thread(void *arg) {
    struct world *w = arg;
    pthread_mutex_lock(&w->lock);
    while (!w->quit) {
        if (!w->under_way) {
            pthread_cond_wait(&w->wake, &w->lock);
            continue;
        }
        test_all(w);
        pthread_mutex_unlock(&w->lock);
        nap(50 * 1000);
        pthread_mutex_lock(&w->lock);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

/* ---- transfers ---- */

/* A free place for a transfer of at most INT_MAX elements. With RUNG_OK the lock is held. */
static rung_status begin(struct mpi_comm *c, size_t n, struct transfer **place, rung_err *err) {
    struct world *w = c->w;
    if (n > INT_MAX)
        return rung_fail(err, RUNG_ESHAPE, "a transfer of %zu elements, %d at most are possible", n, INT_MAX);
    pthread_mutex_lock(&w->lock);
    for (*place = w->transfers; *place < w->transfers + MOST; ++*place)
        if (!(*place)->taken) return RUNG_OK;
    pthread_mutex_unlock(&w->lock);
    return rung_fail(err, RUNG_ESHAPE, "more than %d transfers under way", MOST);
}

static rung_status begun(struct mpi_comm *c, struct transfer *place, int rc, rung_transfer *t, rung_err *err) {
    struct world *w = c->w;
    const rung_status st = check(w, rc, err);
    if (!st) {
        place->taken = true;
        w->under_way++;
        *t = (rung_transfer)(place - w->transfers) + 1;
        if (w->has_thread) pthread_cond_signal(&w->wake);
    }
    pthread_mutex_unlock(&w->lock);
    return st;
}

/* A sum of two ranks: each sends all that it has and adds what comes. That is as many bytes as parts to and fro would
 * take, in one phase: nothing waits for a look of ours in the middle. Either order of two numbers has the same sum. */
static int exchange(struct mpi_comm *c, struct transfer *t, float *buf, size_t n) {
    const int other = 1 - c->base.rank;
    if (t->room_n < n) {
        free(t->room);
        t->room = malloc(n * sizeof *t->room);
        t->room_n = t->room ? n : 0;
        if (!t->room) return MPI_ERR_NO_MEM;
    }
    t->sum = buf;
    t->n = n;
    const int rc = MPI_Irecv(t->room, (int)n, MPI_FLOAT, other, TAG_SUM, c->comm, &t->parts[0]);
    return rc ? rc : MPI_Isend(buf, (int)n, MPI_FLOAT, other, TAG_SUM, c->comm, &t->parts[1]);
}

static rung_status reduce(rung_comm *base, rung_transfer *t, float *buf, size_t n, rung_err *err) {
    struct mpi_comm *c = self_of(base);
    struct transfer *p = NULL;
    RUNG_TRY(begin(c, n, &p, err));
    if (base->size == 2) return begun(c, p, exchange(c, p, buf, n), t, err);
    return begun(c, p, MPI_Iallreduce(MPI_IN_PLACE, buf, (int)n, MPI_FLOAT, MPI_SUM, c->comm, p->parts), t, err);
}

static rung_status gather(rung_comm *base, rung_transfer *t, void *all, size_t bytes, rung_err *err) {
    struct mpi_comm *c = self_of(base);
    struct transfer *p = NULL;
    RUNG_TRY(begin(c, bytes, &p, err));
    return begun(c, p, MPI_Iallgather(MPI_IN_PLACE, 0, MPI_BYTE, all, (int)bytes, MPI_BYTE, c->comm, p->parts), t, err);
}

static rung_status broadcast(rung_comm *base, rung_transfer *t, void *buf, size_t bytes, int root, rung_err *err) {
    struct mpi_comm *c = self_of(base);
    struct transfer *p = NULL;
    RUNG_TRY(begin(c, bytes, &p, err));
    return begun(c, p, MPI_Ibcast(buf, (int)bytes, MPI_BYTE, root, c->comm, p->parts), t, err);
}

/* Between two looks: nothing at first, then the processor to others, then sleep. */
static void breathe(double waited) {
    if (waited > 0.1)
        nap(1000 * 1000);
    else if (waited > 0.002)
        nap(20 * 1000);
    else
        sched_yield();
}

static rung_status look(struct world *w, int n, MPI_Request *r, bool ask, int *done, bool *heard, rung_err *err) {
    pthread_mutex_lock(&w->lock);
    rung_status st = check(w, test(n, r, done), err);
    if (!st && !*done && ask) st = listen(w, heard, err);
    pthread_mutex_unlock(&w->lock);
    return st;
}

/* The n requests at r are complete. */
static rung_status wait_for(struct world *w, int n, MPI_Request *r, rung_err *err) {
    enum { ASK_EVERY = 64 };
    const double start = now();
    double heard_at = start;
    int done = 0;
    for (unsigned looks = 1;; looks++) {
        bool heard = false;
        const double t = now();
        const bool ask = looks % ASK_EVERY == 0 || t - start > 0.1;
        RUNG_TRY(look(w, n, r, ask, &done, &heard, err));
        if (done) return RUNG_OK;
        if (heard) heard_at = t;
        if (w->o.cancelled && w->o.cancelled(w->o.user))
            return rung_fail(err, RUNG_ECANCELLED,
                             "rank %d of %d: stopped by a signal while it waited for the other ranks", w->rank,
                             w->size);
        if (t - heard_at > w->o.timeout)
            return rung_fail(
                err, RUNG_EPEER,
                "rank %d of %d: nothing heard from another rank for %.0f s: it hangs, has died, or is that "
                "slow (--parallel timeout=SECONDS)",
                w->rank, w->size, w->o.timeout);
        breathe(t - start);
    }
}

static rung_status wait_transfer(rung_comm *base, rung_transfer which, const float **rest, rung_err *err) {
    struct world *w = self_of(base)->w;
    struct transfer *t = &w->transfers[which - 1];
    RUNG_TRY(wait_for(w, 2, t->parts, err)); /* a failed one stays taken: nothing may follow it */
    if (t->sum && rest) *rest = t->room;
    for (size_t i = 0; t->sum && !rest && i < t->n; i++) t->sum[i] += t->room[i];
    pthread_mutex_lock(&w->lock);
    t->sum = NULL;
    t->taken = false;
    w->under_way--;
    pthread_mutex_unlock(&w->lock);
    return RUNG_OK;
}

/* ---- opening and closing ---- */

static const rung_comm_ops mpi_ops;

static rung_status make(rung_comm **out, struct world *w, MPI_Comm comm, rung_err *err) {
    struct mpi_comm *c = calloc(1, sizeof *c);
    if (!c) return rung_fail(err, RUNG_ENOMEM, "communicator: out of memory");
    c->base.ops = &mpi_ops;
    c->w = w;
    c->comm = comm;
    MPI_Comm_rank(comm, &c->base.rank);
    MPI_Comm_size(comm, &c->base.size);
    MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN);
    *out = &c->base;
    return RUNG_OK;
}

static rung_status split(rung_comm *base, rung_comm **out, int group, rung_err *err) {
    struct mpi_comm *c = self_of(base);
    struct world *w = c->w;
    MPI_Comm part;
    pthread_mutex_lock(&w->lock);
    rung_status st = check(w, MPI_Comm_split(c->comm, group, base->rank, &part), err);
    if (!st) st = make(out, w, part, err);
    pthread_mutex_unlock(&w->lock);
    return st;
}

static void close_world(struct world *w) {
    pthread_mutex_lock(&w->lock);
    w->quit = true;
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->lock);
    if (w->has_thread) pthread_join(w->thread, NULL);
    for (int i = 0; i < MOST; i++) free(w->transfers[i].room);
    pthread_cond_destroy(&w->wake);
    pthread_mutex_destroy(&w->lock);
    free(w);
}

/* A communicator that failed is left to MPI_Abort: transfers of it may be under way. */
static void close_comm(rung_comm *base) {
    struct mpi_comm *c = self_of(base);
    if (c->owns_world)
        close_world(c->w);
    else if (!base->failed.code)
        MPI_Comm_free(&c->comm);
    free(c);
}

static const rung_comm_ops mpi_ops = {"mpi",    close_comm, reduce, gather, broadcast, wait_transfer,
                                      progress, split,      tell,   NULL,   listen_now};

bool rung_mpi_built(void) { return true; }

bool rung_mpi_launched(int *rank) {
    static const char *const names[][2] = {{"OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"}, {"PMI_SIZE", "PMI_RANK"}};
    *rank = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *size = getenv(names[i][0]), *own = getenv(names[i][1]);
        if (!size || !own) continue;
        *rank = (int)strtol(own, NULL, 10);
        return strtol(size, NULL, 10) > 1;
    }
    return false;
}

static rung_status start_thread(struct world *w, rung_err *err) {
    if (w->o.progress != RUNG_PROGRESS_THREAD) return RUNG_OK;
    w->has_thread = pthread_create(&w->thread, NULL, progress_thread, w) == 0;
    return w->has_thread ? RUNG_OK : rung_fail(err, RUNG_ENOMEM, "MPI: the progress thread could not be started");
}

rung_status rung_mpi_open(rung_comm **world, const rung_mpi_options *o, rung_err *err) {
    int level = 0;
    *world = NULL;
    struct world *w = calloc(1, sizeof *w);
    if (!w) return rung_fail(err, RUNG_ENOMEM, "MPI: out of memory");
    w->o = *o;
    if (w->o.timeout <= 0) w->o.timeout = 120;
    w->alive_sent = now();
    for (int i = 0; i < MOST; i++) w->transfers[i].parts[0] = w->transfers[i].parts[1] = MPI_REQUEST_NULL;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->wake, NULL);
    rung_status st = check(w, MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &level), err);
    if (!st && level < MPI_THREAD_SERIALIZED && o->progress == RUNG_PROGRESS_THREAD)
        st = rung_fail(err, RUNG_EDEVICE, "MPI: this library allows no progress thread");
    if (!st) st = check(w, MPI_Comm_dup(MPI_COMM_WORLD, &w->control), err);
    if (!st) {
        MPI_Comm_set_errhandler(w->control, MPI_ERRORS_RETURN);
        MPI_Comm_rank(w->control, &w->rank);
        MPI_Comm_size(w->control, &w->size);
        st = start_thread(w, err);
    }
    if (!st) st = make(world, w, MPI_COMM_WORLD, err);
    if (st) {
        close_world(w);
        return st;
    }
    self_of(*world)->owns_world = true;
    return RUNG_OK;
}

rung_status rung_mpi_done(rung_comm *world, rung_err *err) {
    struct mpi_comm *c = self_of(world);
    MPI_Request all;
    pthread_mutex_lock(&c->w->lock);
    const rung_status st = check(c->w, MPI_Ibarrier(c->comm, &all), err);
    pthread_mutex_unlock(&c->w->lock);
    RUNG_TRY(st);
    RUNG_TRY(wait_for(c->w, 1, &all, err));
    return listen_now(world, err); /* what nobody has read MPI libraries complain about */
}

/* The others have read what was told once they come here too; those that cannot are not waited for long. Buffers of
 * what is under way may be gone by now: then nothing of MPI's that would touch them is called. */
static void wait_until_known(struct world *w) {
    const double start = now();
    MPI_Request all;
    int done = 0;
    while (w->under_way && now() - start < leave_within) nap(10 * 1000 * 1000);
    if (w->under_way) return;
    if (MPI_Ibarrier(w->control, &all) != MPI_SUCCESS) return;
    while (!done && now() - start < leave_within) {
        if (MPI_Test(&all, &done, MPI_STATUS_IGNORE) != MPI_SUCCESS) return;
        breathe(now() - start);
    }
}

void rung_mpi_leave(rung_comm **world, int code) {
    struct world *w = self_of(*world)->w;
    MPI_Comm control = w->control;
    pthread_mutex_lock(&w->lock);
    if (code) {
        wait_until_known(w);
        nap(100 * 1000 * 1000); /* launchers drop what was printed and not fetched by then */
        MPI_Abort(MPI_COMM_WORLD, code);
    }
    pthread_mutex_unlock(&w->lock);
    rung_comm_close(world);
    MPI_Comm_free(&control);
    MPI_Finalize();
}
