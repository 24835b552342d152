/* vae/decoder.c - rooms, and convolutions over a stretch of rows. */
#include "vae/decoder.h"

#include <string.h>

float *vae_room(vae_run *r, int room, size_t rows, size_t cols) {
    rung_arena *a = &r->room[room];
    arena_rewind(a, 0);
    float *p = arena_floats(a, rows, cols);
    if (a->failed) r->room[ROOM_SMALL].failed = 1; /* the one that the operations look at */
    return p;
}

void vae_sync(vae_run *r) {
    const rung_status st = r->exec.be->ops->sync(r->exec.be, r->err);
    if (!r->status) r->status = st;
}

vae_rows vae_rows_grow(vae_rows core, size_t halo, size_t h) {
    return (vae_rows){core.lo > halo ? core.lo - halo : 0, size_min(core.hi + halo, h)};
}

void vae_conv(vae_run *r, float *y, vae_rows rows, const rung_conv *c, vae_view x, size_t ic, vae_affine norm,
              const rung_epilogue *ep) {
    const vae_rows in = vae_rows_grow(rows, 1, x.h);
    const rung_conv_args a = {
        .batch = 1,
        .h = in.hi - in.lo,
        .w = x.w,
        .stride = 1,
        .pad_top = rows.lo == 0,
        .pad_bottom = rows.hi == x.h,
        .pad_left = 1,
        .pad_right = 1,
        .in_scale = norm.scale,
        .in_shift = norm.shift,
        .in_act = norm.scale ? RUNG_ACT_SILU : RUNG_ACT_NONE,
    };
    op_conv(&r->exec, y, rows_at(x.data, (in.lo - x.first) * x.w * ic), c, &a, ep);
}

vae_rows vae_up_reads(vae_rows rows, size_t h, size_t factor) {
    const vae_rows in = vae_rows_grow(rows, 1, h * factor); /* of the enlarged picture */
    return (vae_rows){in.lo / factor, size_div_up(in.hi, factor)};
}

vae_rows vae_conv_up(vae_run *r, float *y, vae_rows rows, const rung_conv *c, vae_view x, size_t ic, size_t factor,
                     const rung_epilogue *ep) {
    const vae_rows src = vae_up_reads(rows, x.h, factor);
    const bool top = src.lo == 0, bottom = src.hi == x.h;
    const rung_conv_args a = {
        .batch = 1,
        .h = src.hi - src.lo,
        .w = x.w,
        .uh = (src.hi - src.lo) * factor,
        .uw = x.w * factor,
        .stride = 1,
        .pad_top = top,
        .pad_bottom = bottom,
        .pad_left = 1,
        .pad_right = 1,
    };
    op_conv(&r->exec, y, rows_at(x.data, src.lo * x.w * ic), c, &a, ep);
    return (vae_rows){top ? 0 : src.lo * factor + 1, bottom ? x.h * factor : src.hi * factor - 1};
}

void vae_skip_weights(rung_weights *w, const char *const *prefixes, size_t n) {
    for (size_t i = 0; i < rung_weights_count(w); i++) {
        const char *name = rung_weights_name(w, i);
        for (size_t j = 0; j < n; j++)
            if (strncmp(name, prefixes[j], strlen(prefixes[j])) == 0) rung_weights_find(w, name);
    }
}
