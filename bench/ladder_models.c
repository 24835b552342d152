#define _XOPEN_SOURCE 700 /* mkdtemp, nftw, realpath, symlink */
#include "bench/ladder_models.h"

#include <errno.h>
#include <ftw.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "assets/json.h"
#include "assets/model.h"

enum { PATH = 512, TIME = 256, PATCH = 2, CHANNELS = 4 };

static rung_status no_file(const char *path, rung_err *err) {
    return rung_fail(err, RUNG_EIO, "%s: cannot be written: %s", path, strerror(errno));
}

static rung_status write_text(const char *path, const char *text, rung_err *err) {
    FILE *f = fopen(path, "w");
    if (!f) return no_file(path, err);
    const bool ok = fputs(text, f) >= 0;
    return fclose(f) == 0 && ok ? RUNG_OK : no_file(path, err);
}

/* ---- random weights ---- */

/* A safetensors file under way: the header first, then the data in the same order. */
struct writer {
    FILE *header, *data;
    size_t at;
    uint64_t seed;
};

/* f16 numbers of about 1 / sqrt(depth) in size, or near 1 where depth is 0. */
static void put(struct writer *w, const char *name, size_t rows, size_t cols, size_t depth) {
    const size_t n = rows * (cols ? cols : 1);
    unsigned exponent = 15;
    for (size_t d = depth; d > 1; d /= 4) exponent--;
    if (cols)
        fprintf(w->header, "%s\"%s\":{\"dtype\":\"F16\",\"shape\":[%zu,%zu],\"data_offsets\":[%zu,%zu]}",
                w->at ? "," : "", name, rows, cols, w->at, w->at + 2 * n);
    else
        fprintf(w->header, "%s\"%s\":{\"dtype\":\"F16\",\"shape\":[%zu],\"data_offsets\":[%zu,%zu]}", w->at ? "," : "",
                name, rows, w->at, w->at + 2 * n);
    uint16_t block[4096];
    for (size_t left = n; left > 0;) {
        const size_t k = left < sizeof block / sizeof *block ? left : sizeof block / sizeof *block;
        for (size_t i = 0; i < k; i++) {
            w->seed = w->seed * 6364136223846793005u + 1442695040888963407u;
            block[i] = (uint16_t)((w->seed >> 63) << 15 | exponent << 10 | (w->seed >> 40 & 1023));
        }
        fwrite(block, sizeof *block, k, w->data);
        left -= k;
    }
    w->at += 2 * n;
}

static void put_linear(struct writer *w, const char *prefix, const char *name, size_t n, size_t k) {
    char full[128];
    snprintf(full, sizeof full, "%s%s.weight", prefix, name);
    put(w, full, n, k, k);
    snprintf(full, sizeof full, "%s%s.bias", prefix, name);
    put(w, full, n, 0, 4096);
}

static void put_network(struct writer *w, const ladder_geometry *g) {
    static const char *const attention[] = {"to_q", "to_k", "to_v", "to_out.0"};
    const size_t n = g->heads * g->head_dim;
    char prefix[64];
    put_linear(w, "", "adaln_single.emb.timestep_embedder.linear_1", n, TIME);
    put_linear(w, "", "adaln_single.emb.timestep_embedder.linear_2", n, n);
    put_linear(w, "", "adaln_single.linear", 6 * n, n);
    put_linear(w, "", "caption_projection.linear_1", n, g->text);
    put_linear(w, "", "caption_projection.linear_2", n, n);
    put_linear(w, "", "proj_out", PATCH * PATCH * CHANNELS, n);
    put(w, "scale_shift_table", 2, n, n);
    for (size_t i = 0; i < g->layers; i++) {
        for (int a = 1; a <= 2; a++) {
            snprintf(prefix, sizeof prefix, "transformer_blocks.%zu.attn%d.", i, a);
            for (int k = 0; k < 4; k++) put_linear(w, prefix, attention[k], n, n);
        }
        snprintf(prefix, sizeof prefix, "transformer_blocks.%zu.", i);
        put_linear(w, prefix, "ff.net.0.proj", 4 * n, n);
        put_linear(w, prefix, "ff.net.2", n, 4 * n);
        snprintf(prefix, sizeof prefix, "transformer_blocks.%zu.scale_shift_table", i);
        put(w, prefix, 6, n, n);
    }
}

/* The patch embedding alone has four dimensions. */
static void put_patch_embedding(struct writer *w, size_t n) {
    const size_t floats = n * CHANNELS * PATCH * PATCH;
    fprintf(w->header,
            ",\"pos_embed.proj.weight\":{\"dtype\":\"F16\",\"shape\":[%zu,%d,%d,%d],\"data_offsets\":[%zu,%zu]}", n,
            CHANNELS, PATCH, PATCH, w->at, w->at + 2 * floats);
    for (size_t i = 0; i < floats; i++) {
        const uint16_t h = (uint16_t)(13 << 10 | (i * 2654435761u >> 20 & 1023) | (i & 1) << 15);
        fwrite(&h, sizeof h, 1, w->data);
    }
    w->at += 2 * floats;
    put(w, "pos_embed.proj.bias", n, 0, 4096);
}

static rung_status append(FILE *to, const char *from, rung_err *err) {
    char block[1 << 16];
    FILE *f = fopen(from, "rb");
    if (!f) return rung_fail(err, RUNG_EIO, "%s: cannot be read: %s", from, strerror(errno));
    for (size_t n; (n = fread(block, 1, sizeof block, f)) > 0;) fwrite(block, 1, n, to);
    fclose(f);
    return RUNG_OK;
}

