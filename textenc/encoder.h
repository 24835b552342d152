/* textenc/encoder.h - what CLIP's and BERT's encoders have in common: the config, and the parts of a layer. */
#ifndef RUNG_ENCODER_H
#define RUNG_ENCODER_H
#include "assets/json.h"
#include "assets/loader.h"
#include "kernels/ops.h"

typedef struct {
    size_t vocab, width, heads, layers, inner, positions;
    rung_act act;
    float eps;
} encoder_config;

/**
 * Reads "vocab_size", "hidden_size", "num_attention_heads", ... from c; what is not there is taken from `def`, the
 * class's defaults (act from `act`, by its name). RUNG_EFORMAT: out of range, an unknown activation, heads that do not
 * divide the width.
 */
rung_status encoder_config_read(encoder_config *out, rung_config *c, const encoder_config *def, const char *act);

typedef struct {
    const float *w, *b; /* f32 [width] */
} encoder_norm;

typedef struct {
    const rung_linear *qkv, *out; /* [3 width, width], [width, width] */
    const rung_linear *up, *down; /* [inner, width], [width, inner] */
    encoder_norm norm1, norm2;
} encoder_block;

/* How a checkpoint names the parts of one layer, after the layer's own prefix. */
typedef struct {
    const char *q, *k, *v, *out, *up, *down, *norm1, *norm2;
} encoder_names;

/** prefix + name + ".weight" and ".bias". */
encoder_norm encoder_load_norm(rung_loader *l, size_t width, const char *prefix, const char *name);
encoder_block encoder_load_block(rung_loader *l, const encoder_config *c, const char *prefix, const encoder_names *n);

/* Scratch of one forward pass over n tokens, from the arena of e. */
typedef struct {
    float *h, *x; /* [n, width]: the stream, and a second one */
    float *qkv;   /* [n, 3 width] */
    float *inner; /* [n, inner] */
} encoder_scratch;
encoder_scratch encoder_scratch_alloc(const rung_exec *e, const encoder_config *c, size_t n);

void encoder_apply_norm(const rung_exec *e, const encoder_config *c, float *y, const float *x, const encoder_norm *w,
                        size_t n);
/** x = self-attention of the projections in qkv. key_bias [n] (0 or -INFINITY) may be NULL. */
void encoder_attention(const rung_exec *e, const encoder_config *c, const encoder_scratch *s, size_t n, bool causal,
                       const float *key_bias);
/** h += down(act(up(from))), from [n, width]. */
void encoder_feed_forward(const rung_exec *e, const encoder_config *c, const encoder_block *b, const encoder_scratch *s,
                          const float *from, size_t n);
#endif
