/* kernels/cuda/cuda_gemm.c - products by cuBLASLt, with as much of the epilogue as it has.
 *
 * Ours are row-major, cuBLASLt's column-major: y [m, n] = x W^T is its D [n, m] = W^T' x', the same bytes.
 */
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda_ops.h"

/* All that decides which kernel suits a product. */
struct gemm_shape {
    size_t m, n, k, x_row, y_row;
    cuda_x_kind kind;
    cublasLtEpilogue_t epilogue;
    bool adds;                  /* C = residual, beta = 1 */
    uint32_t align_w, align_xy; /* bytes */
};

struct cuda_algo {
    struct gemm_shape shape;
    cublasLtMatmulAlgo_t algo;
};

static bool same_shape(const struct gemm_shape *a, const struct gemm_shape *b) {
    return a->m == b->m && a->n == b->n && a->k == b->k && a->x_row == b->x_row && a->y_row == b->y_row &&
           a->kind == b->kind && a->epilogue == b->epilogue && a->adds == b->adds && a->align_w == b->align_w &&
           a->align_xy == b->align_xy;
}

static bool blas_good(cuda_backend *c, cublasStatus_t st, const char *what) {
    if (st == CUBLAS_STATUS_SUCCESS) return true;
    cuda_fail(c, RUNG_EDEVICE, "cuBLASLt: %s: %s", what, c->libs.cublasLtGetStatusString(st));
    return false;
}

/* The largest power of two up to 256 that divides both. */
static uint32_t alignment_of(const void *a, const void *b) {
    const uintptr_t bits = (uintptr_t)a | (uintptr_t)b | 256;
    return (uint32_t)(bits & (~bits + 1));
}

/* The descriptors of one product. */
struct product {
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t w, x, y;
};

static void product_close(const cuda_libs *l, struct product *p) {
    if (p->desc) l->cublasLtMatmulDescDestroy(p->desc);
    if (p->w) l->cublasLtMatrixLayoutDestroy(p->w);
    if (p->x) l->cublasLtMatrixLayoutDestroy(p->x);
    if (p->y) l->cublasLtMatrixLayoutDestroy(p->y);
}

static cublasStatus_t product_open(const cuda_libs *l, struct product *p, const struct gemm_shape *s,
                                   const float *bias) {
    static const cudaDataType_t types[] = {CUDA_R_32F, CUDA_R_16F, CUDA_R_16BF};
    const cublasOperation_t transposed = CUBLAS_OP_T;
    const cudaDataType_t t = types[s->kind];
    cublasStatus_t st = l->cublasLtMatmulDescCreate(
        &p->desc, s->kind == CUDA_X_F32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F, CUDA_R_32F);
    if (!st)
        st = l->cublasLtMatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed);
    if (!st)
        st =
            l->cublasLtMatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &s->epilogue, sizeof s->epilogue);
    if (!st && bias)
        st = l->cublasLtMatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias);
    if (!st) st = l->cublasLtMatrixLayoutCreate(&p->w, t, s->k, s->n, (int64_t)s->k);
    if (!st) st = l->cublasLtMatrixLayoutCreate(&p->x, t, s->k, s->m, (int64_t)s->x_row);
    if (!st) st = l->cublasLtMatrixLayoutCreate(&p->y, CUDA_R_32F, s->n, s->m, (int64_t)s->y_row);
    return st;
}

/* The library's first choice; a shape meets its heuristics once. */
static const cublasLtMatmulAlgo_t *find_algo(cuda_backend *c, const struct gemm_shape *s, const struct product *p) {
    const cuda_libs *l = &c->libs;
    for (size_t i = 0; i < c->algo_count; i++)
        if (same_shape(&c->algos[i].shape, s)) return &c->algos[i].algo;
    if (c->algo_count == c->algo_cap) {
        const size_t cap = c->algo_cap ? 2 * c->algo_cap : 64;
        struct cuda_algo *grown = realloc(c->algos, cap * sizeof *grown);
        if (!grown) {
            cuda_fail(c, RUNG_ENOMEM, "no memory for %zu kinds of products", cap);
            return NULL;
        }
        c->algos = grown;
        c->algo_cap = cap;
    }
    cublasLtMatmulPreference_t wanted = NULL;
    cublasLtMatmulHeuristicResult_t found;
    int count = 0;
    const size_t bytes = c->scratch_bytes[SCRATCH_LIBRARY];
    const struct {
        cublasLtMatmulPreferenceAttributes_t name;
        const void *value;
        size_t size;
    } attributes[] = {
        {CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes, sizeof bytes},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &s->align_w, sizeof s->align_w},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &s->align_xy, sizeof s->align_xy},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &s->align_xy, sizeof s->align_xy},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &s->align_xy, sizeof s->align_xy},
    };
    cublasStatus_t st = l->cublasLtMatmulPreferenceCreate(&wanted);
    for (size_t i = 0; !st && i < sizeof attributes / sizeof *attributes; i++)
        st = l->cublasLtMatmulPreferenceSetAttribute(wanted, attributes[i].name, attributes[i].value,
                                                     attributes[i].size);
    if (!st)
        st = l->cublasLtMatmulAlgoGetHeuristic(c->blas, p->desc, p->w, p->x, p->y, p->y, wanted, 1, &found, &count);
    if (wanted) l->cublasLtMatmulPreferenceDestroy(wanted);
    if (!st && count == 0) st = CUBLAS_STATUS_NOT_SUPPORTED;
    if (!blas_good(c, st, "no kernel for a product")) return NULL;
    c->algos[c->algo_count] = (struct cuda_algo){*s, found.algo};
    return &c->algos[c->algo_count++].algo;
}

