/* tests/cuda_host/dnn.cpp - cuDNN's graph API for graphs of one convolution and a tail of bias and relu: descriptors
 * hold what they are told; finalising checks it as the documentation has it; executing walks the graph. What the real
 * library was seen to refuse (a 16-bit convolution with an f32 bias or result) is refused here too. */
#include "cudnn.h"

#include <cstring>
#include <map>
#include <memory>
#include <vector>

#include "stand_in.h"

struct cudnnContext {
    cudaStream_t stream;
};

namespace {
/* A descriptor keeps copies of what it refers to, so that the originals may be destroyed. */
struct descriptor {
    cudnnBackendDescriptorType_t type;
    bool done = false;
    std::map<int, std::vector<unsigned char>> values;
    std::map<int, std::vector<std::shared_ptr<descriptor>>> parts;
};
typedef std::shared_ptr<descriptor> part;

unsigned refused_types;

descriptor &of(cudnnBackendDescriptor_t d) { return **(part *)d; }

size_t size_of(cudnnBackendAttributeType_t t) {
    switch (t) {
    case CUDNN_TYPE_BOOLEAN:
        return 1;
    case CUDNN_TYPE_INT64:
    case CUDNN_TYPE_VOID_PTR:
    case CUDNN_TYPE_HANDLE:
    case CUDNN_TYPE_BACKEND_DESCRIPTOR:
        return 8;
    default:
        return 4;
    }
}

template <class T> T value(const descriptor &d, int name, size_t i = 0) {
    T v = {};
    const auto found = d.values.find(name);
    if (found != d.values.end() && found->second.size() >= (i + 1) * sizeof v)
        memcpy(&v, found->second.data() + i * sizeof v, sizeof v);
    return v;
}
bool has(const descriptor &d, int name, size_t bytes) {
    const auto found = d.values.find(name);
    return found != d.values.end() && found->second.size() == bytes;
}
const descriptor *only(const descriptor &d, int name) {
    const auto found = d.parts.find(name);
    return found != d.parts.end() && found->second.size() == 1 ? found->second[0].get() : nullptr;
}

bool sound_tensor(const descriptor &d) {
    if (!has(d, CUDNN_ATTR_TENSOR_DATA_TYPE, 4) || !has(d, CUDNN_ATTR_TENSOR_DIMENSIONS, 32) ||
        !has(d, CUDNN_ATTR_TENSOR_STRIDES, 32) || !has(d, CUDNN_ATTR_TENSOR_UNIQUE_ID, 8) ||
        !has(d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, 8))
        return false;
    for (size_t i = 0; i < 4; i++)
        if (value<int64_t>(d, CUDNN_ATTR_TENSOR_DIMENSIONS, i) < 1) return false;
    const int64_t c = value<int64_t>(d, CUDNN_ATTR_TENSOR_DIMENSIONS, 1);
    return value<int64_t>(d, CUDNN_ATTR_TENSOR_STRIDES, 1) == 1 && value<int64_t>(d, CUDNN_ATTR_TENSOR_STRIDES, 3) == c;
}

bool sound_convolution(const descriptor &d) {
    return value<cudnnConvolutionMode_t>(d, CUDNN_ATTR_CONVOLUTION_CONV_MODE) == CUDNN_CROSS_CORRELATION &&
           value<int64_t>(d, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS) == 2 &&
           has(d, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, 16) && has(d, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, 16) &&
           has(d, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, 16) &&
           value<int64_t>(d, CUDNN_ATTR_CONVOLUTION_DILATIONS) == 1;
}

cudnnDataType_t type_of(const descriptor &t) { return value<cudnnDataType_t>(t, CUDNN_ATTR_TENSOR_DATA_TYPE); }
int64_t dim(const descriptor &t, size_t i) { return value<int64_t>(t, CUDNN_ATTR_TENSOR_DIMENSIONS, i); }

/* Shapes that belong to each other. */
bool sound_forward(const descriptor &d) {
    const descriptor *c = only(d, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC);
    const descriptor *x = only(d, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X);
    const descriptor *w = only(d, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W);
    const descriptor *y = only(d, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y);
    if (!c || !x || !w || !y || type_of(*x) != type_of(*w) || dim(*x, 1) != dim(*w, 1) || dim(*y, 1) != dim(*w, 0) ||
        dim(*y, 0) != dim(*x, 0))
        return false;
    for (size_t i = 0; i < 2; i++) {
        const int64_t pre = value<int64_t>(*c, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, i);
        const int64_t post = value<int64_t>(*c, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, i);
        const int64_t stride = value<int64_t>(*c, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, i);
        if (stride < 1 || pre < 0 || dim(*y, 2 + i) != (dim(*x, 2 + i) + pre + post - dim(*w, 2 + i)) / stride + 1)
            return false;
    }
    return true;
}

bool sound(const descriptor &d) {
    switch (d.type) {
    case CUDNN_BACKEND_TENSOR_DESCRIPTOR:
        return sound_tensor(d);
    case CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR:
        return sound_convolution(d);
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR:
        return sound_forward(d);
    case CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR:
        return only(d, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR) && only(d, CUDNN_ATTR_OPERATION_POINTWISE_XDESC) &&
               only(d, CUDNN_ATTR_OPERATION_POINTWISE_YDESC);
    case CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR:
        return d.parts.count(CUDNN_ATTR_OPERATIONGRAPH_OPS) && has(d, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, 8);
    case CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR:
        return only(d, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH);
    case CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR:
        return only(d, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG) && has(d, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, 8);
    default:
        return true;
    }
}

const descriptor &first_op(const descriptor &graph) {
    return *graph.parts.find(CUDNN_ATTR_OPERATIONGRAPH_OPS)->second[0];
}
const descriptor &graph_of(const descriptor &plan) { /* the engine carries its graph */
    return *only(*only(plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG), CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH);
}

/* Has the library an engine for it? */
bool known(const descriptor &graph) {
    const descriptor &conv = first_op(graph);
    const cudnnDataType_t x = type_of(*only(conv, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X));
    const auto &ops = graph.parts.find(CUDNN_ATTR_OPERATIONGRAPH_OPS)->second;
    const descriptor *last = only(*ops.back(), ops.size() > 1 ? (int)CUDNN_ATTR_OPERATION_POINTWISE_YDESC
                                                              : (int)CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y);
    if (refused_types & 1u << x || type_of(*last) != x) return false;
    if (x != CUDNN_DATA_FLOAT &&
        (ops.size() > 1 || dim(*only(conv, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W), 1) % 8))
        return false;
    return true;
}

/* ---- execution ---- */

struct job {
    const void *x, *w;
    void *y;
    const float *bias;
    bool relu;
    cudaDataType_t type;
    int64_t batch, h, wd, c, k, r, s, oh, ow, stride[2], pad[2];
};

void store(const job &j, size_t i, float v) {
    if (j.type == CUDA_R_32F)
        ((float *)j.y)[i] = v;
    else
        ((uint16_t *)j.y)[i] = j.type == CUDA_R_16F ? cuda_host::f32_to_f16(v) : cuda_host::f32_to_bf16(v);
}

void convolve(const job &j) {
    const size_t taps = (size_t)(j.r * j.s * j.c), k = (size_t)j.k;
    std::vector<float> filter(taps * k), sums(k); /* [taps, k] */
    for (size_t o = 0; o < k; o++)
        for (size_t t = 0; t < taps; t++) filter[t * k + o] = cuda_host::operand(j.w, o * taps + t, j.type);
    for (int64_t pixel = 0; pixel < j.batch * j.oh * j.ow; pixel++) {
        const int64_t ox = pixel % j.ow, oy = pixel / j.ow % j.oh, picture = pixel / j.ow / j.oh;
        std::fill(sums.begin(), sums.end(), 0.0f);
        for (int64_t t = 0; t < j.r * j.s; t++) {
            const int64_t iy = oy * j.stride[0] + t / j.s - j.pad[0], ix = ox * j.stride[1] + t % j.s - j.pad[1];
            if (iy < 0 || ix < 0 || iy >= j.h || ix >= j.wd) continue;
            for (int64_t c = 0; c < j.c; c++) {
                const float v = cuda_host::operand(j.x, (size_t)(((picture * j.h + iy) * j.wd + ix) * j.c + c), j.type);
                const float *f = &filter[(size_t)(t * j.c + c) * k];
                for (size_t o = 0; o < k; o++) sums[o] += v * f[o];
            }
        }
        for (size_t o = 0; o < k; o++) {
            float v = sums[o] + (j.bias ? j.bias[o] : 0);
            store(j, (size_t)pixel * k + o, j.relu && v < 0 ? 0 : v);
        }
    }
}

void *pointer_of(const descriptor &pack, int64_t uid) {
    const size_t n = pack.values.at(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS).size() / 8;
    for (size_t i = 0; i < n; i++)
        if (value<int64_t>(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, i) == uid)
            return value<void *>(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, i);
    return nullptr;
}
void *memory_of(const descriptor &pack, const descriptor &t) {
    if (value<bool>(t, CUDNN_ATTR_TENSOR_IS_VIRTUAL)) return nullptr;
    void *p = pointer_of(pack, value<int64_t>(t, CUDNN_ATTR_TENSOR_UNIQUE_ID));
    return (uintptr_t)p % (uintptr_t)value<int64_t>(t, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT) ? nullptr : p;
}

bool read_job(job &j, const descriptor &graph, const descriptor &pack) {
    const descriptor &conv = first_op(graph);
    const descriptor &c = *only(conv, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC);
    const descriptor &x = *only(conv, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X);
    const descriptor &w = *only(conv, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W);
    const descriptor *y = only(conv, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y);
    j = {};
    j.type = type_of(x) == CUDNN_DATA_FLOAT ? CUDA_R_32F : type_of(x) == CUDNN_DATA_HALF ? CUDA_R_16F : CUDA_R_16BF;
    j.batch = dim(x, 0), j.c = dim(x, 1), j.h = dim(x, 2), j.wd = dim(x, 3);
    j.k = dim(w, 0), j.r = dim(w, 2), j.s = dim(w, 3), j.oh = dim(*y, 2), j.ow = dim(*y, 3);
    for (size_t i = 0; i < 2; i++) {
        j.stride[i] = value<int64_t>(c, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, i);
        j.pad[i] = value<int64_t>(c, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, i);
    }
    const auto &ops = graph.parts.find(CUDNN_ATTR_OPERATIONGRAPH_OPS)->second;
    for (size_t i = 1; i < ops.size(); i++) {
        const descriptor &mode = *only(*ops[i], CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR);
        if (only(*ops[i], CUDNN_ATTR_OPERATION_POINTWISE_XDESC) != y) return false; /* a chain */
        y = only(*ops[i], CUDNN_ATTR_OPERATION_POINTWISE_YDESC);
        if (value<cudnnPointwiseMode_t>(mode, CUDNN_ATTR_POINTWISE_MODE) == CUDNN_POINTWISE_RELU_FWD)
            j.relu = true;
        else if (!(j.bias = (float *)memory_of(pack, *only(*ops[i], CUDNN_ATTR_OPERATION_POINTWISE_BDESC))))
            return false;
    }
    j.x = memory_of(pack, x);
    j.w = memory_of(pack, w);
    j.y = memory_of(pack, *y);
    return j.x && j.w && j.y;
}
} // namespace

