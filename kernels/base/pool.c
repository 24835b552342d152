#define _GNU_SOURCE /* sched_getaffinity: a container's share of the processors, not the machine's */
#include "kernels/base/pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#include "kernels/base/pages.h"

enum { MAX_THREADS = 512, SPIN = 2000 };

struct worker {
    rung_pool *pool;
    void *scratch;
    pthread_t thread;
};

struct rung_pool {
    int threads, started; /* `started` of the `threads` - 1 helpers exist */
    struct worker *workers;
    pthread_mutex_t caller; /* one job at a time */
    pthread_mutex_t lock;   /* guards job, quit; the conditions below */
    pthread_cond_t wake, idle;
    atomic_uint job; /* number of the job: helpers wait for it to change */
    int busy;        /* helpers still in the current job */
    int quit;
    rung_task_fn *fn;
    void *arg;
    rung_poll_fn *poll; /* between the caller's tasks; NULL: none */
    void *poll_arg;
    size_t tasks;
    atomic_size_t next;
};

static inline void relax(void) {
#ifdef __x86_64__
    __builtin_ia32_pause();
#endif
}

static void work(rung_pool *p, void *scratch, bool caller) {
    for (size_t i; (i = atomic_fetch_add_explicit(&p->next, 1, memory_order_relaxed)) < p->tasks;) {
        p->fn(p->arg, i, scratch);
        if (caller && p->poll) p->poll(p->poll_arg);
    }
}

static void *helper(void *arg) {
    struct worker *w = arg;
    rung_pool *p = w->pool;
    unsigned seen = 0;
    for (;;) {
        /* Jobs follow each other within microseconds during a step: look a while before sleeping. */
        for (int i = 0; i < SPIN && atomic_load_explicit(&p->job, memory_order_acquire) == seen; i++) relax();
        pthread_mutex_lock(&p->lock);
        while (atomic_load(&p->job) == seen && !p->quit) pthread_cond_wait(&p->wake, &p->lock);
        const int quit = p->quit;
        seen = atomic_load(&p->job);
        pthread_mutex_unlock(&p->lock);
        if (quit) return NULL;
        work(p, w->scratch, false);
        pthread_mutex_lock(&p->lock);
        if (--p->busy == 0) pthread_cond_signal(&p->idle);
        pthread_mutex_unlock(&p->lock);
    }
}

static int processors(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
    const int n = CPU_COUNT(&set);
    return n < 1 ? 1 : n;
}

rung_status rung_pool_open(rung_pool **out, int threads, rung_err *err) {
    *out = NULL;
    if (threads < 0 || threads > MAX_THREADS)
        return rung_fail(err, RUNG_EARG, "threads is %d, wanted 0 (one for each processor) to %d", threads,
                         MAX_THREADS);
    rung_pool *p = calloc(1, sizeof *p);
    if (!p) return rung_fail(err, RUNG_ENOMEM, "thread pool: out of memory");
    pthread_mutex_init(&p->caller, NULL);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    pthread_cond_init(&p->idle, NULL);
    p->threads = threads ? threads : processors();
    p->workers = calloc((size_t)p->threads, sizeof *p->workers);
    if (!p->workers) goto nomem;
    for (int i = 0; i < p->threads; i++) {
        struct worker *w = &p->workers[i];
        w->pool = p;
        w->scratch = rung_pages_alloc(RUNG_POOL_SCRATCH);
        if (!w->scratch) goto nomem;
        if (i == 0) continue; /* worker 0 is whoever calls rung_pool_run */
        if (pthread_create(&w->thread, NULL, helper, w) != 0) {
            rung_pool_close(&p);
            return rung_fail(err, RUNG_ENOMEM, "thread pool: could not start thread %d of %d", i + 1, threads);
        }
        p->started = i;
    }
    *out = p;
    return RUNG_OK;
nomem:
    rung_pool_close(&p);
    return rung_fail(err, RUNG_ENOMEM, "thread pool: no memory for %d workers", threads);
}

void rung_pool_close(rung_pool **pp) {
    rung_pool *p = *pp;
    *pp = NULL;
    if (!p) return;
    pthread_mutex_lock(&p->lock);
    p->quit = 1;
    atomic_fetch_add(&p->job, 1);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    for (int i = 1; i <= p->started; i++) pthread_join(p->workers[i].thread, NULL);
    for (int i = 0; p->workers && i < p->threads; i++) free(p->workers[i].scratch);
    free(p->workers);
    pthread_cond_destroy(&p->idle);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
    pthread_mutex_destroy(&p->caller);
    free(p);
}

int rung_pool_threads(const rung_pool *p) { return p->threads; }

void rung_pool_poll(rung_pool *p, rung_poll_fn *poll, void *poll_arg) {
    p->poll = poll;
    p->poll_arg = poll_arg;
}

void rung_pool_run(rung_pool *p, rung_task_fn *fn, void *arg, size_t tasks) {
    if (tasks == 0) return;
    pthread_mutex_lock(&p->caller);
    if (tasks == 1 || p->threads == 1) {
        for (size_t i = 0; i < tasks; i++) {
            fn(arg, i, p->workers[0].scratch);
            if (p->poll) p->poll(p->poll_arg);
        }
    } else {
        pthread_mutex_lock(&p->lock);
        p->fn = fn;
        p->arg = arg;
        p->tasks = tasks;
        p->busy = p->started;
        atomic_store(&p->next, 0);
        atomic_fetch_add_explicit(&p->job, 1, memory_order_release);
        pthread_cond_broadcast(&p->wake);
        pthread_mutex_unlock(&p->lock);
        work(p, p->workers[0].scratch, true);
        pthread_mutex_lock(&p->lock);
        while (p->busy > 0) pthread_cond_wait(&p->idle, &p->lock);
        pthread_mutex_unlock(&p->lock);
    }
    pthread_mutex_unlock(&p->caller);
}
