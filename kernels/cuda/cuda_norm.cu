/* kernels/cuda/cuda_norm.cu - normalisations. Sums have a fixed order: the same input gives the same output. */
#include "kernels/cuda/cuda_common.h"

enum { WARPS = NT / 32 };

/* grid: one warp a row, WARPS rows a block.  block: NT.
 * A row is read three times, from memory once: 1280 floats stay in L1. Bytes: rows * n * (4 in + 4 out). */
__global__ void layer_norm_f32(cuda_layer_norm_args a) {
    const size_t row = (size_t)blockIdx.x * WARPS + threadIdx.x / 32;
    const unsigned lane = threadIdx.x % 32;
    if (row >= a.rows) return;
    const float *x = a.x + row * a.n;
    float *y = a.y + row * a.n;
    const float first = x[0]; /* what a large mean is taken off before the sums */
    float sum = 0, square = 0;
    for (size_t c = lane; c < a.n; c += 32) sum += x[c] - first;
    const float mean = warp_sum(sum) / (float)a.n; /* less first */
    for (size_t c = lane; c < a.n; c += 32) {
        const float d = (x[c] - first) - mean;
        square += d * d;
    }
    const float k = 1.0f / sqrtf(warp_sum(square) / (float)a.n + a.eps);
    __syncwarp(); /* every lane has read x[0], which may be y[0] */
    const size_t mod = a.mod_scale || a.mod_shift ? row / a.rows_per_sample * a.mod_stride : 0;
    for (size_t c = lane; c < a.n; c += 32) {
        float v = ((x[c] - first) - mean) * k;
        if (a.w) v *= a.w[c];
        if (a.b) v += a.b[c];
        if (a.mod_scale) v *= 1 + a.mod_scale[mod + c];
        if (a.mod_shift) v += a.mod_shift[mod + c];
        y[c] = v;
    }
}

/* As layer_norm_f32, a row read twice. */
__global__ void rms_norm_f32(float *y, const float *x, size_t rows, size_t n, const float *w, float eps) {
    const size_t row = (size_t)blockIdx.x * WARPS + threadIdx.x / 32;
    const unsigned lane = threadIdx.x % 32;
    if (row >= rows) return;
    x += row * n;
    y += row * n;
    float square = 0;
    for (size_t c = lane; c < n; c += 32) square += x[c] * x[c];
    const float k = 1.0f / sqrtf(warp_sum(square) / (float)n + eps);
    for (size_t c = lane; c < n; c += 32) y[c] = x[c] * k * w[c];
}

void cuda_k_layer_norm(cudaStream_t s, const cuda_layer_norm_args *args) {
    const cuda_layer_norm_args a = *args;
    if (a.rows && a.n) RUNG_LAUNCH(layer_norm_f32, (unsigned)((a.rows + WARPS - 1) / WARPS), NT, 0, s, a);
}

void cuda_k_rms_norm(cudaStream_t s, float *y, const float *x, size_t rows, size_t n, const float *w, float eps) {
    if (rows && n) RUNG_LAUNCH(rms_norm_f32, (unsigned)((rows + WARPS - 1) / WARPS), NT, 0, s, y, x, rows, n, w, eps);
}

/* ---- groups ------------------------------------------------------------------------------------------------------ */

/* Tiles of 32 channels, so that a warp reads 128 bytes of a pixel; LINES of a block's warps take pixels in turn. */
enum { TILE = 32, LINES = NT / TILE, CHUNK = 256 };

/* Scratch: partial f32 [batch, chunks, ch, 2], then moments f32 [batch, groups, 3]: the mean as the sum of two numbers,
 * so that a large one can be taken off exactly; 1 / sqrt(var + eps). */
enum { MOMENTS = 3 };
static __host__ __device__ inline size_t chunks_of(const cuda_group_args &a) { return (a.pixels + CHUNK - 1) / CHUNK; }
static __host__ __device__ inline float *partial_of(const cuda_group_args &a) { return (float *)a.scratch; }
static __host__ __device__ inline float *moments_of(const cuda_group_args &a) {
    return (float *)a.scratch + a.batch * chunks_of(a) * a.ch * 2;
}

size_t cuda_k_group_scratch(const cuda_group_args *a) {
    return (a->batch * chunks_of(*a) * a->ch * 2 + a->batch * a->groups * MOMENTS) * sizeof(float);
}

/* grid: chunks of pixels, channel tiles, pictures.  block: NT = TILE channels x LINES.  shared: 2 * NT floats.
 * Sums of x - x0 and its square for each channel of a chunk, x0 the channel's first pixel. Bytes: 4 * batch * pixels *
 * ch. */
