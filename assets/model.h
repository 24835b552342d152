/* assets/model.h - a checkpoint on disk and its parts: a directory in diffusers layout, or one .safetensors in the
 * original ldm layout (SD1.x, SD2.x), for which the configs are built in. */
#ifndef RUNG_MODEL_H
#define RUNG_MODEL_H
#include <stdbool.h>
#include <stddef.h>

#include "assets/json.h"
#include "assets/weights.h"

typedef struct rung_model rung_model;

/** RUNG_EIO, RUNG_EFORMAT (says what was found), RUNG_ENOMEM. */
rung_status rung_model_open(rung_model **out, const char *path, rung_err *err);
void rung_model_close(rung_model **m);

const char *rung_model_path(const rung_model *m);
const char *rung_model_pipeline(const rung_model *m); /* "_class_name" of model_index.json; "StableDiffusionPipeline" */
bool rung_model_is_ldm(const rung_model *m);

/** Is component `part` ("unet", "transformer", "vae", "text_encoder", "tokenizer", "scheduler") there? [null, null] is
 *  not. `class_name` (may be NULL): the class that model_index.json gives, e.g. "UNet2DConditionModel". */
bool rung_model_has(const rung_model *m, const char *part, const char **class_name);

/** model_index.json itself, for keys such as "default_steps". The ldm layout has none: every key is absent. */
rung_config rung_model_index(const rung_model *m, rung_err *err);

/** The part's config; `c->root` belongs to the model. c->err and c->status are set up for the cfg_* readers. */
rung_status rung_model_config(rung_model *m, const char *part, rung_config *c, rung_err *err);

/** The part's tensors, under diffusers / transformers-5 names (no "text_model." in front). The caller closes them;
 *  they must outlive the networks that are built over them. */
rung_status rung_model_weights(rung_model *m, const char *part, rung_weights **out, rung_err *err);

/** A LoRA file to be merged into the tensors that rung_model_weights hands out from now on (assets/lora.h). */
rung_status rung_model_add_lora(rung_model *m, const char *path, float weight, rung_err *err);
/** Once every part is open: RUNG_EFORMAT names adapted weights that the model does not have. */
rung_status rung_model_check_loras(const rung_model *m, rung_err *err);

/** What two processes compare to know that they have the same model: the LoRA files and their weights. */
uint64_t rung_model_lora_hash(const rung_model *m);
/** The same of a part: its config, the weights' files (rung_weights_hash), a tokenizer's files; mixed into *h. */
rung_status rung_model_part_hash(rung_model *m, const char *part, uint64_t *h, rung_err *err);

/** Text of a file beside the weights, e.g. ("tokenizer", "vocab.json"); *text = NULL when there is none. The ldm
 *  layout gives tokenizer_config.json and merges.txt, the built-in CLIP vocabulary. Free with free(). */
rung_status rung_model_text(rung_model *m, const char *part, const char *file, char **text, size_t *bytes,
                            rung_err *err);
#endif
