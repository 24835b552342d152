#define _POSIX_C_SOURCE 200809L /* strdup, S_ISDIR */
#include "assets/model.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "assets/clip_merges.h"
#include "assets/ldm.h"
#include "assets/lora.h"
#include "assets/weights_view.h"
#include "kernels/base/hash.h"

enum { PARTS = 8, MAX_TEXT = 64 << 20 };

/* What there is to know of a part: where its config lies, and how its tensors are seen. */
struct part {
    const char *name, *config_file;
    weights_map_fn *map, *ldm_map;
    const char *const *unused;
};

static weights_map_fn map_vae, map_text;

/* Tensors that checkpoints carry and text-to-image does not read: the way into the VAE, other heads of the text
 * encoders, buffers that hold 0, 1, 2 ... */
static const char *const vae_unused[] = {"encoder.*", "quant_conv.*", "loss.*", NULL};
static const char *const text_unused[] = {"pooler.*",
                                          "text_projection.weight",
                                          "logit_scale",
                                          "vision_model.*",
                                          "visual_projection.*",
                                          "cls.*",
                                          "*position_ids",
                                          "*token_type_ids",
                                          "attn_mask",
                                          "encoder.embed_tokens.weight", /* T5: the same as shared.weight */
                                          "decoder.*",
                                          "lm_head.*",
                                          NULL};

static const struct part parts[PARTS] = {
    {"unet", "config.json", NULL, ldm_map_unet, NULL},
    {"transformer", "config.json", NULL, NULL, NULL},
    {"vae", "config.json", map_vae, ldm_map_vae, vae_unused},
    {"text_encoder", "config.json", map_text, ldm_map_text, text_unused},
    {"text_encoder_2", "config.json", map_text, NULL, text_unused},
    {"tokenizer", "tokenizer_config.json", NULL, NULL, NULL},
    {"tokenizer_2", "tokenizer_config.json", NULL, NULL, NULL},
    {"scheduler", "scheduler_config.json", NULL, NULL, NULL},
};

struct rung_model {
    char *path;
    cJSON *index;   /* model_index.json; NULL in the ldm layout */
    ldm_layout ldm; /* of the ldm layout */
    struct {
        cJSON *root;
        char *where;
    } configs[PARTS]; /* read when first asked for */
    rung_lora **loras;
    size_t n_loras;
};

static rung_status no_memory(const rung_model *m, rung_err *err) {
    return rung_fail(err, RUNG_ENOMEM, "%s: out of memory", m->path ? m->path : "model");
}

