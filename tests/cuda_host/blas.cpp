/* tests/cuda_host/blas.cpp - cublasLtMatmul as its documentation has it, column-major, for the kinds of product that
 * kernels/cuda/ asks for; anything else is refused. Operands are rounded as tensor cores do it, sums are f32. */
#include "cublasLt.h"

#include <cmath>
#include <cstring>
#include <vector>

#include "stand_in.h"

struct cublasLtContext {
    int unused;
};
struct cublasLtDesc {
    cublasComputeType_t compute;
    cublasOperation_t transa;
    cublasLtEpilogue_t epilogue;
    const float *bias;
};
struct cublasLtLayout {
    cudaDataType_t type;
    size_t rows, cols;
    size_t ld;
};
struct cublasLtPreference {
    size_t workspace;
    uint32_t align[4];
};

namespace {
/* What the heuristics saw: the product has to be the same one. */
struct choice {
    cublasLtEpilogue_t epilogue;
    uint32_t align_a, align_b, align_c, align_d;
    uint64_t m, n, k;
};
static_assert(sizeof(choice) <= sizeof(cublasLtMatmulAlgo_t), "an algo holds it");

struct product {
    cublasLtDesc desc;
    cublasLtLayout la, lb, lc, ld;
    const void *a, *b;
    const float *c;
    float *d;
    float alpha, beta;
};

bool supported(const cublasLtDesc &d, const cublasLtLayout &a, const cublasLtLayout &b, const cublasLtLayout &c,
               const cublasLtLayout &out) {
    if (d.transa != CUBLAS_OP_T || a.type != b.type || c.type != CUDA_R_32F || out.type != CUDA_R_32F) return false;
    if ((d.compute == CUBLAS_COMPUTE_32F_FAST_TF32) != (a.type == CUDA_R_32F)) return false;
    return a.rows == b.rows && a.cols == out.rows && b.cols == out.cols && c.rows == out.rows && c.cols == out.cols &&
           a.ld >= a.rows && b.ld >= b.rows && c.ld >= c.rows && out.ld >= out.rows;
}

float finish(const cublasLtDesc &d, float v, size_t row) {
    if (d.epilogue & CUBLASLT_EPILOGUE_BIAS) v += d.bias[row];
    if (d.epilogue & CUBLASLT_EPILOGUE_RELU) v = v < 0 ? 0 : v;
    if (d.epilogue & CUBLASLT_EPILOGUE_GELU) v = 0.5f * v * (1 + tanhf(0.79788456f * (v + 0.044715f * v * v * v)));
    return v;
}

void multiply(const product &p) {
    const size_t m = p.ld.rows, n = p.ld.cols, k = p.la.rows;
    std::vector<float> at(k * m), row(m);
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < k; j++) at[j * m + i] = cuda_host::operand(p.a, i * p.la.ld + j, p.la.type);
    for (size_t col = 0; col < n; col++) {
        std::fill(row.begin(), row.end(), 0.0f);
        for (size_t j = 0; j < k; j++) {
            const float x = cuda_host::operand(p.b, col * p.lb.ld + j, p.lb.type);
            for (size_t i = 0; i < m; i++) row[i] += x * at[j * m + i];
        }
        for (size_t i = 0; i < m; i++) {
            float v = p.alpha * row[i];
            if (p.beta != 0) v += p.beta * p.c[col * p.lc.ld + i];
            p.d[col * p.ld.ld + i] = finish(p.desc, v, i);
        }
    }
}

bool aligned(const void *p, uint32_t bytes) { return (uintptr_t)p % bytes == 0; }
} // namespace