__global__ void group_partial_f32(cuda_group_args a) {
    __shared__ float sums[LINES][TILE], squares[LINES][TILE];
    const unsigned lane = threadIdx.x % TILE, line = threadIdx.x / TILE;
    const size_t c = (size_t)blockIdx.y * TILE + lane, chunk = blockIdx.x, picture = blockIdx.z;
    const size_t from = chunk * CHUNK, to = min(from + CHUNK, a.pixels);
    float sum = 0, square = 0;
    if (c < a.ch) {
        const float *x = a.x + picture * a.pixels * a.ch + c;
        const float first = x[0];
        for (size_t p = from + line; p < to; p += LINES) {
            const float d = x[p * a.ch] - first;
            sum += d;
            square += d * d;
        }
    }
    sums[line][lane] = sum;
    squares[line][lane] = square;
    __syncthreads();
    if (line != 0 || c >= a.ch) return;
    for (unsigned i = 1; i < LINES; i++) {
        sum += sums[i][lane];
        square += squares[i][lane];
    }
    float *out = partial_of(a) + ((picture * chunks_of(a) + chunk) * a.ch + c) * 2;
    out[0] = sum;
    out[1] = square;
}

/* Count, mean and squared deviations of two sets together (Chan, Golub, LeVeque 1983). */
static __device__ inline void merge(double &n, double &mean, double &m2, double n2, double mean2, double m22) {
    const double both = n + n2;
    if (n2 == 0) return;
    const double d = mean2 - mean;
    mean += d * n2 / both;
    m2 += m22 + d * d * n * n2 / both;
    n = both;
}

/* grid: groups, pictures.  block: 32.  In f64: a group's channels may have different first pixels. */
__global__ void group_moments_f32(cuda_group_args a) {
    const unsigned lane = threadIdx.x;
    const size_t group = blockIdx.x, picture = blockIdx.y, each = a.ch / a.groups, chunks = chunks_of(a);
    double n = 0, mean = 0, m2 = 0;
    for (size_t i = lane; i < each * chunks; i += 32) {
        const size_t c = group * each + i % each, chunk = i / each;
        const float *part = partial_of(a) + ((picture * chunks + chunk) * a.ch + c) * 2;
        const double count = (double)(min((chunk + 1) * CHUNK, a.pixels) - chunk * CHUNK);
        const double sum = part[0], square = part[1], first = a.x[picture * a.pixels * a.ch + c];
        merge(n, mean, m2, count, first + sum / count, square - sum * sum / count);
    }
    for (int d = 1; d < 32; d *= 2) {
        const double n2 = __shfl_down_sync(0xffffffffu, n, d), mean2 = __shfl_down_sync(0xffffffffu, mean, d);
        const double m22 = __shfl_down_sync(0xffffffffu, m2, d);
        if (lane + d < 32 && lane % (2 * d) == 0) merge(n, mean, m2, n2, mean2, m22);
    }
    if (lane != 0) return;
    float *out = moments_of(a) + (picture * a.groups + group) * MOMENTS;
    out[0] = (float)mean;
    out[1] = (float)(mean - out[0]);
    out[2] = (float)(1.0 / sqrt(m2 / n + a.eps));
}

void cuda_k_group_stats(cudaStream_t s, const cuda_group_args *args) {
    const cuda_group_args a = *args;
    if (!a.batch || !a.pixels || !a.ch) return;
    const dim3 parts((unsigned)chunks_of(a), (unsigned)((a.ch + TILE - 1) / TILE), (unsigned)a.batch);
    RUNG_LAUNCH(group_partial_f32, parts, NT, 0, s, a);
    const dim3 groups((unsigned)a.groups, (unsigned)a.batch);
    RUNG_LAUNCH(group_moments_f32, groups, 32, 0, s, a);
}

/* grid: blocks_for(outputs).  block: NT.  Bytes: batch * pixels * ch * (4 in + 4 out). */
__global__ void group_apply_f32(float *y, cuda_group_args a, rung_act act) {
    EACH(i, a.batch * a.pixels * a.ch) {
        const size_t c = i % a.ch, picture = i / a.ch / a.pixels;
        const float *m = moments_of(a) + (picture * a.groups + c / (a.ch / a.groups)) * MOMENTS;
        float v = ((a.x[i] - m[0]) - m[1]) * m[2];
        if (a.w) v *= a.w[c];
        if (a.b) v += a.b[c];
        y[i] = apply_act(v, act);
    }
}

__global__ void group_affine_f32(float *scale, float *shift, cuda_group_args a) {
    EACH(i, a.batch * a.ch) {
        const size_t c = i % a.ch;
        const float *m = moments_of(a) + (i / a.ch * a.groups + c / (a.ch / a.groups)) * MOMENTS;
        const double k = (double)m[2] * (a.w ? a.w[c] : 1);
        scale[i] = (float)k;
        shift[i] = (float)((a.b ? a.b[c] : 0) - ((double)m[0] + m[1]) * k);
    }
}

void cuda_k_group_norm(cudaStream_t s, float *y, const cuda_group_args *args, rung_act act) {
    const cuda_group_args a = *args;
    const size_t n = a.batch * a.pixels * a.ch;
    if (n) RUNG_LAUNCH(group_apply_f32, blocks_for(n), NT, 0, s, y, a, act);
}

void cuda_k_group_affine(cudaStream_t s, float *scale, float *shift, const cuda_group_args *args) {
    const cuda_group_args a = *args;
    const size_t n = a.batch * a.ch;
    if (n && a.pixels) RUNG_LAUNCH(group_affine_f32, blocks_for(n), NT, 0, s, scale, shift, a);
}
