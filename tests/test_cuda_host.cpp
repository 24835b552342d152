/* tests/test_cuda_host.cpp - the emulation itself: fragments against the PTX ISA, barriers, votes, copies. */
#include <cmath>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.h"
#include "tests/check.h"

/* The layouts as the PTX ISA draws them ("Matrix Fragments for mma.m16n8k16 with floating point type", figures for
 * .f16 / .bf16; the figure shows which thread T holds which element). Written out by hand from the figures, a row of a
 * figure a line: the thread of each pair of columns; then the element's index in the fragment. */
static const int A_THREAD[16][8] = {
    /* columns 0-1, 2-3, 4-5, 6-7, 8-9, 10-11, 12-13, 14-15 */
    {0, 1, 2, 3, 0, 1, 2, 3},         {4, 5, 6, 7, 4, 5, 6, 7},         {8, 9, 10, 11, 8, 9, 10, 11},
    {12, 13, 14, 15, 12, 13, 14, 15}, {16, 17, 18, 19, 16, 17, 18, 19}, {20, 21, 22, 23, 20, 21, 22, 23},
    {24, 25, 26, 27, 24, 25, 26, 27}, {28, 29, 30, 31, 28, 29, 30, 31}, {0, 1, 2, 3, 0, 1, 2, 3},
    {4, 5, 6, 7, 4, 5, 6, 7},         {8, 9, 10, 11, 8, 9, 10, 11},     {12, 13, 14, 15, 12, 13, 14, 15},
    {16, 17, 18, 19, 16, 17, 18, 19}, {20, 21, 22, 23, 20, 21, 22, 23}, {24, 25, 26, 27, 24, 25, 26, 27},
    {28, 29, 30, 31, 28, 29, 30, 31}};
static const int A_ELEMENT[2][16] = {{0, 1, 0, 1, 0, 1, 0, 1, 4, 5, 4, 5, 4, 5, 4, 5},  /* rows 0-7 */
                                     {2, 3, 2, 3, 2, 3, 2, 3, 6, 7, 6, 7, 6, 7, 6, 7}}; /* rows 8-15 */
static const int B_THREAD[16][8] = {
    {0, 4, 8, 12, 16, 20, 24, 28},  {0, 4, 8, 12, 16, 20, 24, 28},  {1, 5, 9, 13, 17, 21, 25, 29},
    {1, 5, 9, 13, 17, 21, 25, 29},  {2, 6, 10, 14, 18, 22, 26, 30}, {2, 6, 10, 14, 18, 22, 26, 30},
    {3, 7, 11, 15, 19, 23, 27, 31}, {3, 7, 11, 15, 19, 23, 27, 31}, {0, 4, 8, 12, 16, 20, 24, 28},
    {0, 4, 8, 12, 16, 20, 24, 28},  {1, 5, 9, 13, 17, 21, 25, 29},  {1, 5, 9, 13, 17, 21, 25, 29},
    {2, 6, 10, 14, 18, 22, 26, 30}, {2, 6, 10, 14, 18, 22, 26, 30}, {3, 7, 11, 15, 19, 23, 27, 31},
    {3, 7, 11, 15, 19, 23, 27, 31}};
static const int B_ELEMENT[16] = {0, 1, 0, 1, 0, 1, 0, 1, 2, 3, 2, 3, 2, 3, 2, 3}; /* of row k */
static const int C_THREAD[16][4] = {
    /* columns 0-1, 2-3, 4-5, 6-7 */
    {0, 1, 2, 3},     {4, 5, 6, 7},     {8, 9, 10, 11},   {12, 13, 14, 15}, {16, 17, 18, 19}, {20, 21, 22, 23},
    {24, 25, 26, 27}, {28, 29, 30, 31}, {0, 1, 2, 3},     {4, 5, 6, 7},     {8, 9, 10, 11},   {12, 13, 14, 15},
    {16, 17, 18, 19}, {20, 21, 22, 23}, {24, 25, 26, 27}, {28, 29, 30, 31}};
static const int C_ELEMENT[2][2] = {{0, 1}, {2, 3}}; /* [rows 0-7, 8-15][column % 2] */

/* The same layouts as strides, from another hand: CuTe's MMA_Traits<SM80_16x8x16_F32F16F16F32_TN>, (thread, value) ->
 * column-major index. */