extern "C" {
cublasStatus_t cublasLtCreate(cublasLtHandle_t *h) {
    cudaError_t e;
    if (cuda_host::fails("cublasLtCreate", &e)) return CUBLAS_STATUS_NOT_INITIALIZED;
    *h = new cublasLtContext;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t h) {
    delete h;
    return CUBLAS_STATUS_SUCCESS;
}
const char *cublasLtGetStatusString(cublasStatus_t st) {
    switch (st) {
    case CUBLAS_STATUS_SUCCESS:
        return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED:
        return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_INVALID_VALUE:
        return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_EXECUTION_FAILED:
        return "CUBLAS_STATUS_EXECUTION_FAILED";
    case CUBLAS_STATUS_NOT_SUPPORTED:
        return "CUBLAS_STATUS_NOT_SUPPORTED";
    }
    return "unknown";
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *d, cublasComputeType_t compute, cudaDataType_t scale) {
    if (scale != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
    *d = new cublasLtDesc{compute, CUBLAS_OP_N, CUBLASLT_EPILOGUE_DEFAULT, nullptr};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t d) {
    delete d;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t d, cublasLtMatmulDescAttributes_t name,
                                              const void *value, size_t bytes) {
    void *to = name == CUBLASLT_MATMUL_DESC_TRANSA     ? (void *)&d->transa
               : name == CUBLASLT_MATMUL_DESC_EPILOGUE ? (void *)&d->epilogue
                                                       : (void *)&d->bias;
    if (bytes != (name == CUBLASLT_MATMUL_DESC_BIAS_POINTER ? sizeof(void *) : 4)) return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(to, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *l, cudaDataType_t type, uint64_t rows, uint64_t cols,
                                          int64_t ld) {
    if (ld < (int64_t)rows) return CUBLAS_STATUS_INVALID_VALUE;
    *l = new cublasLtLayout{type, rows, cols, (size_t)ld};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l) {
    delete l;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *p) {
    *p = new cublasLtPreference{0, {256, 256, 256, 256}};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p) {
    delete p;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t p,
                                                    cublasLtMatmulPreferenceAttributes_t name, const void *value,
                                                    size_t bytes) {
    const bool workspace = name == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
    if (bytes != (workspace ? sizeof p->workspace : sizeof *p->align)) return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(workspace ? (void *)&p->workspace : &p->align[name - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES], value,
           bytes);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t d, cublasLtMatrixLayout_t a,
                                              cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                                              cublasLtMatrixLayout_t out, cublasLtMatmulPreference_t p, int wanted,
                                              cublasLtMatmulHeuristicResult_t *found, int *count) {
    cudaError_t e;
    *count = 0;
    if (wanted < 1 || !supported(*d, *a, *b, *c, *out) || cuda_host::fails("cublasLtMatmulAlgoGetHeuristic", &e))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    const choice made = {d->epilogue, p->align[0], p->align[1], p->align[2],
                         p->align[3], out->rows,   out->cols,   a->rows};
    *found = {};
    memcpy(&found->algo, &made, sizeof made);
    *count = 1;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t d, const void *alpha, const void *a,
                              cublasLtMatrixLayout_t la, const void *b, cublasLtMatrixLayout_t lb, const void *beta,
                              const void *c, cublasLtMatrixLayout_t lc, void *out, cublasLtMatrixLayout_t ld,
                              const cublasLtMatmulAlgo_t *algo, void *workspace, size_t, cudaStream_t stream) {
    cudaError_t e;
    choice made;
    if (cuda_host::fails("cublasLtMatmul", &e)) return CUBLAS_STATUS_EXECUTION_FAILED;
    if (!algo || !workspace || !supported(*d, *la, *lb, *lc, *ld)) return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(&made, algo, sizeof made);
    if (made.epilogue != d->epilogue || made.m != ld->rows || made.n != ld->cols || made.k != la->rows ||
        !aligned(a, made.align_a) || !aligned(b, made.align_b) || !aligned(c, made.align_c) ||
        !aligned(out, made.align_d) || ((d->epilogue & CUBLASLT_EPILOGUE_BIAS) && !d->bias))
        return CUBLAS_STATUS_INVALID_VALUE;
    const product p = {
        *d, *la, *lb, *lc, *ld, a, b, (const float *)c, (float *)out, *(const float *)alpha, *(const float *)beta};
    cuda_host::submit(stream, [p] { multiply(p); });
    return CUBLAS_STATUS_SUCCESS;
}
}
