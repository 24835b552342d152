/* vae/decoder.h - what the decoders share: the type behind rung_vae, scratch in rooms, convolutions over a stretch of
 * rows. Internal to vae/.
 *
 * A decoder's activations double in size from level to level, so it keeps them in few places: the picture that it
 * works on (HERE), the one that it makes (NEXT), one more for a shortcut (SPARE), and what is small (SMALL: latents,
 * norm affines, strips). Each place is an arena, sized by a dry run and kept for the next picture of the same size.
 */
#ifndef RUNG_VAE_DECODER_H
#define RUNG_VAE_DECODER_H
#include "assets/json.h"
#include "assets/loader.h"
#include "kernels/base/size.h"
#include "kernels/ops.h"
#include "vae/vae.h"

enum { ROOM_HERE, ROOM_NEXT, ROOM_SPARE, ROOM_SMALL, VAE_ROOMS };
enum { VAE_MAX_LEVELS = 10, VAE_MAX_FACTOR = 512, VAE_MAX_LATENT = 128, VAE_STRIP_ROWS = 32 };

/* One decode, or its dry run. */
typedef struct {
    rung_exec exec; /* exec.arena is &room[ROOM_SMALL] */
    rung_arena room[VAE_ROOMS];
    size_t strips_from; /* levels from this one on are computed in strips of VAE_STRIP_ROWS rows */
    rung_status status; /* of vae_sync */
    rung_err *err;
} vae_run;

typedef struct vae_decoder vae_decoder;

/* z f32 [h, w, latent_channels], unscaled, in backend memory; returns f32 [h * factor, w * factor, image_channels] in
 * one of the rooms (NULL in a dry run). */
typedef const float *vae_decode_fn(vae_decoder *d, vae_run *r, const float *z, size_t h, size_t w);

/* The common part of each decoder; its own struct starts with it. */
struct vae_decoder {
    vae_decode_fn *decode;
    void (*close)(vae_decoder *d);
    rung_layers *layers;
    size_t levels; /* level 0 has the latents' size */
    rung_vae_info info;
    bool squash; /* the latents pass 3 * tanh(z / 3) first */
};

/** Reads the config and loads the layers. On error *out is NULL. RUNG_EFORMAT, RUNG_ESHAPE, RUNG_ENOMEM. */
rung_status autoencoder_kl_open(vae_decoder **out, rung_config *c, rung_weights *w, rung_backend *be, rung_store store,
                                rung_err *err);
rung_status autoencoder_tiny_open(vae_decoder **out, rung_config *c, rung_weights *w, rung_backend *be,
                                  rung_store store, rung_err *err);

/** Counts the tensors of the half that is not built as used: those whose names start with one of `prefixes`. */
void vae_skip_weights(rung_weights *w, const char *const *prefixes, size_t n);

static inline const float *rows_at(const float *x, size_t floats) { return x ? x + floats : NULL; }
static inline float *rows_of(float *x, size_t floats) { return x ? x + floats : NULL; }

/** f32 [rows, cols] in a room; what was there is gone. */
float *vae_room(vae_run *r, int room, size_t rows, size_t cols);

/** Waits for what was downloaded; a device error ends up in r->status. */
void vae_sync(vae_run *r);

/* A per-channel scale and shift: a GroupNorm with its statistics put in. f32 [ch] each; zeroed: none. */
typedef struct {
    float *scale, *shift;
} vae_affine;

/* A stretch of rows [lo, hi) of a picture. */
typedef struct {
    size_t lo, hi;
} vae_rows;

/** `core` and `halo` rows more on both sides, as far as the picture of h rows goes. */
vae_rows vae_rows_grow(vae_rows core, size_t halo, size_t h);

/* A picture of which some rows are in memory: data f32 [rows, w, ch], its first row is the picture's row `first`. */
typedef struct {
    float *data;
    size_t first, h, w; /* h: rows of the whole picture */
} vae_view;

/** Rows `rows` of a 3x3 convolution, padding 1, into y f32 [rows, w, oc]; x needs the rows and one more on each side.
 *  The norm (may be zeroed) is followed by SiLU. */
void vae_conv(vae_run *r, float *y, vae_rows rows, const rung_conv *c, vae_view x, size_t ic, vae_affine norm,
              const rung_epilogue *ep);

/** Which rows of a picture of h rows are read for rows `rows` of a 3x3 convolution over it enlarged `factor` times. */
vae_rows vae_up_reads(vae_rows rows, size_t h, size_t factor);

/** At least rows `rows` of a 3x3 convolution over x (whole) enlarged `factor` times, into y; returns which rows they
 *  are: up to `factor` more on each side, since the input is cut at whole rows. */
vae_rows vae_conv_up(vae_run *r, float *y, vae_rows rows, const rung_conv *c, vae_view x, size_t ic, size_t factor,
                     const rung_epilogue *ep);
#endif
