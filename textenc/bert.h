/* textenc/bert.h - BERT's encoder. Source: Devlin et al. 2018; transformers BertModel.forward (no pooler). */
#ifndef RUNG_BERT_H
#define RUNG_BERT_H
#include "assets/model.h"
#include "textenc/encoder.h"

typedef struct bert bert;

/** The model's "text_encoder". RUNG_EFORMAT, RUNG_ESHAPE, RUNG_ENOMEM. `be` must outlive it. */
rung_status bert_open(bert **out, rung_model *m, rung_backend *be, rung_store store, rung_err *err);
void bert_close(bert **b);
const encoder_config *bert_config(const bert *b);

/**
 * out   f32 [n, width], host memory: last hidden state
 * ids   [n] each < vocab, all of token type 0; n <= positions
 * mask  [n] 1: a real token, 0: padding that no token attends to; its own row is computed all the same
 * RUNG_ENOMEM, RUNG_EDEVICE.
 */
rung_status bert_run(const bert *b, float *out, const int32_t *ids, const unsigned char *mask, size_t n, rung_err *err);
#endif