static char *join(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* printf into fresh memory; NULL without. */
static char *join(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    const int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *out = n < 0 ? NULL : malloc((size_t)n + 1);
    if (!out) return NULL;
    va_start(ap, fmt);
    vsnprintf(out, (size_t)n + 1, fmt, ap);
    va_end(ap);
    return out;
}

static bool is_file(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && !S_ISDIR(st.st_mode);
}

static rung_status find_part(const rung_model *m, const char *name, size_t *at, rung_err *err) {
    for (*at = 0; *at < PARTS; ++*at)
        if (strcmp(parts[*at].name, name) == 0) return RUNG_OK;
    return rung_fail(err, RUNG_EARG, "%s: no part is called \"%s\"", m->path, name);
}

/* ---- opening ---- */

static rung_status open_directory(rung_model *m, rung_err *err) {
    rung_status st = RUNG_OK;
    char *path = join("%s/model_index.json", m->path);
    if (!path) return no_memory(m, err);
    if (!is_file(path)) {
        st = rung_fail(err, RUNG_EFORMAT,
                       "%s: has no model_index.json: wanted a directory in diffusers layout "
                       "(model_index.json, unet/ or transformer/, vae/, text_encoder/, ...) or one .safetensors file",
                       m->path);
        goto done;
    }
    RUNG_TRY_GOTO(st, done, rung_json_load(&m->index, path, err));
    if (!cJSON_IsString(cJSON_GetObjectItemCaseSensitive(m->index, "_class_name")))
        st = rung_fail(err, RUNG_EFORMAT, "%s: \"_class_name\" is missing, wanted the pipeline's name", path);
done:
    free(path);
    return st;
}

static bool ends_in(const char *s, const char *ending) {
    const size_t n = strlen(s), k = strlen(ending);
    return n >= k && strcmp(s + n - k, ending) == 0;
}

static rung_status open_single(rung_model *m, rung_err *err) {
    static const char *const pickles[] = {".ckpt", ".bin", ".pt", ".pth"};
    for (size_t i = 0; i < sizeof pickles / sizeof *pickles; i++)
        if (ends_in(m->path, pickles[i]))
            return rung_fail(err, RUNG_EFORMAT,
                             "%s: pickle files are not read, for they can run code: convert it to "
                             ".safetensors",
                             m->path);
    if (!ends_in(m->path, ".safetensors"))
        return rung_fail(err, RUNG_EFORMAT, "%s: wanted a .safetensors file or a directory in diffusers layout",
                         m->path);
    rung_weights *file;
    RUNG_TRY(rung_weights_open(&file, m->path, err));
    const rung_status st = ldm_inspect(&m->ldm, file, err);
    rung_weights_close(&file);
    return st;
}

rung_status rung_model_open(rung_model **out, const char *path, rung_err *err) {
    *out = NULL;
    rung_status st = RUNG_OK;
    struct stat info;
    rung_model *m = calloc(1, sizeof *m);
    if (!m) return rung_fail(err, RUNG_ENOMEM, "%s: out of memory", path);
    m->path = strdup(path);
    if (!m->path) {
        st = no_memory(m, err);
        goto done;
    }
    if (stat(path, &info) != 0) {
        st = rung_fail(err, RUNG_EIO, "%s: cannot be read: %s", path, strerror(errno));
        goto done;
    }
    RUNG_TRY_GOTO(st, done, S_ISDIR(info.st_mode) ? open_directory(m, err) : open_single(m, err));
    *out = m;
    m = NULL;
done:
    rung_model_close(&m);
    return st;
}

void rung_model_close(rung_model **mp) {
    rung_model *m = *mp;
    *mp = NULL;
    if (!m) return;
    for (size_t i = 0; i < PARTS; i++) {
        cJSON_Delete(m->configs[i].root);
        free(m->configs[i].where);
    }
    for (size_t i = 0; i < m->n_loras; i++) rung_lora_close(&m->loras[i]);
    free(m->loras);
    cJSON_Delete(m->index);
    free(m->path);
    free(m);
}

const char *rung_model_path(const rung_model *m) { return m->path; }
bool rung_model_is_ldm(const rung_model *m) { return !m->index; }

const char *rung_model_pipeline(const rung_model *m) {
    if (!m->index) return "StableDiffusionPipeline";
    return cJSON_GetObjectItemCaseSensitive(m->index, "_class_name")->valuestring;
}

/* ---- parts ---- */

static bool ldm_has(const ldm_layout *l, const char *part, const char **class_name) {
    const struct {
        const char *part, *class_name;
        bool there;
    } rows[] = {{"unet", "UNet2DConditionModel", l->has_unet},
                {"vae", "AutoencoderKL", l->has_vae},
                {"text_encoder", "CLIPTextModel", l->has_text},
                {"tokenizer", "CLIPTokenizer", l->has_text},
                {"scheduler", l->sd2 ? "DDIMScheduler" : "PNDMScheduler", true}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (strcmp(rows[i].part, part) != 0 || !rows[i].there) continue;
        if (class_name) *class_name = rows[i].class_name;
        return true;
    }
    return false;
}

bool rung_model_has(const rung_model *m, const char *part, const char **class_name) {
    if (!m->index) return ldm_has(&m->ldm, part, class_name);
    /* [library, class]; [null, null] in a pipeline that was saved without the part */
    const cJSON *pair = cJSON_GetObjectItemCaseSensitive(m->index, part);
    if (!cJSON_IsArray(pair) || cJSON_GetArraySize(pair) != 2) return false;
    const cJSON *name = pair->child->next;
    if (!cJSON_IsString(name)) return false;
    if (class_name) *class_name = name->valuestring;
    return true;
}

static rung_status need_part(const rung_model *m, const char *part, rung_err *err) {
    if (rung_model_has(m, part, NULL)) return RUNG_OK;
    return rung_fail(err, RUNG_EFORMAT, "%s: the model has no %s", m->path, part);
}

static rung_status read_config(rung_model *m, size_t at, rung_err *err) {
    const struct part *p = &parts[at];
    m->configs[at].where = m->index ? join("%s/%s/%s", m->path, p->name, p->config_file) : strdup(m->path);
    char *where = m->configs[at].where;
    if (!where) return no_memory(m, err);
    if (!m->index) return ldm_config(&m->ldm, p->name, &m->configs[at].root, err);
    RUNG_TRY(rung_json_load(&m->configs[at].root, where, err));
    if (cJSON_IsObject(m->configs[at].root)) return RUNG_OK;
    return rung_fail(err, RUNG_EFORMAT, "%s: is no JSON object", where);
}

rung_config rung_model_index(const rung_model *m, rung_err *err) {
    return (rung_config){.root = m->index, .where = "model_index.json", .err = err};
}

rung_status rung_model_config(rung_model *m, const char *part, rung_config *c, rung_err *err) {
    size_t at;
    *c = (rung_config){.err = err};
    RUNG_TRY(find_part(m, part, &at, err));
    RUNG_TRY(need_part(m, part, err));
    if (!m->configs[at].root) {
        const rung_status st = read_config(m, at, err);
        if (st) { /* so that the next call tries again */
            cJSON_Delete(m->configs[at].root);
            free(m->configs[at].where);
            m->configs[at].root = NULL;
            m->configs[at].where = NULL;
            return st;
        }
    }
    c->root = m->configs[at].root;
    c->where = m->configs[at].where;
    return RUNG_OK;
}

/* ---- weights ---- */

/* Old VAE checkpoints call the attention's matrices query, key, value and proj_attn. */
static rung_status map_vae(rung_weights *w, const char *name, const rung_tensor *t, void *arg, rung_err *err) {
    static const char *const pairs[][2] = {
        {".query.", ".to_q."}, {".key.", ".to_k."}, {".value.", ".to_v."}, {".proj_attn.", ".to_out.0."}};
    (void)arg;
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        const char *found = strstr(name, pairs[i][0]);
        if (!found || !strstr(name, "attentions.")) continue;
        char out[512];
        snprintf(out, sizeof out, "%.*s%s%s", (int)(found - name), name, pairs[i][1], found + strlen(pairs[i][0]));
        return weights_add(w, out, t, err);
    }
    return weights_add(w, name, t, err);
}

