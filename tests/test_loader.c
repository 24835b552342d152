/* tests/test_loader.c - layers from tensors through the CPU backend; every refusal names file and tensor. */
#include <stdlib.h>
#include <string.h>

#include "assets/loader.h"
#include "tests/check.h"
#include "tests/st_file.h"

#define FILE_NAME "test_loader.tmp.safetensors"

/* All f32: w [2, 3] = 0 .. 5, its bias, the same as [2, 3, 1, 1], a convolution, an integer. */
static const char HEADER[] = "{\"a.weight\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]},"
                             "\"a.bias\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[24,32]},"
                             "\"b.weight\":{\"dtype\":\"F32\",\"shape\":[2,3,1,1],\"data_offsets\":[32,56]},"
                             "\"c.weight\":{\"dtype\":\"F32\",\"shape\":[1,3,2,2],\"data_offsets\":[56,104]},"
                             "\"c.bias\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[104,108]},"
                             "\"i.weight\":{\"dtype\":\"I32\",\"shape\":[2,3],\"data_offsets\":[108,132]}}";
enum { FLOATS = 33 };

struct fixture {
    rung_pool *pool;
    rung_backend *be;
    rung_weights *w;
    rung_loader l;
    rung_err err;
};

static bool start(struct fixture *f) {
    float data[FLOATS];
    for (int i = 0; i < FLOATS; i++) data[i] = (float)(i % 8);
    *f = (struct fixture){0};
    return CHECK(st_write(FILE_NAME, HEADER, data, sizeof data)) &&
           CHECK(rung_pool_open(&f->pool, 1, &f->err) == RUNG_OK) &&
           CHECK(rung_cpu_backend_open(&f->be, f->pool, 0, &f->err) == RUNG_OK) &&
           CHECK(rung_weights_open(&f->w, FILE_NAME, &f->err) == RUNG_OK) &&
           CHECK(loader_start(&f->l, f->w, f->be, RUNG_STORE_STORED, &f->err) == RUNG_OK);
}

static void stop(struct fixture *f) {
    rung_weights_close(&f->w);
    rung_backend_close(&f->be);
    rung_pool_close(&f->pool);
    remove(FILE_NAME);
}

static void loads(void) {
    struct fixture f;
    if (!start(&f)) return;
    static const char *const names[] = {"a", "b"};
    const rung_linear *a = load_linear(&f.l, 2, 3, LOAD_BIAS, "%s", "a");
    const rung_linear *b = load_linear(&f.l, 2, 3, LOAD_BIAS_IF_PRESENT, "b");
    const rung_linear *ab = load_linear_stack(&f.l, 2, 3, LOAD_BIAS_IF_PRESENT, "", names, 2);
    const rung_conv *c = load_conv(&f.l, 1, 3, 2, 2, "c");
    const rung_conv *plain = load_conv_no_bias(&f.l, 2, 3, 1, 1, "a");
    const float *v = load_vector(&f.l, 6, "b.weight");
    const rung_table *t = load_table(&f.l, 2, 3, "a.weight");
    const float host[2] = {7, 8};
    const float *own = load_computed(&f.l, host, 2);
    CHECK(a && b && ab && c && plain && v && t && own && f.l.status == RUNG_OK);
    CHECK(load_has(&f.l, "%s.weight", "i") && !load_has(&f.l, "i.bias"));
    rung_weights_find(f.w, "i.weight");
    rung_layers *layers;
    if (CHECK(loader_finish(&f.l, &layers) == RUNG_OK && layers)) {
        const float x[3] = {1, 10, 100}; /* rows of w: 0 1 2, 3 4 5; a.bias 6 7; b begins at 8 = 0 again */
        float y[4];
        f.be->ops->linear(f.be, y, x, 3, 1, a, NULL);
        CHECK(y[0] == 216 && y[1] == 550);
        f.be->ops->linear(f.be, y, x, 3, 1, b, NULL);
        CHECK(y[0] == 210 && y[1] == 543);
        f.be->ops->linear(f.be, y, x, 3, 1, ab, NULL);
        CHECK(y[0] == 216 && y[1] == 550 && y[2] == 210 && y[3] == 543);
        CHECK(v[0] == 0 && v[5] == 5 && own[0] == 7 && own[1] == 8);
    }
    rung_layers_close(&layers);
    CHECK(!layers);
    rung_layers_close(&layers);
    stop(&f);
}