/* residual: what beta = 1 adds; NULL: nothing. */
static void multiply_part(cuda_backend *c, float *y, size_t y_row, const void *x, size_t x_row, size_t m,
                          const cuda_matrix *w, cublasLtEpilogue_t epilogue, const float *bias, const float *residual) {
    const float one = 1, beta = residual ? 1 : 0;
    struct product p = {0};
    const void *plain = cuda_matrix_plain(c, w);
    if (!plain) return;
    const struct gemm_shape s = {
        .m = m,
        .n = w->n,
        .k = w->kp,
        .x_row = x_row,
        .y_row = y_row,
        .kind = cuda_matrix_kind(w),
        .epilogue = epilogue,
        .adds = residual != NULL,
        .align_w = alignment_of(plain, bias),
        .align_xy = alignment_of(x, y) < alignment_of(residual, y) ? alignment_of(x, y) : alignment_of(residual, y)};
    if (blas_good(c, product_open(&c->libs, &p, &s, bias), "a product's description")) {
        const cublasLtMatmulAlgo_t *algo = find_algo(c, &s, &p);
        if (algo)
            blas_good(c,
                      c->libs.cublasLtMatmul(c->blas, p.desc, &one, plain, p.w, x, p.x, &beta, residual ? residual : y,
                                             p.y, y, p.y, algo, c->scratch[SCRATCH_LIBRARY],
                                             c->scratch_bytes[SCRATCH_LIBRARY], c->stream),
                      "a product");
    }
    product_close(&c->libs, &p);
}

/* The small parts of bf16 activations first, without the epilogue. */
static void multiply(cuda_backend *c, float *y, size_t y_row, const void *x, size_t x_row, size_t m,
                     const cuda_matrix *w, cublasLtEpilogue_t epilogue, const float *bias, const float *residual) {
    if (cuda_matrix_kind(w) == CUDA_X_BF16) {
        const uint16_t *low = (const uint16_t *)x + m * x_row;
        multiply_part(c, y, y_row, low, x_row, m, w, CUBLASLT_EPILOGUE_DEFAULT, NULL, residual);
        residual = y;
    }
    multiply_part(c, y, y_row, x, x_row, m, w, epilogue, bias, residual);
}

void cuda_finish_sums(cuda_backend *c, float *y, const void *sums, cuda_x_kind kind, size_t sums_row, size_t m,
                      const cuda_matrix *w, const rung_epilogue *ep) {
    const cuda_epilogue_args a = {.y = y,
                                  .y_row = ep->act == RUNG_ACT_GEGLU ? w->n / 2 : w->n,
                                  .sums = sums,
                                  .kind = kind,
                                  .sums_row = sums_row,
                                  .m = m,
                                  .n = w->n,
                                  .scale = w->scale,
                                  .bias = w->bias,
                                  .ep = *ep,
                                  .range = c->range};
    cuda_k_epilogue(c->stream, &a);
}

void cuda_epilogue_key(uint64_t k[EPILOGUE_KEYS], const rung_epilogue *ep) {
    k[0] = cuda_key_of(ep->sample_add);
    k[1] = ep->sample_add_stride;
    k[2] = (uint64_t)ep->act;
    k[3] = cuda_key_of(ep->gate);
    k[4] = ep->gate_stride;
    k[5] = cuda_key_of(ep->residual);
    k[6] = cuda_key_bits(ep->out_scale);
    k[7] = ep->rows_per_sample;
}

void cuda_gemm(cuda_backend *c, float *y, const void *x, size_t x_row, size_t m, const cuda_matrix *w,
               const rung_epilogue *ep) {
    const bool plain = !w->scale && !ep->sample_add && !ep->gate && (ep->out_scale == 0 || ep->out_scale == 1);
    const bool has_act = ep->act != RUNG_ACT_NONE;
    if (m == 0) return;
    if (plain && !has_act) {
        multiply(c, y, w->n, x, x_row, m, w, w->bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT, w->bias,
                 ep->residual);
    } else if (plain && ep->act == RUNG_ACT_RELU && !ep->residual) {
        multiply(c, y, w->n, x, x_row, m, w, w->bias ? CUBLASLT_EPILOGUE_RELU_BIAS : CUBLASLT_EPILOGUE_RELU, w->bias,
                 NULL);
    } else if (plain && ep->act == RUNG_ACT_GELU_TANH && !ep->residual) { /* cuBLASLt's GELU is the tanh form */
        multiply(c, y, w->n, x, x_row, m, w, w->bias ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_GELU, w->bias,
                 NULL);
    } else {
        const bool in_place = ep->act != RUNG_ACT_GEGLU && ep->residual != y;
        float *sums = in_place ? y : cuda_scratch(c, SCRATCH_SUMS, m * w->n * sizeof *sums);
        if (!sums) return;
        multiply(c, sums, w->n, x, x_row, m, w, CUBLASLT_EPILOGUE_DEFAULT, NULL, NULL);
        cuda_finish_sums(c, y, sums, CUDA_X_F32, w->n, m, w, ep);
    }
}
