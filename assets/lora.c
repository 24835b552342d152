#define _POSIX_C_SOURCE 200809L /* strdup */
#include "assets/lora.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "assets/safetensors.h"
#include "assets/weights_view.h"
#include "kernels/base/hash.h"
#include "kernels/base/size.h"

enum { PARTS = 3 };
static const char *const part_names[PARTS] = {"unet", "transformer", "text_encoder"};

/* One adapted weight. `key` is its name without part, in kohya's spelling: dots and underscores are one. */
struct pair {
    char *key; /* owned */
    int part;
    const rung_tensor *down, *up, *alpha;
    bool used;
};

struct rung_lora {
    char *path;
    rung_safetensors *file;
    float weight;
    struct pair *pairs;
    size_t count;
    bool seen[PARTS]; /* parts that were merged */
};

static rung_status no_memory(const rung_lora *l, rung_err *err) {
    return rung_fail(err, RUNG_ENOMEM, "%s: out of memory", l->path ? l->path : "LoRA");
}

typedef enum { DOWN, UP, ALPHA, NOTHING } role;

/* What a tensor of the file is, and how long the name of its weight is. */
static role role_of(const char *name, size_t *stem) {
    static const struct {
        const char *ending;
        role role;
    } endings[] = {
        {".lora_down.weight", DOWN},    {".lora_up.weight", UP},     {".lora_A.weight", DOWN},
        {".lora_B.weight", UP},         {".lora.down.weight", DOWN}, {".lora.up.weight", UP},
        {"_lora.down.weight", DOWN},    {"_lora.up.weight", UP},     {".lora_A.default.weight", DOWN},
        {".lora_B.default.weight", UP}, {".alpha", ALPHA},
    };
    const size_t n = strlen(name);
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        const size_t k = strlen(endings[i].ending);
        if (n > k && strcmp(name + n - k, endings[i].ending) == 0) {
            *stem = n - k;
            return endings[i].role;
        }
    }
    return NOTHING;
}

/* Drops `word` from the front of s. */
static bool drop_prefix(const char **s, const char *word) {
    const size_t n = strlen(word);
    if (strncmp(*s, word, n) != 0) return false;
    *s += n;
    return true;
}

static void remove_word(char *s, const char *word) {
    char *at = strstr(s, word);
    if (at) memmove(at, at + strlen(word), strlen(at + strlen(word)) + 1);
}

/* "unet.up_blocks.1.x.to_q", "lora_unet_up_blocks_1_x_to_q" -> part 0, "up_blocks_1_x_to_q"; NULL without memory. */
static char *key_of(const char *stem, size_t n, int *part) {
    static const struct {
        const char *prefix;
        int part;
    } prefixes[] = {{"lora_unet_", 0},   {"unet_", 0},     {"base_model_model_", 0}, {"lora_transformer_", 1},
                    {"transformer_", 1}, {"lora_te1_", 2}, {"lora_te_", 2},          {"text_encoder_", 2}};
    char *flat = strndup(stem, n);
    if (!flat) return NULL;
    for (char *s = flat; *s; s++)
        if (*s == '.') *s = '_';
    const char *rest = flat;
    *part = 0;
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
        if (!drop_prefix(&rest, prefixes[i].prefix)) continue;
        *part = prefixes[i].part;
        break;
    }
    drop_prefix(&rest, "text_model_");
    char *key = strdup(rest);
    free(flat);
    if (key) remove_word(key, "processor_");                        /* older diffusers: attn1.processor.to_q_lora */
    if (key && strstr(key, "to_out") && !strstr(key, "to_out_0")) { /* and to_out_lora for to_out.0 */
        char *longer = realloc(key, strlen(key) + 3);
        if (!longer) free(key);
        key = longer;
        if (key) strcat(key, "_0");
    }
    return key;
}

static struct pair *pair_of(rung_lora *l, int part, const char *key) {
    for (size_t i = 0; i < l->count; i++)
        if (l->pairs[i].part == part && strcmp(l->pairs[i].key, key) == 0) return &l->pairs[i];
    return NULL;
}

