/* textenc/clip_text.h - CLIP's text encoder. Source: Radford et al. 2021; transformers CLIPTextModel.forward. */
#ifndef RUNG_CLIP_TEXT_H
#define RUNG_CLIP_TEXT_H
#include "assets/model.h"
#include "textenc/encoder.h"

typedef struct clip_text clip_text;

/** The model's "text_encoder". RUNG_EFORMAT, RUNG_ESHAPE, RUNG_ENOMEM. The model's config and `be` must outlive it. */
rung_status clip_text_open(clip_text **out, rung_model *m, rung_backend *be, rung_store store, rung_err *err);
void clip_text_close(clip_text **t);
const encoder_config *clip_text_config(const clip_text *t);

/**
 * out  f32 [n, width], host memory: the state after the first `layers` layers, through the final norm
 * ids  [n] each < vocab; n <= positions; layers <= the config's
 * RUNG_ENOMEM, RUNG_EDEVICE.
 */
rung_status clip_text_run(const clip_text *t, float *out, const int32_t *ids, size_t n, size_t layers, rung_err *err);
#endif
