/* textenc/encoder.c - range-checked reading of an encoder's config; loading and running the parts of a layer. */
#include "textenc/encoder.h"

#include <math.h>
#include <string.h>

/* Larger than any text encoder that exists, small enough that no product of two of them wraps. */
enum { MAX_WIDTH = 1 << 16, MAX_INNER = 1 << 18, MAX_LAYERS = 1024, MAX_VOCAB = 1 << 24, MAX_POSITIONS = 1 << 16 };

/* transformers' names in activations.ACT2FN */
static bool find_act(const char *name, rung_act *out) {
    static const struct {
        const char *name;
        rung_act act;
    } acts[] = {{"quick_gelu", RUNG_ACT_QUICK_GELU},
                {"gelu", RUNG_ACT_GELU},
                {"gelu_python", RUNG_ACT_GELU},
                {"gelu_new", RUNG_ACT_GELU_TANH},
                {"gelu_fast", RUNG_ACT_GELU_TANH},
                {"gelu_pytorch_tanh", RUNG_ACT_GELU_TANH},
                {"relu", RUNG_ACT_RELU},
                {"silu", RUNG_ACT_SILU},
                {"swish", RUNG_ACT_SILU}};
    for (size_t i = 0; i < sizeof acts / sizeof *acts; i++) {
        if (strcmp(acts[i].name, name) != 0) continue;
        *out = acts[i].act;
        return true;
    }
    return false;
}

rung_status encoder_config_read(encoder_config *out, rung_config *c, const encoder_config *def, const char *act) {
    *out = (encoder_config){
        .vocab = (size_t)cfg_int(c, "vocab_size", (long)def->vocab, 1, MAX_VOCAB),
        .width = (size_t)cfg_int(c, "hidden_size", (long)def->width, 1, MAX_WIDTH),
        .heads = (size_t)cfg_int(c, "num_attention_heads", (long)def->heads, 1, MAX_WIDTH),
        .layers = (size_t)cfg_int(c, "num_hidden_layers", (long)def->layers, 1, MAX_LAYERS),
        .inner = (size_t)cfg_int(c, "intermediate_size", (long)def->inner, 1, MAX_INNER),
        .positions = (size_t)cfg_int(c, "max_position_embeddings", (long)def->positions, 3, MAX_POSITIONS),
        .eps = (float)cfg_real(c, "layer_norm_eps", def->eps, 0, 1),
    };
    const char *name = cfg_string(c, "hidden_act", act);
    if (!c->status && !find_act(name, &out->act))
        cfg_refuse(c, "hidden_act '%.60s' is not supported: wanted gelu, quick_gelu, gelu_new, relu or silu", name);
    if (!c->status && out->width % out->heads != 0)
        cfg_refuse(c, "%zu heads do not divide hidden_size %zu", out->heads, out->width);
    return c->status;
}

encoder_norm encoder_load_norm(rung_loader *l, size_t width, const char *prefix, const char *name) {
    return (encoder_norm){load_vector(l, width, "%s%s.weight", prefix, name),
                          load_vector(l, width, "%s%s.bias", prefix, name)};
}

encoder_block encoder_load_block(rung_loader *l, const encoder_config *c, const char *prefix, const encoder_names *n) {
    const char *const qkv[] = {n->q, n->k, n->v};
    const size_t d = c->width;
    encoder_block b;
    b.qkv = load_linear_stack(l, d, d, LOAD_BIAS, prefix, qkv, 3);
    b.out = load_linear(l, d, d, LOAD_BIAS, "%s%s", prefix, n->out);
    b.up = load_linear(l, c->inner, d, LOAD_BIAS, "%s%s", prefix, n->up);
    b.down = load_linear(l, d, c->inner, LOAD_BIAS, "%s%s", prefix, n->down);
    b.norm1 = encoder_load_norm(l, d, prefix, n->norm1);
    b.norm2 = encoder_load_norm(l, d, prefix, n->norm2);
    return b;
}

encoder_scratch encoder_scratch_alloc(const rung_exec *e, const encoder_config *c, size_t n) {
    encoder_scratch s;
    s.h = exec_floats(e, n, c->width);
    s.x = exec_floats(e, n, c->width);
    s.qkv = exec_floats(e, n, 3 * c->width);
    s.inner = exec_floats(e, n, c->inner);
    return s;
}

void encoder_apply_norm(const rung_exec *e, const encoder_config *c, float *y, const float *x, const encoder_norm *w,
                        size_t n) {
    op_layer_norm(e, y, x, n, c->width, w->w, w->b, c->eps, NULL, NULL, 0, 0);
}

void encoder_attention(const rung_exec *e, const encoder_config *c, const encoder_scratch *s, size_t n, bool causal,
                       const float *key_bias) {
    if (!exec_live(e)) return; /* no pointers to do sums on */
    const size_t d = c->width, head = d / c->heads;
    const rung_attention_args a = {.batch = 1,
                                   .heads = c->heads,
                                   .d = head,
                                   .lq = n,
                                   .lk = n,
                                   .q = s->qkv,
                                   .k = s->qkv + d,
                                   .v = s->qkv + 2 * d,
                                   .o = s->x,
                                   .q_row = 3 * d,
                                   .k_row = 3 * d,
                                   .v_row = 3 * d,
                                   .o_row = d,
                                   .scale = 1 / sqrtf((float)head),
                                   .key_bias = key_bias,
                                   .causal = causal};
    op_attention(e, &a);
}

void encoder_feed_forward(const rung_exec *e, const encoder_config *c, const encoder_block *b, const encoder_scratch *s,
                          const float *from, size_t n) {
    const rung_epilogue act = {.act = c->act}, add = {.residual = s->h};
    op_linear(e, s->inner, from, c->width, n, b->up, &act);
    op_linear(e, s->h, s->inner, c->inner, n, b->down, &add);
}
