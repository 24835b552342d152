/* unet/network.h - what denoiser.c asks of a network, and what a run keeps between its steps. Internal to unet/. */
#ifndef RUNG_NETWORK_H
#define RUNG_NETWORK_H
#include "assets/loader.h"
#include "kernels/ops.h"
#include "unet/denoiser.h"

/* What is constant over the steps of one run. Backend memory, from the run's arena. */
typedef struct {
    size_t batch, h, w, n_ctx;
    float *kv;        /* every cross-attention's [batch * n_ctx, K and V], one after another: attn_layer.kv_at */
    float *key_bias;  /* [batch, n_ctx], what a padding row gets added to its scores; NULL: no padding */
    float *in_affine; /* U-Net, center_input_sample: [2, batch, in_channels]; NULL: not centred */
    float *positions; /* DiT: [tokens, width] */
    float *added_emb; /* U-Net, text_time: joins the time embedding [batch, time_dim]; NULL: nothing does */
    float *size_emb;  /* DiT: resolution and aspect ratio [width]; NULL: no such condition */
    bool resident;    /* a step's in and out are in the backend's memory, not the host's */
} network_run;

typedef struct {
    /* Reads the config, fills info, loads the layers. *net may be set on failure too: close it. */
    rung_status (*open)(void **net, rung_denoiser_info *info, rung_config *c, const char *class_name, rung_loader *l);
    void (*close)(void *net);
    rung_status (*check_size)(const void *net, size_t h, size_t w, rung_err *err);
    /* Both run dry (x->arena->base NULL) for sizing. prepare fills *r; step gets t NULL in a dry run. */
    rung_status (*prepare)(const void *net, const rung_exec *x, network_run *r, const rung_denoiser_cond *c,
                           rung_err *err);
    void (*step)(const void *net, const rung_exec *x, const network_run *r, float *out, const float *in,
                 const float *t);
} network_ops;

/** A step's input, f32 [n], to where the network wants it; its output on the way back. */
static inline void network_take(const rung_exec *x, const network_run *r, float *dst, const float *in, size_t n) {
    if (r->resident)
        op_copy2d(x, dst, n, in, n, 1, n);
    else
        op_upload(x, dst, in, n * sizeof *dst);
}
static inline void network_give(const rung_exec *x, const network_run *r, float *out, const float *src, size_t n) {
    if (r->resident)
        op_copy2d(x, out, n, src, n, 1, n);
    else
        op_download(x, out, src, n * sizeof *out);
}

/** RUNG_EARG unless the condition holds a picture's size. For networks that read it. */
rung_status network_check_picture(const rung_denoiser_cond *c, rung_err *err);

extern const network_ops unet2d_network, dit_network;
#endif