static int cute_a(int lane, int i) { return lane % 4 * 32 + lane / 4 + i % 2 * 16 + i / 2 % 2 * 8 + i / 4 * 128; }
static int cute_b(int lane, int i) { return lane % 4 * 16 + lane / 4 + i % 2 * 8 + i / 2 * 64; }
static int cute_c(int lane, int i) { return lane % 4 * 32 + lane / 4 + i % 2 * 16 + i / 2 * 8; }

static void test_tables_agree() {
    for (int r = 0; r < 16; r++)
        for (int k = 0; k < 16; k++) CHECK(cute_a(A_THREAD[r][k / 2], A_ELEMENT[r / 8][k]) == k * 16 + r);
    for (int k = 0; k < 16; k++)
        for (int c = 0; c < 8; c++) CHECK(cute_b(B_THREAD[k][c], B_ELEMENT[k]) == k * 8 + c);
    for (int r = 0; r < 16; r++)
        for (int c = 0; c < 8; c++) CHECK(cute_c(C_THREAD[r][c / 2], C_ELEMENT[r / 8][c % 2]) == c * 16 + r);
}

struct warp_fragments {
    uint32_t a[32][4], b[32][2];
    float c[32][4];
};

__global__ void one_mma(warp_fragments *f, bool bf16) {
    const unsigned lane = threadIdx.x;
    if (bf16)
        ptx_mma_bf16(f->c[lane], f->a[lane], f->b[lane]);
    else
        ptx_mma_f16(f->c[lane], f->a[lane], f->b[lane]);
}

static void put(uint32_t *regs, int element, uint16_t h) {
    regs[element / 2] = (regs[element / 2] & (element % 2 ? 0x0000ffffu : 0xffff0000u)) | (uint32_t)h
                                                                                              << (element % 2 ? 16 : 0);
}

/* Random integers, exact in either type, so that every product and sum is exact: one misplaced element shows. */
static void test_mma(bool bf16) {
    uint64_t seed = 3;
    float a[16][16], b[16][8], c[16][8];
    static warp_fragments f;
    const auto bits = [&](float v) { return bf16 ? cuda_host::f32_to_bf16(v) : cuda_host::f32_to_f16(v); };
    for (int r = 0; r < 16; r++)
        for (int k = 0; k < 16; k++) {
            a[r][k] = floorf(rnd(&seed) * 64);
            put(f.a[A_THREAD[r][k / 2]], A_ELEMENT[r / 8][k], bits(a[r][k]));
        }
    for (int k = 0; k < 16; k++)
        for (int n = 0; n < 8; n++) {
            b[k][n] = floorf(rnd(&seed) * 64);
            put(f.b[B_THREAD[k][n]], B_ELEMENT[k], bits(b[k][n]));
        }
    for (int r = 0; r < 16; r++)
        for (int n = 0; n < 8; n++) {
            c[r][n] = floorf(rnd(&seed) * 64);
            f.c[C_THREAD[r][n / 2]][C_ELEMENT[r / 8][n % 2]] = c[r][n];
        }
    RUNG_LAUNCH(one_mma, 1, 32, 0, nullptr, &f, bf16);
    for (int r = 0; r < 16; r++)
        for (int n = 0; n < 8; n++) {
            float want = c[r][n];
            for (int k = 0; k < 16; k++) want += a[r][k] * b[k][n];
            CHECK(f.c[C_THREAD[r][n / 2]][C_ELEMENT[r / 8][n % 2]] == want);
        }
}

/* ldmatrix, PTX ISA's figure "ldmatrix fragment layout": row r of a matrix is held by threads 4r .. 4r + 3, two
 * neighbouring elements each; .trans: the same of the transposed matrix. */
struct matrices {
    uint16_t m[4][8][8];
    uint32_t plain4[32][4], trans4[32][4], turned4[32][4], plain2[32][2], trans2[32][2];
};