static rung_status random_weights(const char *path, const ladder_geometry *g, rung_err *err) {
    char data[PATH + 8], *header = NULL;
    size_t size = 0;
    snprintf(data, sizeof data, "%s.data", path);
    struct writer w = {.header = open_memstream(&header, &size), .data = fopen(data, "wb"), .seed = 11};
    FILE *out = fopen(path, "wb");
    rung_status st = w.header && w.data && out ? RUNG_OK : no_file(path, err);
    if (!st) {
        fputc('{', w.header);
        put_network(&w, g);
        put_patch_embedding(&w, g->heads * g->head_dim);
        fputc('}', w.header);
    }
    if (w.header) fclose(w.header);
    if (w.data && fclose(w.data) != 0 && !st) st = no_file(data, err);
    if (!st) {
        const uint64_t n = size;
        for (int i = 0; i < 8; i++) fputc((int)(n >> 8 * i & 255), out);
        fwrite(header, 1, size, out);
        st = append(out, data, err);
    }
    if (out && fclose(out) != 0 && !st) st = no_file(path, err);
    remove(data);
    free(header);
    return st;
}

/* ---- folders ---- */

static rung_status random_config(cJSON **out, const ladder_geometry *g, rung_err *err) {
    char text[400];
    snprintf(text, sizeof text,
             "{\"num_attention_heads\": %zu, \"attention_head_dim\": %zu, \"num_layers\": %zu, \"in_channels\": %d,"
             "\"out_channels\": %d, \"cross_attention_dim\": %zu, \"caption_channels\": %zu, \"sample_size\": 64}",
             g->heads, g->head_dim, g->layers, CHANNELS, CHANNELS, g->heads * g->head_dim, g->text);
    *out = cJSON_Parse(text);
    return *out ? RUNG_OK : rung_fail(err, RUNG_ENOMEM, "bench: out of memory");
}

static rung_status shipped_config(cJSON **out, char weights[PATH], const char *shipped, rung_err *err) {
    char path[PATH];
    snprintf(path, sizeof path, "%.400s/transformer/config.json", shipped);
    RUNG_TRY(rung_json_load(out, path, err));
    snprintf(path, sizeof path, "%.400s/transformer/diffusion_pytorch_model.safetensors", shipped);
    char *full = realpath(path, NULL);
    if (!full) return rung_fail(err, RUNG_EIO, "%s: %s", path, strerror(errno));
    snprintf(weights, PATH, "%s", full);
    free(full);
    return RUNG_OK;
}

static void set_bool(cJSON *o, const char *key, bool on) {
    cJSON_DeleteItemFromObjectCaseSensitive(o, key);
    cJSON_AddBoolToObject(o, key, on);
}

static rung_status write_order(const ladder_models *m, module_order order, cJSON *config, const char *weights,
                               rung_err *err) {
    char folder[PATH], path[PATH + 64];
    ladder_models_path(m, order, folder, sizeof folder);
    snprintf(path, sizeof path, "%s/transformer", folder);
    if (mkdir(folder, 0700) != 0 || mkdir(path, 0700) != 0) return no_file(path, err);
    snprintf(path, sizeof path, "%s/model_index.json", folder);
    RUNG_TRY(write_text(path,
                        "{\"_class_name\": \"DiffusionPipeline\","
                        " \"transformer\": [\"rung\", \"LadderTransformer2DModel\"]}\n",
                        err));
    set_bool(config, "ladder", order == ORDER_LADDER);
    set_bool(config, "parallel", order == ORDER_PARALLEL);
    char *text = cJSON_PrintUnformatted(config);
    if (!text) return rung_fail(err, RUNG_ENOMEM, "bench: out of memory");
    snprintf(path, sizeof path, "%s/transformer/config.json", folder);
    const rung_status st = write_text(path, text, err);
    cJSON_free(text);
    RUNG_TRY(st);
    snprintf(path, sizeof path, "%s/transformer/diffusion_pytorch_model.safetensors", folder);
    return symlink(weights, path) == 0 ? RUNG_OK : no_file(path, err);
}

rung_status ladder_models_make(ladder_models *m, const char *shipped, const ladder_geometry *g, rung_err *err) {
    const char *tmp = getenv("TMPDIR");
    char weights[PATH];
    cJSON *config = NULL;
    *m = (ladder_models){0};
    char name[sizeof m->folder];
    snprintf(name, sizeof name, "%.200s/rung-bench-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (!mkdtemp(name)) return no_file(name, err);
    memcpy(m->folder, name, sizeof name);
    snprintf(weights, sizeof weights, "%s/weights.safetensors", m->folder);
    rung_status st = shipped ? shipped_config(&config, weights, shipped, err) : random_config(&config, g, err);
    if (!st && !shipped) st = random_weights(weights, g, err);
    for (module_order i = 0; !st && i < ORDERS; i++) st = write_order(m, i, config, weights, err);
    cJSON_Delete(config);
    if (st) ladder_models_remove(m);
    return st;
}

void ladder_models_path(const ladder_models *m, module_order order, char *path, size_t cap) {
    snprintf(path, cap, "%s/%d", m->folder, (int)order);
}

static int remove_one(const char *path, const struct stat *s, int kind, struct FTW *f) {
    (void)s, (void)kind, (void)f;
    return remove(path);
}

void ladder_models_remove(ladder_models *m) {
    if (m->folder[0]) nftw(m->folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    m->folder[0] = 0;
}
