/* kernels/cuda/cuda_ops.h - the GPU's side of kernels/backend.h: what fills its table, file by file. Internal.
 *
 * Precision. Activations are f32 in memory. Products run on tensor cores with f32 accumulation, on operands of the
 * weights' kind: F32 weights meet f32 activations as TF32 (10 bits of mantissa), F16 and six-bit weights meet
 * activations rounded to f16, BF16 weights the sum of two bf16 numbers for each activation, in two products: one alone
 * has 8 bits, which shows in a picture. BF16 convolutions run as TF32, their weights expanded for each call, since what
 * cuDNN computes in bf16 it also returns in bf16. Six-bit codes are exact in f16; a row's factor
 * is applied to the f32 sum. Everything else (norms, softmax, activation functions, epilogues) is f32. An activation
 * that f16 cannot hold is an error at the next sync, never an infinity in the picture.
 */
#ifndef RUNG_CUDA_OPS_H
#define RUNG_CUDA_OPS_H
#include <cuda_runtime_api.h>
#include <pthread.h>

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/cuda_libs.h"
#include "kernels/weight_rows.h"

/* Device scratch that lasts from one operation to the next only; grows to the largest need. */
typedef enum {
    SCRATCH_X,
    SCRATCH_SUMS,
    SCRATCH_WEIGHTS,
    SCRATCH_STATS,
    SCRATCH_SPLIT,
    SCRATCH_LIBRARY,
    SCRATCHES
} cuda_scratch_kind;

/* Pinned memory on the way to the device, in chunks taken in turn. */
enum { STAGING_CHUNKS = 4, STAGING_BYTES = 4 << 20 };
typedef struct {
    unsigned char *base;
    size_t used;
    cudaEvent_t sent; /* after the last copy out of this chunk */
} cuda_staging;

/* A download that waits in pinned memory for sync. */
enum { MOST_DOWNLOADS = 16 };
typedef struct {
    void *host;
    const void *pinned;
    size_t bytes;
} cuda_download;

/* What becomes of an operation. */
typedef enum {
    CUDA_RUN,    /* it is queued */
    CUDA_RECORD, /* it is queued on a stream that is captured */
    CUDA_REPLAY, /* it is in the graph already */
} cuda_mode;

typedef struct {
    rung_backend base;
    int device;
    int multiprocessors;
    cudaStream_t stream;
    pthread_mutex_t lock; /* recursive; held for an operation, and from step_begin to step_end */
    rung_err first;       /* the first error since the last sync */
    cuda_libs libs;
    cublasLtHandle_t blas;
    cudnnHandle_t dnn;
    void *scratch[SCRATCHES];
    size_t scratch_bytes[SCRATCHES];
    unsigned generation;            /* of the scratch: recordings hold its addresses */
    unsigned *range, *range_pinned; /* device, host: not 0 once an activation did not fit f16 */
    cuda_staging staging[STAGING_CHUNKS];
    int chunk;
    struct cuda_algo *algos; /* cuda_gemm.c: cuBLASLt's choice for each shape */
    size_t algo_count, algo_cap;
    cuda_mode mode;
    rung_recording *recording; /* between step_begin and step_end */
    bool record_failed;        /* something that cannot be captured was asked for */
    cuda_download downloads[MOST_DOWNLOADS];
    size_t download_count;
} cuda_backend;

static inline cuda_backend *cuda_of(rung_backend *be) { return (cuda_backend *)be; }

extern const rung_backend_ops cuda_operations; /* cuda_backend.c */

/* ---- cuda_device.c: errors, memory ------------------------------------------------------------------------------- */

void cuda_close(rung_backend *be);
rung_status cuda_sync(rung_backend *be, rung_err *err);

