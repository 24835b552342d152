#include <stdlib.h>
#include <string.h>

#include "kernels/base/pages.h"
#include "kernels/cpu/cpu_ops.h"

static void backend_close(rung_backend *be) {
    free(cpu_of(be)->room);
    pthread_mutex_destroy(&cpu_of(be)->room_lock);
    free(cpu_of(be));
}

/* Every operation has ended when its function returns. */
static rung_status backend_sync(rung_backend *be, rung_err *err) {
    (void)be, (void)err;
    return RUNG_OK;
}

static rung_status backend_alloc(rung_backend *be, void **out, size_t bytes, rung_err *err) {
    (void)be;
    *out = rung_pages_alloc(bytes);
    return *out ? RUNG_OK : rung_fail(err, RUNG_ENOMEM, "out of memory: %zu bytes wanted", bytes);
}

static void backend_free(rung_backend *be, void *p) {
    (void)be;
    free(p);
}

static void backend_copy(rung_backend *be, void *dst, const void *src, size_t bytes) {
    (void)be;
    if (bytes) memcpy(dst, src, bytes);
}

static const rung_backend_ops cpu_table = {
    .name = "cpu",
    .close = backend_close,
    .sync = backend_sync,
    .mem_alloc = backend_alloc,
    .mem_free = backend_free,
    .upload = backend_copy,
    .download = backend_copy,
    .linear_open = cpu_linear_open,
    .linear_close = cpu_linear_close,
    .conv_open = cpu_conv_open,
    .conv_close = cpu_conv_close,
    .table_open = cpu_table_open,
    .table_close = cpu_table_close,
    .linear = cpu_linear,
    .conv = cpu_conv,
    .attention = cpu_attention,
    .layer_norm = cpu_layer_norm,
    .rms_norm = cpu_rms_norm,
    .group_norm = cpu_group_norm,
    .group_norm_affine = cpu_group_norm_affine,
    .act = cpu_act,
    .add = cpu_add,
    .add_rows = cpu_add_rows,
    .copy2d = cpu_copy2d,
    .lookup = cpu_lookup,
    .unpatchify = cpu_unpatchify,
    .sinusoids = cpu_sinusoids,
    .combine = cpu_combine,
    .normal = cpu_normal,
};

rung_status rung_cpu_backend_open(rung_backend **out, rung_pool *pool, unsigned cpu, rung_err *err) {
    *out = NULL;
    cpu_backend *be = calloc(1, sizeof *be);
    if (!be) return rung_fail(err, RUNG_ENOMEM, "CPU backend: out of memory");
    *be = (cpu_backend){.base = {&cpu_table}, .pool = pool, .cpu = cpu};
    be->room = rung_pages_alloc(WINO_ROOM * sizeof *be->room);
    if (!be->room) {
        free(be);
        return rung_fail(err, RUNG_ENOMEM, "CPU backend: out of memory");
    }
    pthread_mutex_init(&be->room_lock, NULL);
    *out = &be->base;
    return RUNG_OK;
}

void rung_cpu_backend_exact(rung_backend *be, bool exact) { cpu_of(be)->exact = exact; }
