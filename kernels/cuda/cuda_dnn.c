/* kernels/cuda/cuda_dnn.c - convolutions by cuDNN's graph API, in C: the descriptors of one small graph,
 *   convolution [-> + bias] [-> relu],
 * and the first of the engines that its heuristics name which can be had. */
#include <string.h>

#include "kernels/cuda/cuda_ops.h"

enum { MOST_PARTS = 24, MOST_ENGINES = 32 };
static const int64_t most_workspace = 256 << 20;

/* The names of the graph's tensors in a variant pack. */
enum { UID_X = 1, UID_W, UID_Y, UID_BIAS, UID_SUM, UID_BIASED };

/* Descriptors made so far; a failure sticks. */
struct builder {
    const cuda_libs *l;
    cudnnBackendDescriptor_t part[MOST_PARTS];
    int count;
    cudnnStatus_t st;
};

static cudnnBackendDescriptor_t make(struct builder *b, cudnnBackendDescriptorType_t type) {
    cudnnBackendDescriptor_t d = NULL;
    if (!b->st && b->count == MOST_PARTS) b->st = CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED;
    if (!b->st) b->st = b->l->cudnnBackendCreateDescriptor(type, &d);
    if (!b->st) b->part[b->count++] = d;
    return d;
}

static void set(struct builder *b, cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                cudnnBackendAttributeType_t type, int64_t n, const void *values) {
    if (!b->st) b->st = b->l->cudnnBackendSetAttribute(d, name, type, n, values);
}

