/* assets/ldm.h - one .safetensors in the original ldm layout (SD1.x, SD2.x): what it holds, found from names and
 * shapes, and the same under diffusers' names with diffusers' configs. Internal to assets/. Source:
 * diffusers.loaders.single_file_utils (convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint,
 * convert_ldm_clip_checkpoint, convert_open_clip_checkpoint).
 */
#ifndef RUNG_LDM_H
#define RUNG_LDM_H
#include "assets/json.h"
#include "assets/weights_view.h"

enum { LDM_LEVELS = 8 };

typedef struct {
    size_t in, out;           /* latent channels; in is more for inpainting models */
    size_t levels, layers;    /* residual blocks in each level on the way down */
    size_t ch[LDM_LEVELS];    /* from the highest resolution down */
    size_t depth[LDM_LEVELS]; /* transformer blocks in an attention, 0: this level has none */
    size_t mid_depth;
    size_t context; /* width of the text embeddings */
    bool linear;    /* proj_in and proj_out are matrices, not 1x1 convolutions */
} ldm_unet;

typedef struct {
    size_t in, out, latent, levels, layers, ch[LDM_LEVELS];
    bool quant, post_quant, attention;
} ldm_vae;

typedef struct {
    size_t vocab, positions, width, intermediate;
    size_t layers; /* of the file; the last one of an OpenCLIP tower is left out, see ldm_inspect */
} ldm_text;

typedef struct {
    bool has_unet, has_vae, has_text;
    bool sd2; /* OpenCLIP text encoder, heads 64 wide, v-prediction; else CLIP-L, 8 heads, epsilon */
    ldm_unet unet;
    ldm_vae vae;
    ldm_text text;
} ldm_layout;

/** Recognises the layout and takes the sizes from the tensors' shapes. RUNG_EFORMAT: what is not understood. */
rung_status ldm_inspect(ldm_layout *l, rung_weights *file, rung_err *err);

/** A part's config as diffusers would have it, ("unet", "vae", "text_encoder", "tokenizer", "scheduler"). Free with
 *  cJSON_Delete. RUNG_ENOMEM. */
rung_status ldm_config(const ldm_layout *l, const char *part, cJSON **out, rung_err *err);

/** Renames a part's tensors; arg: const ldm_layout *. */
weights_map_fn ldm_map_unet, ldm_map_vae, ldm_map_text;
#endif
