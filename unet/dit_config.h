/* unet/dit_config.h - the config.json of PixArtTransformer2DModel and of LadderTransformer2DModel. */
#ifndef RUNG_DIT_CONFIG_H
#define RUNG_DIT_CONFIG_H
#include "assets/json.h"
#include "kernels/backend.h"

enum { DIT_LAYERS = 1024 };
enum { DIT_TIME = 256 }; /* sinusoids of a timestep, a resolution, an aspect ratio */

typedef struct {
    size_t heads, width; /* width = heads * head dim */
    size_t layers;
    size_t in_channels, out_channels; /* out_channels as the output layer has them, variance included */
    size_t context_dim;               /* what cross-attention reads */
    size_t caption_dim;               /* what comes in; caption_projection maps it to width, 0: no projection */
    size_t sample_size, patch;
    double interpolation_scale;
    bool size_conditions; /* resolution and aspect ratio join the timestep */
    bool attention_bias, norm_affine;
    float eps;
    rung_act act;           /* of the feed-forward; GEGLU doubles its first layer */
    bool stale[DIT_LAYERS]; /* by layer: its modules read the stream of two modules ago */
    size_t stale_layers;    /* how many do */
    bool parallel;          /* a layer's modules read one stream and are added up: for comparison */
} dit_config;

/** class_name NULL or one that is not LadderTransformer2DModel: PixArt's defaults, and "ladder" must not be set.
 *  Source: diffusers PixArtTransformer2DModel.__init__; tools/train/model.py for the ladder. */
rung_status dit_config_read(dit_config *d, rung_config *c, const char *class_name);
#endif