static rung_status add_tensor(rung_lora *l, const char *name, const rung_tensor *t, rung_err *err) {
    size_t stem;
    int part;
    const role r = role_of(name, &stem);
    if (r == NOTHING)
        return rung_fail(err, RUNG_EFORMAT, "%s: tensor %s belongs to no LoRA pair (LoHa, LoKr and DoRA are not read)",
                         l->path, name);
    char *key = key_of(name, stem, &part);
    if (!key) return no_memory(l, err);
    struct pair *p = pair_of(l, part, key);
    if (p) {
        free(key);
    } else { /* `pairs` has room for every tensor of the file */
        p = &l->pairs[l->count++];
        *p = (struct pair){.key = key, .part = part};
    }
    *(r == DOWN ? &p->down : r == UP ? &p->up : &p->alpha) = t;
    return RUNG_OK;
}

static rung_status check_pairs(const rung_lora *l, rung_err *err) {
    if (l->count == 0) return rung_fail(err, RUNG_EFORMAT, "%s: there is no LoRA in it", l->path);
    for (size_t i = 0; i < l->count; i++) {
        const struct pair *p = &l->pairs[i];
        char a[100], b[100];
        if (!p->down || !p->up)
            return rung_fail(err, RUNG_EFORMAT, "%s: %s has no %s matrix", l->path, p->key, p->up ? "down" : "up");
        if (p->down->ndim < 2 || p->up->ndim < 2 || p->down->shape[0] != p->up->shape[1] || p->down->shape[0] == 0 ||
            (p->alpha && rung_tensor_count(p->alpha) != 1))
            return rung_fail(err, RUNG_ESHAPE, "%s: %s: up is %s and down %s, wanted [n, rank] and [rank, k]", l->path,
                             p->key, rung_tensor_shape_text(p->up, a, sizeof a),
                             rung_tensor_shape_text(p->down, b, sizeof b));
    }
    return RUNG_OK;
}

rung_status rung_lora_open(rung_lora **out, const char *path, float weight, rung_err *err) {
    rung_status st = RUNG_OK;
    *out = NULL;
    rung_lora *l = calloc(1, sizeof *l);
    if (!l) return rung_fail(err, RUNG_ENOMEM, "%s: out of memory", path);
    l->weight = weight;
    l->path = strdup(path);
    if (!l->path) RUNG_TRY_GOTO(st, done, no_memory(l, err));
    RUNG_TRY_GOTO(st, done, rung_safetensors_open(&l->file, path, err));
    const size_t n = rung_safetensors_count(l->file);
    l->pairs = calloc(n + 1, sizeof *l->pairs);
    if (!l->pairs) RUNG_TRY_GOTO(st, done, no_memory(l, err));
    for (size_t i = 0; i < n; i++)
        RUNG_TRY_GOTO(st, done,
                      add_tensor(l, rung_safetensors_name(l->file, i), rung_safetensors_tensor(l->file, i), err));
    RUNG_TRY_GOTO(st, done, check_pairs(l, err));
    *out = l;
    l = NULL;
done:
    rung_lora_close(&l);
    return st;
}

uint64_t rung_lora_hash(const rung_lora *l) {
    return rung_hash(rung_safetensors_hash(l->file), &l->weight, sizeof l->weight);
}

void rung_lora_close(rung_lora **lp) {
    rung_lora *l = *lp;
    *lp = NULL;
    if (!l) return;
    for (size_t i = 0; i < l->count; i++) free(l->pairs[i].key);
    free(l->pairs);
    rung_safetensors_close(&l->file);
    free(l->path);
    free(l);
}

/* w [n, k] += scale * up [n, r] down [r, k] */
static void add_product(float *w, const float *up, const float *down, size_t n, size_t r, size_t k, float scale) {
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < r; j++) {
            const float a = scale * up[i * r + j];
            for (size_t c = 0; c < k; c++) w[i * k + c] += a * down[j * k + c];
        }
}

static rung_dtype merged_dtype(rung_dtype t) {
    return t == RUNG_F64 || t == RUNG_F32 ? RUNG_F32 : t == RUNG_BF16 ? RUNG_BF16 : RUNG_F16;
}

