/* kernels/cuda/cuda_elementwise.cu - memory-bound kernels: a thread for each output, 4 bytes read for each operand. All:
 * grid blocks_for(outputs), block NT. */
#include "kernels/cuda/cuda_common.h"

__global__ void act_f32(float *y, const float *x, size_t n, rung_act act) {
    EACH(i, n) y[i] = apply_act(x[i], act);
}

__global__ void add_f32(float *y, const float *a, const float *b, size_t n) {
    EACH(i, n) y[i] = a[i] + b[i];
}

__global__ void add_rows_f32(float *y, const float *x, const float *row, size_t rows, size_t rows_row, size_t n) {
    EACH(i, rows *n) y[i] = x[i] + row[i / n % rows_row * n + i % n];
}

__global__ void copy2d_f32(float *dst, size_t dst_row, const float *src, size_t src_row, size_t rows, size_t n) {
    EACH(i, rows *n) dst[i / n * dst_row + i % n] = src[i / n * src_row + i % n];
}

static __device__ inline float stored_number(const cuda_row_source &from, size_t i) {
    switch (from.kind) {
    case CUDA_ROWS_F16:
        return __half2float(((const __half *)from.numbers)[i]);
    case CUDA_ROWS_BF16:
        return __bfloat162float(((const __nv_bfloat16 *)from.numbers)[i]);
    case CUDA_ROWS_E3M2: { /* most significant bits first; some codes lie in two bytes */
        const size_t bit = i * E3M2_BITS;
        const unsigned at = bit % 8;
        const unsigned char *p = (const unsigned char *)from.numbers + bit / 8;
        return e3m2_value((unsigned)(p[0] << 8 | (at > 8 - E3M2_BITS ? p[1] : 0)) >> (16 - E3M2_BITS - at) & 63);
    }
    case CUDA_ROWS_F32:
        break;
    }
    return ((const float *)from.numbers)[i];
}

__global__ void lookup_f32(float *y, const cuda_row_source from, const int32_t *ids, size_t rows) {
    EACH(i, rows *from.n) {
        const size_t row = (size_t)ids[i / from.n];
        y[i] = stored_number(from, row * from.n + i % from.n) * (from.scale ? from.scale[row] : 1);
    }
}

/* i counts y [batch, gh, py, gw, px, ch] */
__global__ void unpatchify_f32(float *y, const float *x, size_t total, size_t gh, size_t gw, size_t p, size_t ch) {
    EACH(i, total) {
        const size_t c = i % ch, px = i / ch % p, gx = i / ch / p % gw, line = i / ch / p / gw;
        const size_t py = line % p, gy = line / p % gh, picture = line / p / gh;
        y[i] = x[(((picture * gh + gy) * gw + gx) * p * p + py * p + px) * ch + c];
    }
}

void cuda_k_act(cudaStream_t s, float *y, const float *x, size_t n, rung_act act) {
    if (n) RUNG_LAUNCH(act_f32, blocks_for(n), NT, 0, s, y, x, n, act);
}

void cuda_k_add(cudaStream_t s, float *y, const float *a, const float *b, size_t n) {
    if (n) RUNG_LAUNCH(add_f32, blocks_for(n), NT, 0, s, y, a, b, n);
}

void cuda_k_add_rows(cudaStream_t s, float *y, const float *x, const float *row, size_t rows, size_t rows_row,
                     size_t n) {
    if (rows && n) RUNG_LAUNCH(add_rows_f32, blocks_for(rows * n), NT, 0, s, y, x, row, rows, rows_row, n);
}

void cuda_k_copy2d(cudaStream_t s, float *dst, size_t dst_row, const float *src, size_t src_row, size_t rows,
                   size_t n) {
    if (rows && n) RUNG_LAUNCH(copy2d_f32, blocks_for(rows * n), NT, 0, s, dst, dst_row, src, src_row, rows, n);
}

void cuda_k_unpatchify(cudaStream_t s, float *y, const float *x, size_t batch, size_t gh, size_t gw, size_t p,
                       size_t ch) {
    const size_t n = batch * gh * gw * p * p * ch;
    if (n) RUNG_LAUNCH(unpatchify_f32, blocks_for(n), NT, 0, s, y, x, n, gh, gw, p, ch);
}

void cuda_k_lookup(cudaStream_t s, float *y, const cuda_row_source *from, const int32_t *ids, size_t rows) {
    const cuda_row_source f = *from;
    const size_t n = rows * f.n;
    if (n) RUNG_LAUNCH(lookup_f32, blocks_for(n), NT, 0, s, y, f, ids, rows);
}