__global__ void load_matrices(matrices *g) {
    __shared__ __align__(16) uint16_t m[4][8][8];
    const unsigned lane = threadIdx.x;
    for (unsigned i = lane; i < 256; i += 32) m[i / 64][i / 8 % 8][i % 8] = g->m[i / 64][i / 8 % 8][i % 8];
    __syncwarp();
    const void *row = m[lane / 8][lane % 8];
    ptx_ldmatrix_x4(g->plain4[lane], row);
    ptx_ldmatrix_x4_trans(g->trans4[lane], row);
    ptx_ldmatrix_x4(g->turned4[lane], m[3 - lane / 8][7 - lane % 8]); /* each lane's own address counts */
    ptx_ldmatrix_x2(g->plain2[lane], row);
    ptx_ldmatrix_x2_trans(g->trans2[lane], row);
}

static void test_ldmatrix() {
    static const int THREAD[8][4] = {{0, 1, 2, 3},     {4, 5, 6, 7},     {8, 9, 10, 11},   {12, 13, 14, 15},
                                     {16, 17, 18, 19}, {20, 21, 22, 23}, {24, 25, 26, 27}, {28, 29, 30, 31}};
    static matrices g;
    for (int i = 0; i < 256; i++) g.m[i / 64][i / 8 % 8][i % 8] = (uint16_t)(i * 257 + 11);
    RUNG_LAUNCH(load_matrices, 1, 32, 0, nullptr, &g);
    for (int i = 0; i < 4; i++)
        for (int r = 0; r < 8; r++)
            for (int c = 0; c < 8; c++) {
                const int thread = THREAD[r][c / 2], shift = c % 2 * 16;
                CHECK((uint16_t)(g.plain4[thread][i] >> shift) == g.m[i][r][c]);
                CHECK((uint16_t)(g.trans4[thread][i] >> shift) == g.m[i][c][r]);
                CHECK((uint16_t)(g.turned4[thread][i] >> shift) == g.m[3 - i][7 - r][c]);
                if (i >= 2) continue;
                CHECK((uint16_t)(g.plain2[thread][i] >> shift) == g.m[i][r][c]);
                CHECK((uint16_t)(g.trans2[thread][i] >> shift) == g.m[i][c][r]);
            }
}

/* Sum of a block by shuffles and shared memory; a second dimension; a warp that is not full; early returns. */
__global__ void sums(unsigned *out, unsigned n) {
    __shared__ unsigned part[32];
    const unsigned i =
        (blockIdx.y * gridDim.x + blockIdx.x) * blockDim.x * blockDim.y + threadIdx.y * blockDim.x + threadIdx.x;
    const unsigned linear = threadIdx.y * blockDim.x + threadIdx.x, threads = blockDim.x * blockDim.y;
    unsigned v = i < n ? i : 0;
    for (unsigned d = 16; d; d /= 2) {
        const unsigned other = __shfl_down_sync(0xffffffffu, v, d);
        if (linear % 32 + d < 32 && linear + d < threads) v += other;
    }
    if (linear % 32 == 0) part[linear / 32] = v;
    __syncthreads();
    if (linear) return;
    for (unsigned w = 1; w < (threads + 31) / 32; w++) v += part[w];
    atomicAdd(out, v);
}

static void test_sums() {
    for (unsigned bx : {1u, 31u, 32u, 33u, 100u}) {
        unsigned out = 0;
        RUNG_LAUNCH(sums, dim3(3, 2), dim3(bx, 2), 0, nullptr, &out, 6 * bx * 2 - 1);
        const unsigned n = 6 * bx * 2 - 1;
        CHECK(out == n * (n - 1) / 2);
    }
}

__global__ void votes(unsigned *out) {
    const unsigned lane = threadIdx.x;
    out[lane] = __ballot_sync(0xffffffffu, lane % 3 == 0);
    out[32 + lane] = __shfl_sync(0xffffffffu, lane * 10, 5, 8); /* segments of eight */
    out[64 + lane] = __shfl_xor_sync(0xffffffffu, lane, 7);
    out[96 + lane] = __shfl_up_sync(0xffffffffu, lane, 4);
    const unsigned half = lane < 16 ? 0x0000ffffu : 0xffff0000u; /* two groups of one warp, one after the other */
    out[128 + lane] = __ballot_sync(half, lane & 1);
}

static void test_votes() {
    unsigned out[160];
    RUNG_LAUNCH(votes, 1, 32, 0, nullptr, out);
    for (unsigned i = 0; i < 32; i++) {
        CHECK(out[i] == 0x49249249u);
        CHECK(out[32 + i] == (i / 8 * 8 + 5) * 10);
        CHECK(out[64 + i] == (i ^ 7));
        CHECK(out[96 + i] == (i < 4 ? i : i - 4));
        CHECK(out[128 + i] == (i < 16 ? 0x0000aaaau : 0xaaaa0000u));
    }
}

