#include <math.h>

#include "kernels/fp6.h"

uint8_t rung_f32_to_e3m2(float v) {
    const unsigned sign = signbit(v) ? 32 : 0;
    const float a = fabsf(v);
    if (!(a < RUNG_E3M2_MAX)) return (uint8_t)(sign | 31);
    /* 2^e <= a < 2^(e+1) is cut in four; below 2^-2 the steps stay 2^-4. Rounding up to the next power of two is a
     * carry into the exponent, as in IEEE formats. */
    int e = -2;
    if (a >= 0.5f) {
        frexpf(a, &e);
        e--;
    }
    return (uint8_t)(sign | ((unsigned)(4 * (e + 2)) + (unsigned)rintf(ldexpf(a, 2 - e))));
}