/* transformers 4 writes CLIP with "text_model." in front and 5 without; BERT with a head has "bert." in front, and
 * very old BERT calls the norm's weight and bias gamma and beta. */
static rung_status map_text(rung_weights *w, const char *name, const rung_tensor *t, void *arg, rung_err *err) {
    static const char *const prefixes[] = {"text_model.", "bert."};
    (void)arg;
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
        const size_t n = strlen(prefixes[i]);
        if (strncmp(name, prefixes[i], n) == 0) {
            name += n;
            break;
        }
    }
    const bool gamma = ends_in(name, ".LayerNorm.gamma"), beta = ends_in(name, ".LayerNorm.beta");
    if (!gamma && !beta) return weights_add(w, name, t, err);
    char out[512];
    snprintf(out, sizeof out, "%.*s%s", (int)(strrchr(name, '.') - name), name, gamma ? ".weight" : ".bias");
    return weights_add(w, out, t, err);
}

/* The weights file of a folder, in the order in which it is preferred; *out = NULL when there is none. */
static rung_status find_weights(const rung_model *m, const char *part, char **out, rung_err *err) {
    static const char *const variants[] = {"", ".fp16", ".bf16"};
    static const char *const stems[] = {"diffusion_pytorch_model", "model"};
    *out = NULL;
    for (size_t v = 0; v < sizeof variants / sizeof *variants; v++) {
        for (int i = 0; i < 4; i++) { /* each stem as one file, then as shards */
            const char *stem = stems[i % 2];
            char *path = i < 2 ? join("%s/%s/%s%s.safetensors", m->path, part, stem, variants[v])
                               : join("%s/%s/%s.safetensors.index%s.json", m->path, part, stem, variants[v]);
            if (!path) return no_memory(m, err);
            if (is_file(path)) {
                *out = path;
                return RUNG_OK;
            }
            free(path);
        }
    }
    return RUNG_OK;
}

static rung_status refuse_weights(const rung_model *m, const char *part, rung_err *err) {
    static const char *const pickles[] = {"diffusion_pytorch_model.bin", "pytorch_model.bin"};
    for (size_t i = 0; i < sizeof pickles / sizeof *pickles; i++) {
        char *path = join("%s/%s/%s", m->path, part, pickles[i]);
        if (!path) return no_memory(m, err);
        const bool there = is_file(path);
        free(path);
        if (there)
            return rung_fail(err, RUNG_EFORMAT,
                             "%s/%s: holds %s only: pickle files are not read, for they can run "
                             "code: convert it to .safetensors",
                             m->path, part, pickles[i]);
    }
    return rung_fail(err, RUNG_EFORMAT,
                     "%s/%s: has no weights: wanted diffusion_pytorch_model.safetensors or "
                     "model.safetensors (or a .safetensors.index.json)",
                     m->path, part);
}

