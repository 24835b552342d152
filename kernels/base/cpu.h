/* kernels/base/cpu.h - what the processor can do, and the mask that a user or a test puts over it. */
#ifndef RUNG_CPU_H
#define RUNG_CPU_H
#include "kernels/base/err.h"

enum {
    RUNG_CPU_AVX2 = 1 << 0,       /* AVX2 + FMA + F16C */
    RUNG_CPU_AVX512 = 1 << 1,     /* AVX-512 F, BW, DQ, VL */
    RUNG_CPU_AVX512BF16 = 1 << 2, /* AVX512_BF16: dpbf16ps */
    RUNG_CPU_AVX512VBMI = 1 << 3, /* AVX512_VBMI and VBMI2: bytes in any order, bytes to the lanes of a mask */
    RUNG_CPU_ALL = 15,
};

/** Features of this machine, each level only with all below it. */
unsigned rung_cpu_detect(void);

/**
 * The mask of the environment variable RUNG_CPU: scalar, avx2, avx512, avx512vbmi or avx512bf16 (that level and all
 * below); unset or empty means all. RUNG_EARG for another word, with the words that exist.
 */
rung_status rung_cpu_mask(unsigned *mask, rung_err *err);

/** "scalar", "avx2", "avx512", "avx512vbmi" or "avx512bf16": the best level in `cpu`. */
const char *rung_cpu_name(unsigned cpu);
#endif