static void set_part(struct builder *b, cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                     cudnnBackendDescriptor_t value) {
    set(b, d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
}

static void finalize(struct builder *b, cudnnBackendDescriptor_t d) {
    if (!b->st) b->st = b->l->cudnnBackendFinalize(d);
}

static cudnnDataType_t type_of(cuda_x_kind kind) { return kind == CUDA_X_F32 ? CUDNN_DATA_FLOAT : CUDNN_DATA_HALF; }

/* dims n, c, h, w in NHWC order. A virtual one is never in memory. */
static cudnnBackendDescriptor_t tensor(struct builder *b, int64_t uid, cudnnDataType_t type, const int64_t dims[4],
                                       bool is_virtual) {
    const int64_t c = dims[1], h = dims[2], w = dims[3], strides[4] = {h * w * c, 1, w * c, c}, alignment = 16;
    cudnnBackendDescriptor_t d = make(b, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    set(b, d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
    set(b, d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dims);
    set(b, d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, strides);
    set(b, d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &uid);
    set(b, d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment);
    set(b, d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &is_virtual);
    finalize(b, d);
    return d;
}

static cudnnBackendDescriptor_t convolution(struct builder *b, const cuda_dnn_shape *s, cudnnBackendDescriptor_t x,
                                            cudnnBackendDescriptor_t w, cudnnBackendDescriptor_t y) {
    const cudnnDataType_t sums = CUDNN_DATA_FLOAT;
    const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    const int64_t dims = 2, pads[2] = {s->pad_h, s->pad_w}, strides[2] = {s->stride, s->stride}, dilations[2] = {1, 1};
    const float alpha = 1, beta = 0;
    cudnnBackendDescriptor_t d = make(b, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
    set(b, d, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &sums);
    set(b, d, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
    set(b, d, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &dims);
    set(b, d, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, pads);
    set(b, d, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, pads);
    set(b, d, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, strides);
    set(b, d, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, dilations);
    finalize(b, d);
    cudnnBackendDescriptor_t op = make(b, CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR);
    set_part(b, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, d);
    set_part(b, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, x);
    set_part(b, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, w);
    set_part(b, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, y);
    set(b, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_TYPE_FLOAT, 1, &alpha);
    set(b, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, CUDNN_TYPE_FLOAT, 1, &beta);
    finalize(b, op);
    return op;
}

/* y = mode(x), or mode(x, other). */
static cudnnBackendDescriptor_t pointwise(struct builder *b, cudnnPointwiseMode_t mode, cudnnBackendDescriptor_t x,
                                          cudnnBackendDescriptor_t other, cudnnBackendDescriptor_t y) {
    const cudnnDataType_t type = CUDNN_DATA_FLOAT;
    cudnnBackendDescriptor_t d = make(b, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    set(b, d, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode);
    set(b, d, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &type);
    finalize(b, d);
    cudnnBackendDescriptor_t op = make(b, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    set_part(b, op, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, d);
    set_part(b, op, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x);
    if (other) set_part(b, op, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, other);
    set_part(b, op, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
    finalize(b, op);
    return op;
}

static cudnnBackendDescriptor_t build_graph(struct builder *b, cudnnHandle_t handle, const cuda_dnn_shape *s) {
    const cudnnDataType_t type = type_of(s->kind);
    const int64_t oh = (s->h + 2 * s->pad_h - s->r) / s->stride + 1, ow = (s->w + 2 * s->pad_w - s->s) / s->stride + 1;
    const int64_t x_dims[4] = {s->batch, s->c, s->h, s->w}, w_dims[4] = {s->k, s->c, s->r, s->s};
    const int64_t y_dims[4] = {s->batch, s->k, oh, ow}, bias_dims[4] = {1, s->k, 1, 1};
    cudnnBackendDescriptor_t ops[3];
    int count = 0;
    cudnnBackendDescriptor_t x = tensor(b, UID_X, type, x_dims, false), w = tensor(b, UID_W, type, w_dims, false);
    cudnnBackendDescriptor_t y = tensor(b, UID_Y, type, y_dims, false), last = y;
    if (s->bias || s->relu) last = tensor(b, UID_SUM, CUDNN_DATA_FLOAT, y_dims, true);
    ops[count++] = convolution(b, s, x, w, last);
    if (s->bias) {
        cudnnBackendDescriptor_t bias = tensor(b, UID_BIAS, CUDNN_DATA_FLOAT, bias_dims, false);
        cudnnBackendDescriptor_t biased = s->relu ? tensor(b, UID_BIASED, CUDNN_DATA_FLOAT, y_dims, true) : y;
        ops[count++] = pointwise(b, CUDNN_POINTWISE_ADD, last, bias, biased);
        last = biased;
    }
    if (s->relu) ops[count++] = pointwise(b, CUDNN_POINTWISE_RELU_FWD, last, NULL, y);
    cudnnBackendDescriptor_t graph = make(b, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    set(b, graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, count, ops);
    if (handle) set(b, graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle);
    finalize(b, graph);
    return graph;
}

/* A plan for one engine, if that can be had. */
static bool try_engine(const cuda_libs *l, cudnnHandle_t handle, cudnnBackendDescriptor_t described,
                       cudnnBackendDescriptor_t engine, cuda_dnn_plan *out) {
    struct builder b = {.l = l};
    int64_t got = 0;
    cudnnBackendDescriptor_t plan = make(&b, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    if (handle) set(&b, plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle);
    set_part(&b, plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, engine);
    if (described) set_part(&b, plan, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, described);
    finalize(&b, plan);
    if (!b.st)
        b.st = l->cudnnBackendGetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &got,
                                           &out->workspace);
    if (!b.st && out->workspace <= most_workspace) {
        out->plan = plan;
        return true;
    }
    if (plan) l->cudnnBackendDestroyDescriptor(plan);
    return false;
}

static void try_heuristics(struct builder *b, cudnnHandle_t handle, cudnnBackendDescriptor_t described,
                           cudnnBackendDescriptor_t graph, cudnnBackendHeurMode_t mode, cuda_dnn_plan *out) {
    const cuda_libs *l = b->l;
    cudnnBackendDescriptor_t engines[MOST_ENGINES];
    int64_t made = 0, found = 0;
    cudnnBackendDescriptor_t heuristics = make(b, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    set_part(b, heuristics, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
    set(b, heuristics, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    if (described) set_part(b, heuristics, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, described);
    finalize(b, heuristics);
    while (!b->st && made < MOST_ENGINES) {
        b->st = l->cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &engines[made]);
        if (!b->st) made++;
    }
    if (!b->st)
        b->st = l->cudnnBackendGetAttribute(heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                            made, &found, engines);
    for (int64_t i = 0; !b->st && i < found && i < made && !out->plan; i++)
        try_engine(l, handle, described, engines[i], out);
    while (made > 0) l->cudnnBackendDestroyDescriptor(engines[--made]);
}

bool cuda_dnn_plan_open(const cuda_libs *l, cudnnHandle_t handle, cudnnBackendDescriptor_t described,
                        const cuda_dnn_shape *shape, cuda_dnn_plan *out) {
    static const cudnnBackendHeurMode_t modes[] = {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK};
    struct builder b = {.l = l};
    *out = (cuda_dnn_plan){.shape = *shape};
    cudnnBackendDescriptor_t graph = build_graph(&b, handle, shape);
    const bool sound = b.st == CUDNN_STATUS_SUCCESS;
    for (size_t i = 0; sound && i < sizeof modes / sizeof *modes && !out->plan; i++) {
        b.st = CUDNN_STATUS_SUCCESS; /* a mode may know nothing of a graph */
        try_heuristics(&b, handle, described, graph, modes[i], out);
    }
    while (b.count > 0) l->cudnnBackendDestroyDescriptor(b.part[--b.count]);
    return out->plan != NULL;
}

void cuda_dnn_plan_close(const cuda_libs *l, cuda_dnn_plan *p) {
    if (p->plan) l->cudnnBackendDestroyDescriptor(p->plan);
    memset(p, 0, sizeof *p);
}

void cuda_dnn_run(cuda_backend *c, const cuda_dnn_plan *p, void *y, const void *x, const void *w, const float *bias) {
    struct builder b = {.l = &c->libs};
    const int64_t uids[] = {UID_X, UID_W, UID_Y, UID_BIAS};
    const void *pointers[] = {x, w, y, bias};
    const int64_t count = p->shape.bias ? 4 : 3;
    void *workspace = cuda_scratch(c, SCRATCH_LIBRARY, (size_t)p->workspace);
    if (!workspace) return;
    cudnnBackendDescriptor_t pack = make(&b, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
    set(&b, pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, count, uids);
    set(&b, pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, count, pointers);
    set(&b, pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace);
    finalize(&b, pack);
    if (!b.st) b.st = c->libs.cudnnBackendExecute(c->dnn, p->plan, pack);
    if (b.st) cuda_fail(c, RUNG_EDEVICE, "cuDNN: a convolution: %s", c->libs.cudnnGetErrorString(b.st));
    while (b.count > 0) c->libs.cudnnBackendDestroyDescriptor(b.part[--b.count]);
}
