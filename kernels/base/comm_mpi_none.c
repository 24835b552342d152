#include "kernels/base/comm_mpi.h"

bool rung_mpi_built(void) { return false; }

bool rung_mpi_launched(int *rank) {
    *rank = 0;
    return false;
}

rung_status rung_mpi_open(rung_comm **world, const rung_mpi_options *o, rung_err *err) {
    (void)o;
    *world = NULL;
    return rung_fail(err, RUNG_EDEVICE, "several ranks: this build has no MPI (libopenmpi-dev or libmpich-dev)");
}

rung_status rung_mpi_done(rung_comm *world, rung_err *err) {
    (void)world, (void)err;
    return RUNG_OK;
}

void rung_mpi_leave(rung_comm **world, int code) {
    (void)code;
    rung_comm_close(world);
}
