#include "kernels/base/cpu.h"

#include <stdlib.h>
#include <string.h>

#ifdef __x86_64__
#include <cpuid.h>
#endif

static const struct {
    const char *name;
    unsigned mask;
} levels[] = {
    {"scalar", 0},
    {"avx2", RUNG_CPU_AVX2},
    {"avx512", RUNG_CPU_AVX2 | RUNG_CPU_AVX512},
    {"avx512vbmi", RUNG_CPU_AVX2 | RUNG_CPU_AVX512 | RUNG_CPU_AVX512VBMI},
    {"avx512bf16", RUNG_CPU_AVX2 | RUNG_CPU_AVX512 | RUNG_CPU_AVX512VBMI | RUNG_CPU_AVX512BF16},
};
enum { LEVELS = sizeof levels / sizeof *levels };

unsigned rung_cpu_detect(void) {
    unsigned cpu = 0;
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"))
        cpu |= RUNG_CPU_AVX2;
    if (cpu && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        cpu |= RUNG_CPU_AVX512;
    if ((cpu & RUNG_CPU_AVX512) && __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2"))
        cpu |= RUNG_CPU_AVX512VBMI;
    unsigned eax, ebx, ecx, edx; /* __builtin_cpu_supports("avx512bf16") is younger than some compilers */
    if ((cpu & RUNG_CPU_AVX512VBMI) && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax >> 5 & 1))
        cpu |= RUNG_CPU_AVX512BF16;
#endif
    return cpu;
}

rung_status rung_cpu_mask(unsigned *mask, rung_err *err) {
    const char *s = getenv("RUNG_CPU");
    *mask = RUNG_CPU_ALL;
    if (!s || !*s) return RUNG_OK;
    for (size_t i = 0; i < LEVELS; i++) {
        if (strcmp(s, levels[i].name) == 0) {
            *mask = levels[i].mask;
            return RUNG_OK;
        }
    }
    return rung_fail(err, RUNG_EARG, "RUNG_CPU is '%s', wanted scalar, avx2, avx512, avx512vbmi or avx512bf16", s);
}

const char *rung_cpu_name(unsigned cpu) {
    const char *name = levels[0].name;
    for (size_t i = 1; i < LEVELS; i++)
        if ((cpu & levels[i].mask) == levels[i].mask) name = levels[i].name;
    return name;
}
