/* unet/resblock.h - the U-Net's residual block: diffusers ResnetBlock2D with 3x3 convolutions. */
#ifndef RUNG_RESBLOCK_H
#define RUNG_RESBLOCK_H
#include "unet/network.h"
#include "unet/unet_config.h"

/* What every block of one step sees. */
typedef struct {
    const rung_exec *x;
    const unet_config *cfg;
    const network_run *run;
    const float *time; /* f32 [times, time_dim]: silu(time embedding) */
    size_t times;      /* 1: all pictures share it; else the batch */
} unet_step;

/* Where layers are cut over ranks: rank 0's partial sum takes the residual along, and then all are added up. */
static inline const float *unet_residual(const unet_step *s, const float *residual, bool cut) {
    return cut && s->x->comm && s->x->comm->rank ? NULL : residual;
}
void unet_sum(const unet_step *s, float *y, size_t n, bool cut);

typedef struct {
    size_t in, out;
    rung_share own, own_in; /* this rank's channels between the convolutions, and of the shortcut's input */
    const float *norm1_w, *norm1_b, *norm2_w, *norm2_b;
    const rung_conv *conv1, *conv2;
    const rung_linear *time;     /* [own or 2 * own, time_dim] */
    const rung_linear *shortcut; /* [out, own_in]; NULL: in == out */
    const float *one_zero;       /* scale_shift: f32 [2 * own], the 1 of (1 + scale) */
} resblock;

void resblock_load(resblock *b, rung_loader *l, const unet_config *u, size_t in, size_t out, const char *name);

/** y f32 [batch, h, w, out] = (shortcut(in) + branch(in)) / divisor; in f32 [batch, h, w, in], not overlapping y. */
void resblock_run(const unet_step *s, const resblock *b, float *y, const float *in, size_t h, size_t w, float divisor);
#endif
