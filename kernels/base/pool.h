/* kernels/base/pool.h - one pool of threads for everything that an engine computes. */
#ifndef RUNG_POOL_H
#define RUNG_POOL_H
#include <stddef.h>

#include "kernels/base/err.h"

typedef struct rung_pool rung_pool;

/** Every worker owns this much 64-byte aligned scratch, allocated once: packed tiles, softmax rows, panels. */
enum { RUNG_POOL_SCRATCH = 8 << 20 };

/** `threads` >= 1 counts the calling thread. 0 means one for each processor that this process may use. */
rung_status rung_pool_open(rung_pool **out, int threads, rung_err *err);
void rung_pool_close(rung_pool **p);
int rung_pool_threads(const rung_pool *p);

/**
 * One task of a job. `scratch` is the running worker's RUNG_POOL_SCRATCH bytes, its content undefined.
 * What a task computes must depend on `task` alone, never on which worker runs it: then results do not depend on the
 * number of threads.
 */
typedef void rung_task_fn(void *arg, size_t task, void *scratch);

/** From now on poll(poll_arg) is called between the tasks of a job by the thread that runs it, for what has to go on
 *  meanwhile: transfers to other ranks. NULL: nothing is. Not while a job runs. */
typedef void rung_poll_fn(void *poll_arg);
void rung_pool_poll(rung_pool *p, rung_poll_fn *poll, void *poll_arg);

/**
 * Runs fn(arg, 0..tasks-1) on all workers, the caller among them, and returns when every task is done. Tasks are
 * taken in order, one at a time. Callers on several threads take turns; a task must not call rung_pool_run.
 */
void rung_pool_run(rung_pool *p, rung_task_fn *fn, void *arg, size_t tasks);
#endif