extern "C" {
void cuda_host_dnn_refuse(unsigned data_types) { refused_types = data_types; }

cudnnStatus_t cudnnCreate(cudnnHandle_t *h) {
    cudaError_t e;
    if (cuda_host::fails("cudnnCreate", &e)) return CUDNN_STATUS_NOT_INITIALIZED;
    *h = new cudnnContext{nullptr};
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnDestroy(cudnnHandle_t h) {
    delete h;
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetStream(cudnnHandle_t h, cudaStream_t s) {
    h->stream = s;
    return CUDNN_STATUS_SUCCESS;
}
const char *cudnnGetErrorString(cudnnStatus_t st) {
    switch (st) {
    case CUDNN_STATUS_SUCCESS:
        return "CUDNN_STATUS_SUCCESS";
    case CUDNN_STATUS_NOT_INITIALIZED:
        return "CUDNN_STATUS_NOT_INITIALIZED";
    case CUDNN_STATUS_BAD_PARAM:
        return "CUDNN_STATUS_BAD_PARAM";
    case CUDNN_STATUS_NOT_SUPPORTED:
        return "CUDNN_STATUS_NOT_SUPPORTED";
    case CUDNN_STATUS_EXECUTION_FAILED:
        return "CUDNN_STATUS_EXECUTION_FAILED";
    case CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED:
        return "CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED";
    }
    return "unknown";
}

cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t *d) {
    part p = std::make_shared<descriptor>();
    p->type = type;
    *d = new part(p);
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t d) {
    delete (part *)d;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t n, const void *values) {
    if (of(d).done || n < 1) return CUDNN_STATUS_BAD_PARAM;
    if (type == CUDNN_TYPE_BACKEND_DESCRIPTOR) {
        for (int64_t i = 0; i < n; i++) {
            cudnnBackendDescriptor_t other = ((cudnnBackendDescriptor_t *)values)[i];
            if (!other || !of(other).done) return CUDNN_STATUS_BAD_PARAM;
            of(d).parts[name].push_back(*(part *)other);
        }
        return CUDNN_STATUS_SUCCESS;
    }
    const unsigned char *bytes = (const unsigned char *)values;
    of(d).values[name].assign(bytes, bytes + (size_t)n * size_of(type));
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t d) {
    cudaError_t e;
    if (!sound(of(d))) return CUDNN_STATUS_BAD_PARAM;
    if (of(d).type == CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR && cuda_host::fails("cudnnBackendFinalize", &e))
        return CUDNN_STATUS_NOT_SUPPORTED;
    of(d).done = true;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t, int64_t room, int64_t *n, void *values) {
    const int64_t workspace = 4096;
    if (!of(d).done) return CUDNN_STATUS_BAD_PARAM;
    if (name == CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE) {
        memcpy(values, &workspace, sizeof workspace);
        *n = 1;
        return CUDNN_STATUS_SUCCESS;
    }
    if (name != CUDNN_ATTR_ENGINEHEUR_RESULTS) return CUDNN_STATUS_BAD_PARAM;
    part graph = of(d).parts[CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH][0];
    *n = known(*graph) ? 1 : 0;
    if (room < 1 || *n == 0) return CUDNN_STATUS_SUCCESS;
    descriptor &engine = of(((cudnnBackendDescriptor_t *)values)[0]);
    engine.parts[CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH] = {graph};
    engine.done = true;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendExecute(cudnnHandle_t h, cudnnBackendDescriptor_t plan, cudnnBackendDescriptor_t pack) {
    cudaError_t e;
    job j;
    if (cuda_host::fails("cudnnBackendExecute", &e)) return CUDNN_STATUS_EXECUTION_FAILED;
    if (!of(plan).done || !of(pack).done || !value<void *>(of(pack), CUDNN_ATTR_VARIANT_PACK_WORKSPACE) ||
        !read_job(j, graph_of(of(plan)), of(pack)))
        return CUDNN_STATUS_BAD_PARAM;
    cuda_host::submit(h->stream, [j] { convolve(j); });
    return CUDNN_STATUS_SUCCESS;
}
}
