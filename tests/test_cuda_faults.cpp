/* tests/test_cuda_faults.cpp - the CUDA backend where the runtime and the libraries say no: every failure is a status
 * with CUDA's words, nothing leaks, and what comes after works. Recorded steps, also those that cannot be recorded. On
 * host threads only: a GPU cannot be asked to fail. */
#include <cstring>

#include "diffusion/rung.h"
#include "tests/cuda_bed.h"

extern "C" {
#include "cuda_host/cudnn.h"
#include "kernels/ops.h"
}

static void test_indices() {
    rung_backend *be = NULL;
    rung_cuda_device d;
    int count = 0;
    rung_err e = {};
    CHECK(rung_cuda_count(&count, &e) == RUNG_OK && count == 2);
    CHECK(rung_cuda_describe(&d, 1, &e) == RUNG_OK && d.major == 9 && d.memory > 0);
    CHECK(rung_cuda_backend_open(&be, 1, &e) == RUNG_OK); /* the second device */
    rung_backend_close(&be);
    for (int index : {-1, 2, 99}) {
        e = {};
        CHECK(rung_cuda_backend_open(&be, index, &e) == RUNG_EDEVICE && be == NULL);
        CHECK(strstr(e.msg, std::to_string(index).c_str()) != NULL);
    }
}

/* Every call of opening a backend and a layer fails once: a message, and nothing is left. */
static void test_open_fails() {
    static const char *const calls[] = {"cudaGetDeviceCount", "cudaGetDeviceProperties",  "cudaSetDevice",
                                        "cudaMalloc",         "cudaMallocHost",           "cudaStreamCreateWithFlags",
                                        "cudaMemsetAsync",    "cudaEventCreateWithFlags", "cublasLtCreate",
                                        "cudnnCreate",        "cudaMemcpyAsync"};
    uint64_t seed = 1;
    const floats numbers = exact_numbers(64 * 64, &seed);
    const rung_tensor t = tensor_of(RUNG_F32, {64, 64}, numbers.data()), tb = tensor_of(RUNG_F32, {64}, numbers.data());
    const rung_tensor *w = &t, *bias = &tb;
    for (const char *call : calls) {
        bool passed = false;
        int n = 0;
        while (!passed && n < 60) {
            rung_backend *be = NULL;
            rung_linear *l = NULL;
            rung_err e = {};
            cuda_host_fail(call, ++n, strcmp(call, "cudaMalloc") ? cudaErrorInvalidValue : cudaErrorMemoryAllocation);
            rung_status st = rung_cuda_backend_open(&be, 0, &e);
            if (!st) st = be->ops->linear_open(be, &l, &w, &bias, 1, RUNG_STORE_FP6, &e);
            if (!st) st = be->ops->sync(be, &e);
            passed = st == RUNG_OK;
            if (!passed && !CHECK(e.code == st && e.msg[0])) fprintf(stderr, "  %s %d\n", call, n);
            if (be) be->ops->linear_close(be, &l);
            rung_backend_close(&be);
            cuda_host_fail(NULL, 0, cudaSuccess);
            if (!CHECK(cuda_host_live() == 0)) fprintf(stderr, "  %s %d: %zu left\n", call, n, cuda_host_live());
        }
        if (!CHECK(passed && n > 1)) fprintf(stderr, "  %s was never called\n", call);
    }
}

