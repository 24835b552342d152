/* kernels/cuda/cuda_gather.cu - f32 activations on their way to the tensor cores: rounded, padded to whole 16-byte
 * pieces, a convolution's input with its affine and activation applied, enlarged, or laid out as patches. Two outputs a
 * thread, so that 16-bit ones are stored four bytes at a time. All: grid blocks_for(outputs / 2), block NT. */
#include "kernels/cuda/cuda_common.h"

/* A pair of numbers to f32 or f16 y[2i], y[2i + 1]; the largest f16 is 65504, 65520 rounds to infinity. */
static __device__ inline void store_pair(void *y, cuda_x_kind kind, size_t i, float a, float b, unsigned *range) {
    if (kind == CUDA_X_F32) {
        ((float2 *)y)[i] = make_float2(a, b);
    } else {
        if (!(fabsf(a) < 65520.0f && fabsf(b) < 65520.0f)) atomicOr(range, 1u);
        ((__half2 *)y)[i] = __floats2half2_rn(a, b);
    }
}

/* Two bf16 numbers for each: the second is what the first has lost, 16 bits together. */
static __device__ inline void store_two_parts(__nv_bfloat162 *y, size_t pairs, size_t i, float a, float b) {
    const __nv_bfloat162 high = __floats2bfloat162_rn(a, b);
    y[i] = high;
    y[pairs + i] = __floats2bfloat162_rn(a - __bfloat162float(high.x), b - __bfloat162float(high.y));
}

__global__ void narrow(void *y, cuda_x_kind kind, size_t row, const float *x, size_t x_row, size_t rows, size_t k,
                       unsigned *range) {
    EACH(i, rows *(row / 2)) {
        const size_t r = i / (row / 2), c = i % (row / 2) * 2;
        const float a = c < k ? x[r * x_row + c] : 0, b = c + 1 < k ? x[r * x_row + c + 1] : 0;
        if (kind == CUDA_X_BF16)
            store_two_parts((__nv_bfloat162 *)y, rows * (row / 2), i, a, b);
        else
            store_pair(y, kind, i, a, b, range);
    }
}

/* x of one pixel and channel as the convolution sees it. */
static __device__ inline float read_channel(const cuda_patches &p, const float *pixel, size_t picture, size_t c) {
    if (c >= p.ch) return 0;
    if (!p.scale) return pixel[c];
    return apply_act(pixel[c] * p.scale[picture * p.ch + c] + p.shift[picture * p.ch + c], p.act);
}

__global__ void patches(void *y, cuda_x_kind kind, cuda_patches p, size_t first, size_t rows, unsigned *range) {
    const size_t half = p.cp / 2, taps = p.kh * p.kw;
    EACH(i, rows *taps *half) {
        const size_t c = i % half * 2, tap = i / half % taps, row = first + i / half / taps;
        const size_t picture = row / p.ow / p.oh;
        /* of the enlarged image; what lies before it wraps around to a large number */
        const size_t uy = row / p.ow % p.oh * p.stride + tap / p.kw - p.pad_top;
        const size_t ux = row % p.ow * p.stride + tap % p.kw - p.pad_left;
        float a = 0, b = 0;
        if (uy < p.uh && ux < p.uw) {
            const size_t iy = p.uh == p.h ? uy : uy * p.h / p.uh, ix = p.uw == p.w ? ux : ux * p.w / p.uw;
            const float *pixel = p.x + ((picture * p.h + iy) * p.w + ix) * p.ch;
            a = read_channel(p, pixel, picture, c);
            b = read_channel(p, pixel, picture, c + 1);
        }
        store_pair(y, kind, i, a, b, range);
    }
}

/* One thread: 4 codes, 3 bytes, most significant bits first. */
__global__ void expand_fp6(uint16_t *y, const unsigned char *codes, size_t groups) {
    EACH(i, groups) {
        const unsigned char *p = codes + i * 3;
        const unsigned w = (unsigned)p[0] << 16 | (unsigned)p[1] << 8 | p[2];
        __half2 *out = (__half2 *)y + i * 2;
        out[0] = __floats2half2_rn(e3m2_value(w >> 3 * E3M2_BITS & 63), e3m2_value(w >> 2 * E3M2_BITS & 63));
        out[1] = __floats2half2_rn(e3m2_value(w >> E3M2_BITS & 63), e3m2_value(w & 63));
    }
}

__global__ void widen_bf16(float *y, const uint32_t *x, size_t pairs) {
    EACH(i, pairs) ((float2 *)y)[i] = make_float2(__uint_as_float(x[i] << 16), __uint_as_float(x[i] & 0xffff0000u));
}

void cuda_k_narrow(cudaStream_t s, void *y, cuda_x_kind kind, size_t row, const float *x, size_t x_row, size_t rows,
                   size_t k, unsigned *range) {
    const size_t n = rows * (row / 2);
    if (n) RUNG_LAUNCH(narrow, blocks_for(n), NT, 0, s, y, kind, row, x, x_row, rows, k, range);
}

void cuda_k_patches(cudaStream_t s, void *y, cuda_x_kind kind, const cuda_patches *args, size_t first, size_t rows,
                    unsigned *range) {
    const cuda_patches p = *args;
    const size_t n = rows * p.kh * p.kw * (p.cp / 2);
    if (n) RUNG_LAUNCH(patches, blocks_for(n), NT, 0, s, y, kind, p, first, rows, range);
}

void cuda_k_widen_bf16(cudaStream_t s, float *y, const uint16_t *x, size_t n) {
    if (n) RUNG_LAUNCH(widen_bf16, blocks_for(n / 2), NT, 0, s, y, (const uint32_t *)x, n / 2);
}

void cuda_k_expand_fp6(cudaStream_t s, uint16_t *y, const unsigned char *codes, size_t n, size_t k) {
    const size_t groups = n * (k / 4);
    if (groups) RUNG_LAUNCH(expand_fp6, blocks_for(groups), NT, 0, s, y, codes, groups);
}
