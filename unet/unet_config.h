/* unet/unet_config.h - UNet2DConditionModel's config.json, read, checked and resolved level by level. */
#ifndef RUNG_UNET_CONFIG_H
#define RUNG_UNET_CONFIG_H
#include "assets/json.h"
#include "kernels/backend.h"

enum { UNET_LEVELS = 16, UNET_LAYERS = 32, UNET_SIZE_IDS = 6 };

typedef enum { UNET_MID_NONE, UNET_MID_RES, UNET_MID_CROSS } unet_mid;

/* One resolution; level 0 is the finest. Its up block is up_blocks.(levels - 1 - i). */
typedef struct {
    size_t channels;
    size_t layers;           /* residual blocks on the way down; one more on the way up */
    size_t heads;            /* 0 where no block of the level attends */
    size_t depth;            /* transformer blocks after each residual block */
    bool down_attn, up_attn; /* CrossAttn*Block2D */
    bool only_cross;         /* attn1 reads the text too (not in the mid block) */
} unet_level;

typedef struct {
    size_t in_channels, out_channels, sample_size; /* sample_size 0: unknown or not square */
    size_t levels;
    unet_level level[UNET_LEVELS];
    unet_mid mid;
    float mid_scale;    /* the mid block's residual sums are divided by it */
    size_t context_dim; /* what cross-attention reads */
    size_t text_dim;    /* what comes in: encoder_hid_dim where encoder_hid_proj maps it to context_dim */
    bool text_proj;
    size_t groups;
    float eps; /* of the residual blocks and the last norm; the transformers have their own */
    size_t time_dim;
    bool flip_sin_to_cos, scale_shift, center_input;
    double freq_shift;
    rung_act time_post_act, time_act; /* timestep_post_act, time_embedding_act_fn; usually none */
    size_t added_dim;  /* addition_embed_type text_time: sinusoids of each of six numbers; 0: no such thing */
    size_t pooled_dim; /* and the pooled text in front of them */
    size_t conv_in_kernel, conv_out_kernel;
    size_t down_padding; /* 0: one row and column at the end only, as diffusers pads then */
} unet_config;

/** c->status tells; every key with its range is in the .c. Source: diffusers UNet2DConditionModel.__init__. */
rung_status unet_config_read(unet_config *u, rung_config *c);

/** Sizes of the levels for latents of h x w. RUNG_ESHAPE where diffusers' own sizes would not fit each other. */
rung_status unet_config_sizes(const unet_config *u, size_t h, size_t w, size_t hs[UNET_LEVELS], size_t ws[UNET_LEVELS],
                              rung_err *err);
#endif
