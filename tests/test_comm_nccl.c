/* kernels/nccl/comm_nccl.c itself, compiled against tests/nccl_host and run on host threads: transfers, their order on
 * the streams, and that nothing may be read before its wait. */
#include "kernels/nccl/comm_nccl.c"
#include "tests/check.h"

rung_status nccl_lib_open(nccl_lib *out, rung_err *err) {
    (void)err;
    *out = (nccl_lib){0};
#define STAND_IN(name) out->name = name;
    NCCL_FUNCTIONS(STAND_IN)
    return RUNG_OK;
}
void nccl_lib_close(nccl_lib *l) { *l = (nccl_lib){0}; }

typedef struct {
    hub *bootstrap;
    int rank;
    bool ok, poisoned;
    float sum[5], all[3], word;
    rung_status full, closed;
} nccl_rank;

static rung_comm *join(nccl_rank *a, hub_comm *host, struct host_stream *compute) {
    rung_comm *c = NULL;
    rung_err err = {0};
    hub_join(a->bootstrap, host, a->rank);
    a->ok = rung_nccl_open(&c, &host->base, 0, compute, 0, &err) == RUNG_OK;
    return c;
}

static void *run_rank(void *arg) {
    nccl_rank *a = arg;
    hub_comm host;
    struct host_stream compute = {0};
    rung_transfer t[3], many[MOST];
    rung_comm *c = join(a, &host, &compute);
    float v[MOST] = {0};
    if (!c) return NULL;
    for (int i = 0; i < 5; i++) a->sum[i] = (float)(a->rank + 1) * (float)(i + 1);
    a->all[a->rank] = 10 + (float)a->rank;
    a->word = a->rank == 1 ? 7 : 0;
    a->ok &= c->device && rung_comm_reduce(c, &t[0], a->sum, 5, NULL) == RUNG_OK;
    a->poisoned = a->sum[0] != a->sum[0];
    a->ok &= rung_comm_gather(c, &t[1], a->all, sizeof(float), NULL) == RUNG_OK;
    a->ok &= rung_comm_broadcast(c, &t[2], &a->word, sizeof a->word, 1, NULL) == RUNG_OK;
    for (int i = 2; i >= 0; i--) a->ok &= rung_comm_wait(c, &t[i], NULL) == RUNG_OK;
    a->ok &= c->ops->settle(c, NULL) == RUNG_OK;
    for (int i = 0; i < MOST; i++) a->ok &= rung_comm_reduce(c, &many[i], &v[i], 1, NULL) == RUNG_OK;
    a->full = rung_comm_reduce(c, &t[0], v, 1, NULL);
    a->closed = rung_comm_wait(c, &many[0], NULL); /* the failure sticks */
    rung_comm_close(&c);
    return NULL;
}

static void test_transfers(int size, bool late) {
    hub bootstrap, gpus;
    pthread_t threads[HUB_RANKS];
    nccl_rank ranks[HUB_RANKS];
    hub_open(&bootstrap, size);
    hub_open(&gpus, size);
    gpus.late = late;
    nccl_hub = &gpus;
    for (int r = 0; r < size; r++) {
        ranks[r] = (nccl_rank){.bootstrap = &bootstrap, .rank = r};
        if (pthread_create(&threads[r], NULL, run_rank, &ranks[r]) != 0) abort();
    }
    for (int r = 0; r < size; r++) pthread_join(threads[r], NULL);
    for (int r = 0; r < size; r++) {
        CHECK(ranks[r].ok);
        if (late) CHECK(ranks[r].poisoned);
        for (int i = 0; i < 5; i++) CHECK(ranks[r].sum[i] == (float)(size * (size + 1) / 2 * (i + 1)));
        for (int k = 0; k < size; k++) CHECK(ranks[r].all[k] == 10 + (float)k);
        CHECK(ranks[r].word == 7);
        CHECK(ranks[r].full == RUNG_ESHAPE && ranks[r].closed == RUNG_ESHAPE);
    }
    hub_close(&gpus);
    hub_close(&bootstrap);
}

int main(void) {
    struct host_stream compute = {0};
    rung_comm *alone = NULL, *c = NULL;
    rung_err err = {0};
    for (int size = 2; size <= 3; size++)
        for (int late = 0; late < 2; late++) test_transfers(size, late);
    CHECK(rung_comm_alone_open(&alone, NULL) == RUNG_OK);
    CHECK(rung_nccl_open(&c, alone, -1, &compute, 0, &err) == RUNG_EDEVICE && !c && strstr(err.msg, "device"));
    rung_comm_close(&alone);
    return check_result();
}