/* f32 [count] to `dtype` in place. */
static void narrow(float *x, size_t count, rung_dtype dtype) {
    uint16_t *h = (uint16_t *)(void *)x;
    for (size_t i = 0; dtype != RUNG_F32 && i < count; i++) {
        float v;
        memcpy(&v, x + i, sizeof v);
        const uint16_t half = dtype == RUNG_F16 ? rung_f32_to_f16(v) : rung_f32_to_bf16(v);
        memcpy(h + i, &half, sizeof half);
    }
}

static rung_status merge(const rung_lora *l, const struct pair *p, rung_weights *w, size_t at, rung_err *err) {
    rung_tensor t = *rung_weights_tensor(w, at);
    const size_t n = t.ndim > 0 ? t.shape[0] : 0, count = rung_tensor_count(&t), r = p->down->shape[0];
    const size_t downs = rung_tensor_count(p->down), ups = rung_tensor_count(p->up);
    char a[100], b[100], c[100];
    rung_status st = RUNG_OK;
    if (n == 0 || p->up->shape[0] != n || ups != n * r || downs / r != count / n || downs % r)
        return rung_fail(err, RUNG_ESHAPE, "%s: %s: up %s and down %s do not fit a weight of %s", l->path, p->key,
                         rung_tensor_shape_text(p->up, a, sizeof a), rung_tensor_shape_text(p->down, b, sizeof b),
                         rung_tensor_shape_text(&t, c, sizeof c));
    float alpha = (float)r, *sum = malloc(count * sizeof *sum), *down = malloc(downs * sizeof *down),
          *up = malloc(ups * sizeof *up);
    if (!sum || !down || !up) RUNG_TRY_GOTO(st, done, no_memory(l, err));
    if (p->alpha) RUNG_TRY_GOTO(st, done, rung_tensor_to_f32(p->alpha, 0, 1, &alpha, err));
    RUNG_TRY_GOTO(st, done, rung_tensor_to_f32(&t, 0, count, sum, err));
    RUNG_TRY_GOTO(st, done, rung_tensor_to_f32(p->down, 0, downs, down, err));
    RUNG_TRY_GOTO(st, done, rung_tensor_to_f32(p->up, 0, ups, up, err));
    add_product(sum, up, down, n, r, count / n, l->weight * alpha / (float)r);
    t.dtype = merged_dtype(t.dtype);
    t.scale = NULL;
    narrow(sum, count, t.dtype);
    st = weights_replace(w, at, &t, sum, err);
    if (!st) sum = NULL; /* theirs now */
done:
    free(sum);
    free(down);
    free(up);
    return st;
}

rung_status rung_lora_apply(rung_lora *l, rung_weights *w, const char *part, rung_err *err) {
    int number = 0;
    while (number < PARTS && strcmp(part_names[number], part) != 0) number++;
    if (number == PARTS) return RUNG_OK;
    l->seen[number] = true;
    for (size_t i = 0; i < rung_weights_count(w); i++) {
        const char *name = rung_weights_name(w, i);
        const size_t n = strlen(name), ending = strlen(".weight");
        int ignored;
        if (n <= ending || strcmp(name + n - ending, ".weight") != 0) continue;
        char *key = key_of(name, n - ending, &ignored);
        if (!key) return no_memory(l, err);
        struct pair *p = pair_of(l, number, key);
        free(key);
        if (!p) continue;
        p->used = true;
        RUNG_TRY(merge(l, p, w, i, err));
    }
    return RUNG_OK;
}

rung_status rung_lora_check_used(const rung_lora *l, rung_err *err) {
    enum { NAMED = 3 };
    char names[300] = "";
    size_t surplus = 0, at = 0;
    for (size_t i = 0; i < l->count; i++) {
        const struct pair *p = &l->pairs[i];
        if (p->used || !l->seen[p->part] || surplus++ >= NAMED || at >= sizeof names) continue;
        at += (size_t)snprintf(names + at, sizeof names - at, "%s%.90s", at ? ", " : "", p->key);
    }
    if (surplus == 0) return RUNG_OK;
    return rung_fail(err, RUNG_EFORMAT, "%s: %zu of %zu adapted weights are not in this model: %s%s", l->path, surplus,
                     l->count, names, surplus > NAMED ? ", ..." : "");
}
