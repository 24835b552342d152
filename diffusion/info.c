#define _POSIX_C_SOURCE 200809L /* open_memstream */
#include "diffusion/info.h"

#include <stdio.h>
#include <stdlib.h>

#include "assets/model.h"

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
        t.bytes += (n * rung_dtype_bits(x->dtype) + 7) / 8 + (x->scale ? 4 * x->shape[0] : 0);
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
    if (f && fclose(f) != 0 && !st) st = rung_fail(err, RUNG_ENOMEM, "info: out of memory");
    if (st || json) {
        free(*text);
        *text = st ? NULL : cJSON_PrintUnformatted(root);
    }
    cJSON_Delete(root);
    rung_model_close(&m);
    return st || *text ? st : rung_fail(err, RUNG_ENOMEM, "info: out of memory");
}
