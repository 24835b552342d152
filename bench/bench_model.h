/* bench/bench_model.h - one model's time: by stage, and within a stage by kind of layer. */
#ifndef RUNG_BENCH_MODEL_H
#define RUNG_BENCH_MODEL_H
#include "diffusion/rung.h"

typedef struct {
    const char *name; /* "load", "denoiser" (one step, guidance pair), "vae" (one picture); in these "denoiser: conv" */
    double seconds;
    double gflops; /* 2 * multiply-adds of the definitions / seconds / 1e9; 0: not counted */
    size_t calls;  /* of the operation; 0: a stage */
    size_t bytes;  /* of memory, where seconds is 0 */
} rung_bench_stage;

typedef void rung_bench_stage_fn(void *arg, const rung_bench_stage *row);

/**
 * Opens the model, runs its denoiser and its decoder `repeat` + 1 times on random numbers, and gives the best run of
 * each; before, what the packed weights take, the most that was resident while they were packed (0 where the system
 * does not tell), and the decoder's scratch. width, height: pixels, 0: the model's. The text encoder is not loaded. As
 * rung_open; RUNG_EARG: the size.
 */
rung_status rung_bench_model(const rung_options *o, size_t width, size_t height, int repeat, rung_bench_stage_fn *row,
                             void *arg, rung_err *err);
#endif