/* Copies arrive at the wait of their group, not before; !valid gives zeros; the newest group may stay away. */
__global__ void copies(const float *src, float *seen) {
    RUNG_SHARED(float, s);
    const unsigned t = threadIdx.x;
    ptx_cp_async4(&s[t], &src[t], true);
    ptx_cp_async_commit();
    ptx_cp_async4(&s[32 + t], &src[32 + t], t % 2 == 0);
    ptx_cp_async_commit();
    seen[t] = s[t];
    ptx_cp_async_wait<1>();
    seen[32 + t] = s[t];
    seen[64 + t] = s[32 + t];
    ptx_cp_async_wait<0>();
    seen[96 + t] = s[32 + t];
}

/* 16 bytes at a time. */
__global__ void wide_copies(const float *src, float *seen) {
    RUNG_SHARED(float, s);
    const unsigned t = threadIdx.x;
    ptx_cp_async16(&s[4 * t], &src[4 * t], t % 2 == 0);
    ptx_cp_async_commit();
    for (unsigned i = 4 * t; i < 4 * t + 4; i++) seen[i] = s[i];
    ptx_cp_async_wait<0>();
    for (unsigned i = 4 * t; i < 4 * t + 4; i++) seen[64 + i] = s[i];
}

static void test_copies() {
    float src[64], seen[128];
    for (int i = 0; i < 64; i++) src[i] = (float)i + 1;
    RUNG_LAUNCH(copies, 1, 32, 256, nullptr, src, seen);
    for (int i = 0; i < 32; i++) {
        CHECK(std::isnan(seen[i]) && std::isnan(seen[64 + i]));
        CHECK(seen[32 + i] == src[i]);
        CHECK(seen[96 + i] == (i % 2 ? 0 : src[32 + i]));
    }
    alignas(16) float wide[64];
    for (int i = 0; i < 64; i++) wide[i] = src[i];
    RUNG_LAUNCH(wide_copies, 1, 16, 256, nullptr, wide, seen);
    for (int i = 0; i < 64; i++) CHECK(std::isnan(seen[i]) && seen[64 + i] == (i / 4 % 2 ? 0 : wide[i]));
}

/* Conversions over every 16-bit value and around every rounding border, against the definition. */
static void test_halves() {
    for (unsigned h = 0; h < 0x10000; h++) {
        const int e = h >> 10 & 31, m = h & 1023;
        const float mag = e == 31 ? (m ? NAN : INFINITY) : e ? ldexpf(1024 + m, e - 25) : ldexpf(m, -24);
        const float want = h >> 15 ? -mag : mag, got = cuda_host::f16_to_f32((uint16_t)h);
        if (!(std::isnan(want) ? std::isnan(got) : __float_as_uint(got) == __float_as_uint(want))) CHECK(!"f16 to f32");
        if (!std::isnan(want) && cuda_host::f32_to_f16(want) != h) CHECK(!"f32 to f16");
        if (e == 31 || h >> 15) continue;
        const float up = h + 1 == 0x7c00 ? 65536.f : cuda_host::f16_to_f32((uint16_t)(h + 1));
        const float tie = want + (up - want) / 2; /* to the even one */
        CHECK(cuda_host::f32_to_f16(tie) == (h % 2 ? h + 1 : h));
        CHECK(cuda_host::f32_to_f16(nextafterf(tie, 0)) == h && cuda_host::f32_to_f16(nextafterf(tie, 1e9f)) == h + 1);
    }
    CHECK(cuda_host::f32_to_f16(1e9f) == 0x7c00 && cuda_host::f32_to_bf16(1.00390625f) == 0x3f80);
    CHECK(cuda_host::f32_to_bf16(1.01171875f) == 0x3f82 && cuda_host::f32_to_bf16(NAN) >> 7 == 0xff);
}

