/* assets/lora.h - low-rank adaptations, merged into the weights when a model is loaded: W += weight * alpha / rank * up
 * down.
 *
 * Key forms: kohya ("lora_unet_..._to_q.lora_down.weight", with .alpha), PEFT ("unet....to_q.lora_A.weight"), and older
 * diffusers
 * ("....to_q.lora.down.weight", "....processor.to_q_lora.down.weight"). Linear and convolution weights.
 */
#ifndef RUNG_LORA_H
#define RUNG_LORA_H
#include "assets/weights.h"

typedef struct rung_lora rung_lora;

/** RUNG_EIO, RUNG_EFORMAT (no pair of up and down in it, other kinds such as LoHa), RUNG_ENOMEM. */
rung_status rung_lora_open(rung_lora **out, const char *path, float weight, rung_err *err);
void rung_lora_close(rung_lora **l);
/** Of the file and its weight: for telling whether two processes have the same one. */
uint64_t rung_lora_hash(const rung_lora *l);

/** Merges what concerns `part` ("unet", "transformer", "text_encoder"). A merged tensor keeps its dtype; 6- and 8-bit
 * ones become F16. RUNG_ESHAPE names a pair that does not fit its weight; RUNG_ENOMEM. */
rung_status rung_lora_apply(rung_lora *l, rung_weights *w, const char *part, rung_err *err);

/** RUNG_EFORMAT naming up to three pairs for which no weight was found in the parts that rung_lora_apply has seen. */
rung_status rung_lora_check_used(const rung_lora *l, rung_err *err);
#endif
