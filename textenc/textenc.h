/* textenc/textenc.h - prompt -> tokens -> embeddings. */
#ifndef RUNG_TEXTENC_H
#define RUNG_TEXTENC_H
#include "assets/model.h"
#include "kernels/backend.h"

typedef struct rung_textenc rung_textenc; /* tokenizer and encoder; opaque */

/* What a denoiser's cross-attention reads. Free with rung_embeds_free. */
typedef struct {
    size_t n, d;
    float *data;         /* f32 [n, d] */
    unsigned char *mask; /* [n], 1: a real row, 0: padding that attention must not see; NULL: all real (CLIP) */
} rung_embeds;

typedef struct {
    int clip_skip; /* 0: the model's own; n, 1 to layers + 1: state n - 1 layers before the last, then the final norm:
                      1 is the last layer's; CLIP only, 0 and 1 for BERT */
    bool literal;  /* the prompt as it stands, cut at the encoder's length: no weights, no chunks */
    size_t min_n;  /* at least so many rows: the longer of prompt and negative prompt decides; 0: none */
} rung_text_options;

/** The model's "text_encoder" and "tokenizer". Weights stay mapped inside. RUNG_EFORMAT, RUNG_ESHAPE, RUNG_ENOMEM. */
rung_status rung_textenc_open(rung_textenc **out, rung_model *m, rung_backend *be, rung_store store, rung_err *err);
void rung_textenc_close(rung_textenc **t);

/**
 * Embeddings of one prompt (UTF-8; invalid bytes become U+FFFD). CLIP: 77 rows for each chunk of 75 tokens,
 * weighted as A1111 does unless literal; fewer than min_n rows are filled with chunks of the empty prompt. BERT:
 * [CLS] tokens [SEP], as many rows as tokens, cut at the model's length; fewer than min_n are padded, mask 0.
 * RUNG_EARG (prompt too long, clip_skip the model does not have), RUNG_ENOMEM, RUNG_EDEVICE.
 * Checked against transformers CLIPTextModel / BertModel.
 */
rung_status rung_textenc_encode(rung_textenc *t, const char *prompt, const rung_text_options *o, rung_embeds *out,
                                rung_err *err);
void rung_embeds_free(rung_embeds *e);

/** Token ids as the tokenizer gives them, special tokens included, no cut and no padding; for tests and -v. */
rung_status rung_textenc_tokens(const rung_textenc *t, const char *prompt, int32_t **ids, size_t *n, rung_err *err);
#endif