/* A layer over one row, as the rest of these tests use it. */
struct small {
    rung_backend *be = NULL;
    rung_linear *l = NULL;
    rung_conv *c = NULL;
    floats numbers = floats(64 * 64, 0.5f);
    float *x = NULL, *y = NULL;
    small() {
        rung_err e = {};
        const rung_tensor t = tensor_of(RUNG_F32, {16, 64}, numbers.data());
        const rung_tensor tc = tensor_of(RUNG_F32, {8, 8, 3, 3}, numbers.data());
        const rung_tensor *w = &t;
        void *p = NULL, *q = NULL;
        CHECK(rung_cuda_backend_open(&be, 0, &e) == RUNG_OK);
        CHECK(be->ops->linear_open(be, &l, &w, NULL, 1, RUNG_STORE_F16, &e) == RUNG_OK);
        CHECK(be->ops->conv_open(be, &c, &tc, NULL, RUNG_STORE_F16, &e) == RUNG_OK);
        CHECK(be->ops->mem_alloc(be, &p, 4096 * 4, &e) == RUNG_OK &&
              be->ops->mem_alloc(be, &q, 4096 * 4, &e) == RUNG_OK);
        x = (float *)p, y = (float *)q;
        be->ops->upload(be, x, numbers.data(), 4096 * 4);
        CHECK(be->ops->sync(be, &e) == RUNG_OK);
    }
    ~small() {
        be->ops->mem_free(be, x);
        be->ops->mem_free(be, y);
        be->ops->linear_close(be, &l);
        be->ops->conv_close(be, &c);
        rung_backend_close(&be);
    }
    void conv() {
        rung_conv_args a = {};
        a.batch = 1, a.h = a.w = 8, a.stride = 1, a.pad_top = a.pad_left = a.pad_bottom = a.pad_right = 1;
        be->ops->conv(be, y, x, c, &a, NULL);
    }
    bool works() {
        float got[16] = {0};
        rung_err e = {};
        be->ops->upload(be, x, numbers.data(), 64 * 4);
        be->ops->linear(be, y, x, 64, 1, l, NULL);
        be->ops->download(be, got, y, sizeof got);
        const bool good = CHECK(be->ops->sync(be, &e) == RUNG_OK);
        if (!good) fprintf(stderr, "  %s\n", e.msg);
        return good && got[0] == 16 && got[15] == 16;
    }
};

/* An operation that fails says so at sync, once; what follows it does nothing. */
static void test_operation_fails() {
    static const struct {
        const char *call, *says;
        cudaError_t with;
    } cases[] = {{"cublasLtMatmul", "CUBLAS_STATUS_EXECUTION_FAILED", cudaSuccess},
                 {"cublasLtMatmulAlgoGetHeuristic", "CUBLAS_STATUS_NOT_SUPPORTED", cudaSuccess},
                 {"cudnnBackendExecute", "CUDNN_STATUS_EXECUTION_FAILED", cudaSuccess},
                 {"cudaMalloc", "out of memory", cudaErrorMemoryAllocation},
                 {"cudaMemcpyAsync", "invalid argument", cudaErrorInvalidValue}};
    for (const auto &c : cases) {
        small s;
        rung_err e = {};
        cuda_host_fail(c.call, 1, c.with);
        s.be->ops->linear(s.be, s.y, s.x, 64, 1, s.l, NULL);
        s.conv();
        s.be->ops->upload(s.be, s.x, s.numbers.data(), 64);
        const rung_status st = s.be->ops->sync(s.be, &e);
        if (!CHECK((st == RUNG_EDEVICE || st == RUNG_ENOMEM) && strstr(e.msg, c.says)))
            fprintf(stderr, "  %s: %d '%s'\n", c.call, st, e.msg);
        cuda_host_fail(NULL, 0, cudaSuccess);
        if (!CHECK(s.works())) fprintf(stderr, "  after %s\n", c.call);
    }
    small s;
    rung_err e = {};
    cuda_host_fail("launch", 1, cudaErrorLaunchFailure);
    s.be->ops->linear(s.be, s.y, s.x, 64, 1, s.l, NULL);
    CHECK(s.be->ops->sync(s.be, &e) == RUNG_EDEVICE && strstr(e.msg, "unspecified launch failure"));
    e = {};
    CHECK(s.be->ops->sync(s.be, &e) == RUNG_EDEVICE); /* a broken context stays broken */
    cuda_host_fail(NULL, 0, cudaSuccess);
}