/* After the first failure everything is NULL, the message is the first one, and nothing is left over. */
static void fails(int which, rung_status want, const char *reason) {
    struct fixture f;
    if (!start(&f)) return;
    static const char *const names[] = {"a", "none"};
    const void *got = &f;
    char longest[300];
    memset(longest, 'n', 299);
    longest[299] = 0;
    CHECK(load_linear(&f.l, 2, 3, LOAD_BIAS, "a") != NULL); /* what was loaded before is released */
    if (which == 0) got = load_linear(&f.l, 2, 4, LOAD_BIAS, "a");
    if (which == 1) got = load_linear(&f.l, 2, 3, LOAD_BIAS, "b");
    if (which == 2) got = load_linear(&f.l, 2, 3, LOAD_NO_BIAS, "none");
    if (which == 3) got = load_linear_stack(&f.l, 2, 3, LOAD_NO_BIAS, "", names, 2);
    if (which == 4) got = load_conv(&f.l, 1, 3, 3, 3, "c");
    if (which == 5) got = load_conv(&f.l, 2, 3, 1, 1, "b");
    if (which == 6) got = load_vector(&f.l, 5, "a.weight");
    if (which == 7) got = load_vector(&f.l, 6, "i.weight");
    if (which == 8) got = load_table(&f.l, 3, 2, "a.weight");
    if (which == 9) got = load_linear(&f.l, 2, 3, LOAD_NO_BIAS, "i");
    if (which == 10) got = load_linear(&f.l, 2, 3, LOAD_NO_BIAS, "%s", longest);
    if (which == 11) got = load_linear_stack(&f.l, 2, 3, LOAD_NO_BIAS, longest, names, 2);
    if (which == 12) got = load_conv_no_bias(&f.l, 2, 3, 1, 1, "c");
    if (which == 13) got = NULL; /* surplus, seen at the end */
    if (!CHECK(!got)) fprintf(stderr, "  case %d\n", which);
    const float one = 1;
    if (which != 13)
        CHECK(!load_vector(&f.l, 2, "a.bias") && !load_computed(&f.l, &one, 1) && !load_table(&f.l, 2, 3, "a.weight"));
    rung_layers *layers;
    CHECK(loader_finish(&f.l, &layers) == want && !layers);
    if (!CHECK(strstr(f.err.msg, reason) && (which == 10 || which == 11 || strstr(f.err.msg, FILE_NAME))))
        fprintf(stderr, "  case %d: %s\n", which, f.err.msg);
    stop(&f);
}

int main(void) {
    loads();
    fails(0, RUNG_ESHAPE, "a.weight is [2, 3], wanted [2, 4]");
    fails(1, RUNG_EFORMAT, "b.bias is missing");
    fails(2, RUNG_EFORMAT, "none.weight is missing");
    fails(3, RUNG_EFORMAT, "none.weight is missing");
    fails(4, RUNG_ESHAPE, "c.weight is [1, 3, 2, 2], wanted [1, 3, 3, 3]");
    fails(5, RUNG_EFORMAT, "b.bias is missing");
    fails(6, RUNG_ESHAPE, "a.weight is [2, 3], wanted 5 numbers");
    fails(7, RUNG_EFORMAT, "i.weight is I32");
    fails(8, RUNG_ESHAPE, "wanted [3, 2]");
    fails(9, RUNG_EFORMAT, "i.weight is I32");
    fails(10, RUNG_EFORMAT, "too long");
    fails(11, RUNG_EFORMAT, "too long");
    fails(12, RUNG_ESHAPE, "wanted [2, 3, 1, 1]");
    fails(13, RUNG_EFORMAT, "4 tensors that this network does not have: b.weight, c.bias, c.weight, ...");
    return check_result();
}
