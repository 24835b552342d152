/* tests/fuzz/fuzz_safetensors.c - any bytes as a weights file, and as a single file in ldm layout. */
#include "assets/model.h"
#include "tests/fuzz/fuzz_file.h"

/* First, last and some number in between: what lies outside the file would be seen. */
static void touch(const rung_tensor *t) {
    float v[3];
    char text[40];
    rung_err err = {0};
    const size_t n = rung_tensor_count(t);
    rung_tensor_shape_text(t, text, sizeof text);
    if (n == 0 || !rung_dtype_is_float(t->dtype)) return;
    rung_tensor_to_f32(t, 0, 1, &v[0], &err);
    rung_tensor_to_f32(t, n - 1, 1, &v[1], &err);
    rung_tensor_to_f32(t, n / 2, 1, &v[2], &err);
}

static void walk(rung_weights *w) {
    rung_err err = {0};
    if (!w) return;
    for (size_t i = 0; i < rung_weights_count(w); i++) touch(rung_weights_tensor(w, i));
    rung_weights_check_used(w, &err);
    for (size_t i = 0; i < rung_weights_count(w); i++) rung_weights_find(w, rung_weights_name(w, i));
    rung_weights_close(&w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const parts[] = {"unet", "vae", "text_encoder", "tokenizer", "scheduler"};
    char path[100];
    rung_err err = {0};
    rung_weights *w;
    rung_model *m;
    fuzz_file(path, sizeof path, ".safetensors", data, size);
    rung_weights_open(&w, path, &err);
    walk(w);
    err = (rung_err){0};
    if (rung_model_open(&m, path, &err) == RUNG_OK) {
        for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
            rung_config c;
            err = (rung_err){0};
            rung_model_config(m, parts[i], &c, &err);
            rung_model_weights(m, parts[i], &w, &err);
            walk(w);
        }
    }
    rung_model_close(&m);
    remove(path);
    return 0;
}