/* The part's tensors as the files have them. */
static rung_status open_weights(rung_model *m, const char *part, rung_weights **out, rung_err *err) {
    size_t at;
    RUNG_TRY(find_part(m, part, &at, err));
    RUNG_TRY(need_part(m, part, err));
    weights_view view = {
        .map = m->index ? parts[at].map : parts[at].ldm_map, .arg = &m->ldm, .unused = parts[at].unused};
    if (!m->index) {
        if (!view.map) return rung_fail(err, RUNG_EARG, "%s: %s has no weights", m->path, part);
        return weights_open_view(out, m->path, &view, err);
    }
    char *path;
    RUNG_TRY(find_weights(m, part, &path, err));
    if (!path) return refuse_weights(m, part, err);
    const rung_status st = weights_open_view(out, path, &view, err);
    free(path);
    return st;
}

rung_status rung_model_weights(rung_model *m, const char *part, rung_weights **out, rung_err *err) {
    *out = NULL;
    rung_status st = open_weights(m, part, out, err);
    for (size_t i = 0; !st && i < m->n_loras; i++) st = rung_lora_apply(m->loras[i], *out, part, err);
    if (st) rung_weights_close(out);
    return st;
}

rung_status rung_model_add_lora(rung_model *m, const char *path, float weight, rung_err *err) {
    rung_lora **grown = realloc(m->loras, (m->n_loras + 1) * sizeof *grown);
    if (!grown) return no_memory(m, err);
    m->loras = grown;
    RUNG_TRY(rung_lora_open(&m->loras[m->n_loras], path, weight, err));
    m->n_loras++;
    return RUNG_OK;
}

rung_status rung_model_check_loras(const rung_model *m, rung_err *err) {
    for (size_t i = 0; i < m->n_loras; i++) RUNG_TRY(rung_lora_check_used(m->loras[i], err));
    return RUNG_OK;
}

/* ---- text files ---- */

static rung_status ldm_text_file(rung_model *m, const char *part, const char *file, char **text, size_t *bytes,
                                 rung_err *err) {
    if (strcmp(part, "tokenizer") != 0) return RUNG_OK;
    if (strcmp(file, "tokenizer_config.json") == 0) {
        rung_config c;
        RUNG_TRY(rung_model_config(m, part, &c, err));
        char *printed = cJSON_Print(c.root);
        *text = printed ? strdup(printed) : NULL;
        cJSON_free(printed);
        if (!*text) return no_memory(m, err);
        *bytes = strlen(*text);
    } else if (strcmp(file, "merges.txt") == 0) {
        const char *merges = clip_merges(bytes);
        *text = malloc(*bytes + 1);
        if (!*text) return no_memory(m, err);
        memcpy(*text, merges, *bytes);
        (*text)[*bytes] = 0;
    }
    return RUNG_OK;
}

rung_status rung_model_text(rung_model *m, const char *part, const char *file, char **text, size_t *bytes,
                            rung_err *err) {
    *text = NULL;
    *bytes = 0;
    if (!m->index) return ldm_text_file(m, part, file, text, bytes, err);
    char *path = join("%s/%s/%s", m->path, part, file);
    if (!path) return no_memory(m, err);
    const rung_status st = is_file(path) ? rung_file_read(path, MAX_TEXT, text, bytes, err) : RUNG_OK;
    free(path);
    return st;
}

/* ---- the same model? ---- */

uint64_t rung_model_lora_hash(const rung_model *m) {
    uint64_t h = m->n_loras;
    for (size_t i = 0; i < m->n_loras; i++) h = rung_hash_word(h, rung_lora_hash(m->loras[i]));
    return h;
}

static rung_status hash_tokenizer(rung_model *m, uint64_t *h, rung_err *err) {
    static const char *const files[] = {"tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt",
                                        "vocab.txt"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char *text;
        size_t bytes;
        RUNG_TRY(rung_model_text(m, "tokenizer", files[i], &text, &bytes, err));
        if (text) *h = rung_hash(*h, text, bytes);
        free(text);
    }
    return RUNG_OK;
}

rung_status rung_model_part_hash(rung_model *m, const char *part, uint64_t *h, rung_err *err) {
    rung_config c;
    rung_weights *w;
    if (strcmp(part, "tokenizer") == 0) return hash_tokenizer(m, h, err);
    RUNG_TRY(rung_model_config(m, part, &c, err));
    RUNG_TRY(open_weights(m, part, &w, err));
    char *text = cJSON_PrintUnformatted(c.root);
    *h = rung_hash_word(rung_hash(*h, text ? text : "", text ? strlen(text) : 0), rung_weights_hash(w));
    cJSON_free(text);
    rung_weights_close(&w);
    return RUNG_OK;
}
