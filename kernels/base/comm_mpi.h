/* kernels/base/comm_mpi.h - ranks as MPI processes. A build without MPI has the same functions and one answer. */
#ifndef RUNG_COMM_MPI_H
#define RUNG_COMM_MPI_H
#include "kernels/base/comm.h"

/* Who moves messages along while a rank computes. MPI itself does so only inside its calls. */
typedef enum {
    RUNG_PROGRESS_POLL,   /* rung_comm_progress, between the tasks of a thread pool */
    RUNG_PROGRESS_THREAD, /* a thread that looks every 50 us while something is under way */
    RUNG_PROGRESS_NONE,   /* nobody, until the wait: for comparison */
} rung_progress;

typedef struct {
    rung_progress progress;
    double timeout;               /* seconds without a sign of life from the others after which a wait fails; 0: 120 */
    int (*cancelled)(void *user); /* asked during waits; anything but 0 ends them with RUNG_ECANCELLED. NULL: nobody */
    void *user;
} rung_mpi_options;

bool rung_mpi_built(void);

/** Was this process started by mpirun (Open MPI, MPICH, Slurm's PMI) as one of several? Looks at the environment only;
 *  *rank is its number. */
bool rung_mpi_launched(int *rank);

/** Every process of the launch: call once, before threads are started. RUNG_EDEVICE without MPI in the build. */
rung_status rung_mpi_open(rung_comm **world, const rung_mpi_options *o, rung_err *err);

/**
 * All ranks agree that they are done: RUNG_EPEER with its message when one has failed. After that, or after a failure
 * of one's own that rung_comm_tell has told, comes rung_mpi_leave.
 */
rung_status rung_mpi_done(rung_comm *world, rung_err *err);

/** Closes *world. With a `code` of 0 MPI ends in order; else the launch is aborted with `code` once the others know, or
 *  after 2 seconds, and this does not return. */
void rung_mpi_leave(rung_comm **world, int code);
#endif