/* What must not pass unseen ends the program; a child shows it. */
__global__ void divergent_barrier() {
    if (threadIdx.x < 32)
        __syncthreads();
    else
        __syncthreads();
}
__global__ void misaligned() {
    RUNG_SHARED(char, s);
    ptx_cp_async16(s + 4, s, true);
}
__global__ void past_the_end() {
    RUNG_SHARED(char, s);
    s[threadIdx.x] = 1;
}
__global__ void forgotten_copy(const float *src) {
    RUNG_SHARED(float, s);
    ptx_cp_async4(s, src, true);
    ptx_cp_async_commit();
}
__global__ void half_a_warp() {
    if (threadIdx.x < 16)
        __shfl_sync(0xffffffffu, 1, 0);
    else
        __syncwarp();
}

template <class F> static bool ends_the_program(F launch) {
    const pid_t child = fork();
    if (child == 0) {
        if (!freopen("/dev/null", "w", stderr)) _exit(1);
        launch();
        _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return WIFSIGNALED(status) || WEXITSTATUS(status) != 0;
}

static void test_misuse() {
    static const float src[4] = {};
    CHECK(ends_the_program([] { RUNG_LAUNCH(divergent_barrier, 1, 64, 0, nullptr); }));
    CHECK(ends_the_program([] { RUNG_LAUNCH(misaligned, 1, 1, 64, nullptr); }));
    CHECK(ends_the_program([] { RUNG_LAUNCH(past_the_end, 1, 65, 64, nullptr); }));
    CHECK(ends_the_program([] { RUNG_LAUNCH(forgotten_copy, 1, 1, 64, nullptr, src); }));
    CHECK(ends_the_program([] { RUNG_LAUNCH(half_a_warp, 1, 32, 0, nullptr); }));
    CHECK(!ends_the_program([] { RUNG_LAUNCH(past_the_end, 1, 64, 64, nullptr); }));
}

__global__ void nothing() {}

static void test_refused() {
    CHECK(cudaGetLastError() == cudaSuccess);
    RUNG_LAUNCH(nothing, 1, 1025, 0, nullptr);
    CHECK(cudaPeekAtLastError() == cudaErrorInvalidConfiguration &&
          cudaGetLastError() == cudaErrorInvalidConfiguration);
    RUNG_LAUNCH(nothing, dim3(1, 65536), 1, 0, nullptr);
    CHECK(cudaGetLastError() == cudaErrorInvalidConfiguration);
    RUNG_LAUNCH(nothing, 1, 1, cuda_host::SHARED_MAX + 1, nullptr);
    CHECK(cudaGetLastError() == cudaErrorInvalidConfiguration);
#ifdef CUDA_HOST_THREADS /* as many host threads: slow */
    RUNG_LAUNCH(nothing, 1, 32, cuda_host::SHARED_MAX, nullptr);
#else
    RUNG_LAUNCH(nothing, 1, 1024, cuda_host::SHARED_MAX, nullptr);
#endif
    CHECK(cudaGetLastError() == cudaSuccess);
}

/* Neighbours exchange values over shared memory. Without its barrier a thread reads what is not there yet. */
__global__ void neighbours(int *out) {
    __shared__ int s[64];
    s[threadIdx.x] = (int)threadIdx.x + 1;
    __syncthreads();
    out[threadIdx.x] = s[threadIdx.x ^ 63];
    __syncthreads();
    s[threadIdx.x] = 0;
}

static bool neighbours_right() {
    int out[64];
    RUNG_LAUNCH(neighbours, 1, 64, 0, nullptr, out);
    for (int i = 0; i < 64; i++)
        if (out[i] != (i ^ 63) + 1) return false;
    return true;
}

static void test_dropped_barrier() {
    cuda_host::record_sites(true);
    CHECK(neighbours_right());
    cuda_host::record_sites(false);
    CHECK(cuda_host::site_count() == 2);
#ifndef CUDA_HOST_THREADS /* fibers run in a known order: the first thread finds nothing */
    cuda_host::drop_site(cuda_host::site_name(0));
    CHECK(!neighbours_right());
    cuda_host::drop_site(nullptr);
    CHECK(neighbours_right());
#endif
}

int main() {
    test_tables_agree();
    test_mma(false);
    test_mma(true);
    test_ldmatrix();
    for (int order = 0; order < 2; order++) {
        cuda_host::set_order(order);
        test_sums();
        test_votes();
        test_copies();
    }
    cuda_host::set_order(0);
    test_halves();
    test_misuse();
    test_refused();
    test_dropped_barrier();
    return check_result();
}