/* What f16 cannot hold is an error, not an infinity. */
static void test_range() {
    small s;
    rung_err e = {};
    const float large[64] = {0, 1e5f};
    s.be->ops->upload(s.be, s.x, large, sizeof large);
    s.be->ops->linear(s.be, s.y, s.x, 64, 1, s.l, NULL);
    CHECK(s.be->ops->sync(s.be, &e) == RUNG_EDEVICE && strstr(e.msg, "bf16"));
    CHECK(s.works());
    /* a sum that does not fit: 8 * 9 * 0.5 * 4000 */
    const floats much(512, 4000.0f);
    s.be->ops->upload(s.be, s.x, much.data(), 512 * 4);
    e = {};
    s.conv();
    CHECK(s.be->ops->sync(s.be, &e) == RUNG_EDEVICE && strstr(e.msg, "bf16"));
    CHECK(s.works());
}

/* cuDNN has nothing for a convolution, or its first engine cannot be had: the product over patches gives the same. */
static void test_without_cudnn() {
    small s;
    floats with(512), without(512);
    s.conv();
    s.be->ops->download(s.be, with.data(), s.y, 512 * 4);
    CHECK(s.be->ops->sync(s.be, NULL) == RUNG_OK);
    cuda_host_dnn_refuse(1u << CUDNN_DATA_HALF);
    small t;
    t.conv();
    t.be->ops->download(t.be, without.data(), t.y, 512 * 4);
    CHECK(t.be->ops->sync(t.be, NULL) == RUNG_OK && with == without && with[0] != 0);
    cuda_host_dnn_refuse(0);
}

/* ---- recorded steps ---- */

/* y = silu(4 rows of x W^T): uploads, a product, a download. `rows` may change from step to step. */
struct step_net {
    small s;
    rung_recording *rec = NULL;
    int made = 0; /* how often the calls were made */
    ~step_net() { op_recording_close(s.be, &rec); }
    bool run(float value, size_t rows) {
        std::vector<float> host(rows * 64, value), got(rows * 16);
        rung_err e = {};
        rung_epilogue ep = {};
        ep.act = RUNG_ACT_SILU;
        do {
            made++;
            op_step_begin(s.be, &rec);
            const floats copy = host; /* gone when the step ends: nobody may read it later */
            s.be->ops->upload(s.be, s.x, copy.data(), copy.size() * 4);
            s.be->ops->linear(s.be, s.y, s.x, 64, rows, s.l, &ep);
            s.be->ops->download(s.be, got.data(), s.y, got.size() * 4);
        } while (op_step_end(s.be, rec));
        const rung_status st = s.be->ops->sync(s.be, &e);
        if (st) fprintf(stderr, "  %s\n", e.msg);
        const float sum = 32 * value, want = sum / (1 + expf(-sum));
        for (float v : got)
            if (!(fabsf(v - want) < 1e-3f * (1 + fabsf(want)))) return false;
        return st == RUNG_OK;
    }
};

static void test_recording() {
    step_net n;
    const size_t before = cuda_host_graphs();
    for (int i = 0; i < 6; i++) CHECK(n.run(0.125f * (float)i, 4));
    CHECK(n.made == 6 && cuda_host_graphs() == before + 5); /* the first one is not recorded */
    CHECK(n.run(1, 8) && n.made == 8);                      /* another shape: made again, as a first step */
    CHECK(n.run(2, 8) && n.run(3, 8) && n.made == 10);
    n.s.conv(); /* more scratch: the graph's addresses are gone */
    for (int i = 0; i < 3; i++) CHECK(n.run(0.5f, 8));
}

