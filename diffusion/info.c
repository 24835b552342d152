#define _POSIX_C_SOURCE 200809L /* open_memstream */
#include "diffusion/info.h"

#include <stdio.h>
#include <stdlib.h>

#include "assets/model.h"
#include "kernels/base/cpu.h"
#include "kernels/base/pool.h"
#include "kernels/cuda/cuda.h"

static const char *const parts[] = {"text_encoder", "unet", "transformer", "vae"};

struct totals {
    size_t tensors, parameters, bytes;
    size_t of_dtype[RUNG_DTYPES]; /* parameters kept in each dtype */
};

static struct totals count(const rung_weights *w) {
    struct totals t = {0};
    t.tensors = rung_weights_count(w);
    for (size_t i = 0; i < t.tensors; i++) {
        const rung_tensor *x = rung_weights_tensor(w, i);
        const size_t n = rung_tensor_count(x);
        t.parameters += n;
        t.of_dtype[x->dtype] += n;
        t.bytes += rung_tensor_bytes(x);
    }
    return t;
}

static cJSON *part_json(const char *part, const char *class_name, const struct totals *t) {
    cJSON *o = cJSON_CreateObject(), *dtypes = cJSON_AddObjectToObject(o, "dtypes");
    cJSON_AddStringToObject(o, "part", part);
    cJSON_AddStringToObject(o, "class", class_name);
    cJSON_AddNumberToObject(o, "tensors", (double)t->tensors);
    cJSON_AddNumberToObject(o, "parameters", (double)t->parameters);
    cJSON_AddNumberToObject(o, "bytes", (double)t->bytes);
    for (int d = 0; d < RUNG_DTYPES; d++)
        if (t->of_dtype[d]) cJSON_AddNumberToObject(dtypes, rung_dtype_name((rung_dtype)d), (double)t->of_dtype[d]);
    return o;
}

static void part_text(FILE *f, const char *part, const char *class_name, const struct totals *t) {
    fprintf(f, "%-13s %-28s %5zu tensors  %8.2f M parameters  %8.2f MB ", part, class_name, t->tensors,
            1e-6 * (double)t->parameters, 1e-6 * (double)t->bytes);
    for (int d = 0; d < RUNG_DTYPES; d++)
        if (t->of_dtype[d])
            fprintf(f, " %s %.0f%%", rung_dtype_name((rung_dtype)d),
                    100.0 * (double)t->of_dtype[d] / (double)t->parameters);
    fputc('\n', f);
}

/* Each part's line goes to f, its object into `list`. */
static rung_status describe_parts(rung_model *m, FILE *f, cJSON *list, rung_err *err) {
    const char *class_name;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        rung_weights *w;
        if (!rung_model_has(m, parts[i], &class_name)) continue;
        RUNG_TRY(rung_model_weights(m, parts[i], &w, err));
        const struct totals t = count(w);
        part_text(f, parts[i], class_name, &t);
        cJSON_AddItemToArray(list, part_json(parts[i], class_name, &t));
        rung_weights_close(&w);
    }
    if (rung_model_has(m, "scheduler", &class_name)) fprintf(f, "%-13s %s\n", "scheduler", class_name);
    return RUNG_OK;
}

/* Closes f, whose text *text becomes, and root, which is what a program asked for. */
static rung_status finish_text(rung_status st, char **text, FILE *f, cJSON *root, bool json, rung_err *err) {
    if (f && fclose(f) != 0 && !st) st = rung_fail(err, RUNG_ENOMEM, "info: out of memory");
    if (st || json) {
        free(*text);
        *text = st ? NULL : cJSON_PrintUnformatted(root);
    }
    cJSON_Delete(root);
    return st || *text ? st : rung_fail(err, RUNG_ENOMEM, "info: out of memory");
}

rung_status rung_info_text(char **text, const char *path, bool json, rung_err *err) {
    rung_model *m = NULL;
    size_t size;
    *text = NULL;
    RUNG_TRY(rung_model_open(&m, path, err));
    FILE *f = open_memstream(text, &size);
    cJSON *root = cJSON_CreateObject(), *list = cJSON_AddArrayToObject(root, "parts");
    rung_status st = f && list ? RUNG_OK : rung_fail(err, RUNG_ENOMEM, "info: out of memory");
    if (!st) {
        fprintf(f, "%s\n%s, %s layout\n", rung_model_path(m), rung_model_pipeline(m),
                rung_model_is_ldm(m) ? "original ldm" : "diffusers");
        cJSON_AddStringToObject(root, "model", rung_model_path(m));
        cJSON_AddStringToObject(root, "pipeline", rung_model_pipeline(m));
        cJSON_AddStringToObject(root, "layout", rung_model_is_ldm(m) ? "ldm" : "diffusers");
        st = describe_parts(m, f, list, err);
    }
    rung_model_close(&m);
    return finish_text(st, text, f, root, json, err);
}

static void device_text(FILE *f, int i, const rung_cuda_device *d) {
    fprintf(f, "cuda %d  %s, compute capability %d.%d, %d multiprocessors, %.1f GB\n", i, d->name, d->major, d->minor,
            d->multiprocessors, 1e-9 * (double)d->memory);
}

static cJSON *device_json(int i, const rung_cuda_device *d) {
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "backend", "cuda");
    cJSON_AddNumberToObject(o, "device", i);
    cJSON_AddStringToObject(o, "name", d->name);
    cJSON_AddNumberToObject(o, "major", d->major);
    cJSON_AddNumberToObject(o, "minor", d->minor);
    cJSON_AddNumberToObject(o, "multiprocessors", d->multiprocessors);
    cJSON_AddNumberToObject(o, "bytes", (double)d->memory);
    return o;
}

static rung_status describe_processor(FILE *f, cJSON *list, rung_err *err) {
    unsigned mask;
    rung_pool *pool;
    RUNG_TRY(rung_cpu_mask(&mask, err));
    RUNG_TRY(rung_pool_open(&pool, 0, err));
    const int threads = rung_pool_threads(pool);
    rung_pool_close(&pool);
    const char *level = rung_cpu_name(rung_cpu_detect() & mask);
    fprintf(f, "cpu     %s, %d threads\n", level, threads);
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "backend", "cpu");
    cJSON_AddStringToObject(o, "level", level);
    cJSON_AddNumberToObject(o, "threads", threads);
    cJSON_AddItemToArray(list, o);
    return RUNG_OK;
}

/* No GPU is no error here: it is the answer. */
static void describe_gpus(FILE *f, cJSON *root, cJSON *list) {
    int count;
    rung_cuda_device d;
    rung_err why = {0};
    rung_status st = rung_cuda_count(&count, &why);
    for (int i = 0; i < count && !st; i++) {
        st = rung_cuda_describe(&d, i, &why);
        if (st) break;
        device_text(f, i, &d);
        cJSON_AddItemToArray(list, device_json(i, &d));
    }
    if (!st) return;
    fprintf(f, "no GPU  %s\n", why.msg);
    cJSON_AddStringToObject(root, "no_gpu", why.msg);
}

rung_status rung_info_devices(char **text, bool json, rung_err *err) {
    size_t size;
    *text = NULL;
    FILE *f = open_memstream(text, &size);
    cJSON *root = cJSON_CreateObject(), *list = cJSON_AddArrayToObject(root, "devices");
    rung_status st = f && list ? RUNG_OK : rung_fail(err, RUNG_ENOMEM, "info: out of memory");
    if (!st) st = describe_processor(f, list, err);
    if (!st) describe_gpus(f, root, list);
    return finish_text(st, text, f, root, json, err);
}