/** Keeps the first error. */
void cuda_fail(cuda_backend *c, rung_status code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/** False, and the error is kept, when st is none. */
bool cuda_good(cuda_backend *c, cudaError_t st, const char *what);

/** Opens an operation: takes the lock, and says whether there is work to queue: not after an error, and not when a
 *  recording is played back. key [n]: everything that the operation depends on but the contents of memory. */
bool cuda_begin(cuda_backend *c, const uint64_t *key, size_t n);
/** Its end, after true from cuda_begin: looks for an error of its launches. */
void cuda_end(cuda_backend *c, const char *what);
#define CUDA_BEGIN(c, ...)                                                                                             \
    cuda_begin(c, (const uint64_t[]){__VA_ARGS__}, sizeof((const uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t))
static inline uint64_t cuda_key_of(const void *p) { return (uint64_t)(uintptr_t)p; }
uint64_t cuda_key_bits(float f);
/* The first number of a key. */
enum {
    KEY_LINEAR,
    KEY_CONV,
    KEY_ATTENTION,
    KEY_LAYER_NORM,
    KEY_RMS_NORM,
    KEY_GROUP_NORM,
    KEY_GROUP_AFFINE,
    KEY_ACT,
    KEY_ADD,
    KEY_ADD_ROWS,
    KEY_COPY,
    KEY_LOOKUP,
    KEY_UNPATCHIFY,
    KEY_SINUSOIDS,
    KEY_COMBINE,
    KEY_NORMAL,
    KEY_UPLOAD,
    KEY_DOWNLOAD
};

/** `bytes` of scratch; NULL after an error. What it held before is lost. */
void *cuda_scratch(cuda_backend *c, cuda_scratch_kind kind, size_t bytes);

rung_status cuda_alloc(rung_backend *be, void **out, size_t bytes, rung_err *err);
void cuda_free(rung_backend *be, void *p);

/* ---- cuda_transfer.c --------------------------------------------------------------------------------------------- */

rung_status cuda_staging_open(cuda_backend *c, rung_err *err);
void cuda_staging_close(cuda_backend *c);
void cuda_upload(rung_backend *be, void *dst, const void *host_src, size_t bytes);
void cuda_download_to(rung_backend *be, void *host_dst, const void *src, size_t bytes);
/** After the stream's end: what waits in pinned memory goes where it was wanted. */
void cuda_downloads_finish(cuda_backend *c);

/* ---- cuda_record.c: one denoiser step as a graph ----------------------------------------------------------------- */

void cuda_step_begin(rung_backend *be, rung_recording **rec);
bool cuda_step_end(rung_backend *be, rung_recording *rec);
void cuda_recording_close(rung_backend *be, rung_recording **rec);
/** Mixes an operation's key into the recording under way. */
void cuda_record_key(rung_recording *rec, const uint64_t *key, size_t n);
/** A pinned place for a transfer of the step, the same one each time the step is made; NULL when there is none yet. */
void *cuda_record_slot(cuda_backend *c, size_t bytes);

/* ---- cuda_matrix.c: weights -------------------------------------------------------------------------------------- */

/* W [n, k] on the device: [rows, kp] elements, FP6 rows of kp codes, 8 in 6 bytes (kernels/base/fp6.h). A convolution's
 * row is [taps, cp] channels; a linear layer has one tap. What is filled up is zero. */
typedef struct {
    gemm_dtype dtype;
    size_t n, taps, channels;
    size_t rows, cp, kp; /* n and channels rounded up to 8 (n for a convolution only), taps * cp */
    bool conv;
    void *w;
    float *scale, *bias; /* f32 [rows] on the device; NULL: none */
} cuda_matrix;

/** conv: for a convolution; n becomes a multiple of 8, as cuDNN's tensor-core kernels want it. RUNG_EFORMAT,
 * RUNG_ESHAPE, RUNG_ENOMEM, RUNG_EDEVICE. */
rung_status cuda_matrix_open(cuda_backend *c, cuda_matrix *out, const gemm_part *parts, size_t count, rung_store store,
                             bool conv, rung_err *err);
void cuda_matrix_close(cuda_backend *c, cuda_matrix *w); /* a zeroed one is fine */
/** What the activations become that meet these weights, and the bytes of one (of bf16 there are two). */
cuda_x_kind cuda_matrix_kind(const cuda_matrix *w);
static inline size_t cuda_x_bytes(cuda_x_kind kind) { return kind == CUDA_X_F16 ? sizeof(uint16_t) : sizeof(float); }
/** The weights in the form that the libraries take, in SCRATCH_WEIGHTS where they have to be expanded; NULL after an
 *  error. */
const void *cuda_matrix_plain(cuda_backend *c, const cuda_matrix *w);

/* ---- cuda_gemm.c: cuBLASLt --------------------------------------------------------------------------------------- */

/** y[r, :] = ep(x[r, :] W^T): x in the kind of the weights, rows of kp elements x_row apart; bf16 as cuda_k_narrow
 *  leaves it. ep is never NULL. */
void cuda_gemm(cuda_backend *c, float *y, const void *x, size_t x_row, size_t m, const cuda_matrix *w,
               const rung_epilogue *ep);
/** Sums of `kind` through the whole epilogue, the weights' factors and bias among it. */
void cuda_finish_sums(cuda_backend *c, float *y, const void *sums, cuda_x_kind kind, size_t sums_row, size_t m,
                      const cuda_matrix *w, const rung_epilogue *ep);
/** The rest of an epilogue's operands as part of a key, from k[0] on. */
enum { EPILOGUE_KEYS = 8 };
void cuda_epilogue_key(uint64_t k[EPILOGUE_KEYS], const rung_epilogue *ep);

/* ---- cuda_dnn.c: cuDNN ------------------------------------------------------------------------------------------- */

/* A convolution as cuDNN sees it: NHWC, x [batch, h, w, c], filter [k, r, s, c], y of the same kind: f32 or f16. */
typedef struct {
    cuda_x_kind kind;
    int64_t batch, h, w, c, k, r, s, stride, pad_h, pad_w;
    bool bias, relu; /* fused: y = relu(conv + bias); f32 only, the bias of f16 would be rounded */
} cuda_dnn_shape;

typedef struct {
    cuda_dnn_shape shape;
    cudnnBackendDescriptor_t plan; /* NULL: cuDNN has none */
    int64_t workspace;
} cuda_dnn_plan;

/** Asks cuDNN's heuristics. `described` is a CUDNN_BACKEND_DEVICEPROP descriptor of another GPU, for tests; NULL: the
 *  handle's own. False when it has nothing for this shape. */
bool cuda_dnn_plan_open(const cuda_libs *l, cudnnHandle_t handle, cudnnBackendDescriptor_t described,
                        const cuda_dnn_shape *shape, cuda_dnn_plan *out);
void cuda_dnn_plan_close(const cuda_libs *l, cuda_dnn_plan *p);
/** bias: f32 [k], with a shape that has it. */
void cuda_dnn_run(cuda_backend *c, const cuda_dnn_plan *p, void *y, const void *x, const void *w, const float *bias);

/* ---- the table's operations -------------------------------------------------------------------------------------- */

rung_status cuda_linear_open(rung_backend *be, rung_linear **out, const rung_tensor *const *w,
                             const rung_tensor *const *bias, size_t parts, rung_store type, rung_err *err);
void cuda_linear_close(rung_backend *be, rung_linear **l);
void cuda_linear(rung_backend *be, float *y, const float *x, size_t x_row, size_t m, const rung_linear *l,
                 const rung_epilogue *ep);
rung_status cuda_conv_open(rung_backend *be, rung_conv **out, const rung_tensor *w, const rung_tensor *bias,
                           rung_store type, rung_err *err);
void cuda_conv_close(rung_backend *be, rung_conv **c);
void cuda_conv(rung_backend *be, float *y, const float *x, const rung_conv *c, const rung_conv_args *a,
               const rung_epilogue *ep);
rung_status cuda_table_open(rung_backend *be, rung_table **out, const rung_tensor *t, rung_err *err);
void cuda_table_close(rung_backend *be, rung_table **t);
void cuda_lookup(rung_backend *be, float *y, const rung_table *t, const int32_t *ids, size_t rows);
#endif