/* A step that looks up other rows each time: its ids are read from the graph's pinned memory. */
static void test_recorded_lookup() {
    small s;
    rung_recording *rec = NULL;
    rung_table *table = NULL;
    rung_err e = {};
    uint64_t seed = 2;
    const floats rows = exact_numbers(8 * 5, &seed);
    const rung_tensor t = tensor_of(RUNG_F32, {8, 5}, rows.data());
    if (!CHECK(s.be->ops->table_open(s.be, &table, &t, &e) == RUNG_OK)) return;
    const size_t before = cuda_host_graphs();
    for (int32_t i = 0; i < 5; i++) {
        floats got(10);
        do {
            const int32_t ids[] = {i, 7 - i};
            op_step_begin(s.be, &rec);
            s.be->ops->lookup(s.be, s.y, table, ids, 2);
            s.be->ops->download(s.be, got.data(), s.y, 10 * 4);
        } while (op_step_end(s.be, rec));
        CHECK(s.be->ops->sync(s.be, &e) == RUNG_OK);
        CHECK(memcmp(got.data(), &rows[(size_t)i * 5], 20) == 0 && memcmp(&got[5], &rows[35 - (size_t)i * 5], 20) == 0);
    }
    CHECK(cuda_host_graphs() == before + 4);
    op_recording_close(s.be, &rec);
    s.be->ops->table_close(s.be, &table);
}

/* A picture's steps are the recorded one, played back: all but the first, whose latents stay on the device or not. */
static void test_picture_is_recorded() {
    static const struct {
        const char *model, *sampler;
        rung_rng_kind rng;
        float rescale;
    } cases[] = {{"sd1", "euler_a", RUNG_RNG_CUDA, 0},
                 {"sd1", "dpm++2m", RUNG_RNG_CPU, 0},
                 {"sd2", "ddim", RUNG_RNG_CPU, 0},
                 {"icons", NULL, RUNG_RNG_CPU, 0},
                 {"sd1", "euler", RUNG_RNG_CPU, 0.7f}}; /* the host's sampler */
    for (const auto &c : cases) {
        const std::string path = std::string(RUNG_TEST_DIR "/golden/pipelines/") + c.model;
        rung_engine *engine = NULL;
        rung_err e = {};
        rung_image image = {};
        rung_options o = {};
        rung_request r = {};
        o.model = path.c_str(), o.backend = "cuda", o.threads = 1;
        r.prompt = "red apple", r.sampler = c.sampler, r.steps = 6, r.width = r.height = 32;
        r.rng = c.rng, r.guidance_rescale = c.rescale;
        const size_t before = cuda_host_graphs();
        rung_status st = rung_open(&engine, &o, &e);
        if (!st) st = rung_generate(engine, &r, 1, &image, &e);
        if (!CHECK(st == RUNG_OK) || !CHECK(cuda_host_graphs() - before == 5))
            fprintf(stderr, "  %s: %zu graphs %s\n", c.model, cuda_host_graphs() - before, e.msg);
        rung_image_free(&image);
        rung_close(&engine);
    }
}

static void test_recording_fails() {
    static const char *const calls[] = {"cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphInstantiate",
                                        "cudaMallocHost"};
    for (const char *call : calls) {
        step_net n;
        CHECK(n.run(1, 4));
        cuda_host_fail(call, 1, cudaErrorInvalidValue);
        for (int i = 0; i < 5; i++)
            if (!CHECK(n.run(0.25f, 4))) fprintf(stderr, "  %s, step %d\n", call, i);
        cuda_host_fail(NULL, 0, cudaSuccess);
    }
    step_net n; /* the launch of the graph itself: an error, then all is well */
    CHECK(n.run(1, 4) && n.run(1, 4));
    cuda_host_fail("cudaGraphLaunch", 1, cudaErrorInvalidValue);
    CHECK(!n.run(1, 4));
    cuda_host_fail(NULL, 0, cudaSuccess);
    CHECK(n.run(1, 4));
}

int main() {
    test_indices();
    test_open_fails();
    test_operation_fails();
    test_range();
    test_without_cudnn();
    test_recording();
    test_recorded_lookup();
    test_picture_is_recorded();
    test_recording_fails();
    CHECK(cuda_host_live() == 0);
    return check_result();
}
