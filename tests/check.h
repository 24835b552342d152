/* tests/check.h - what every test uses. */
#ifndef RUNG_CHECK_H
#define RUNG_CHECK_H
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

static int check_failures;
static int check_count;

#define CHECK(x)                                                                                                       \
    (check_count++, (x) ? 1 : (check_failures++, fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x), 0))

/* Ends main: a test that checked nothing has failed. */
static inline int check_result(void) {
    fprintf(stderr, "%d checks, %d failed\n", check_count, check_failures);
    return check_failures != 0 || check_count == 0;
}

/* Uniform in [-1, 1), reproducible. */
static inline float rnd(uint64_t *s) {
    *s = *s * 6364136223846793005u + 1442695040888963407u;
    return (float)((double)(*s >> 40) / (1 << 24)) * 2 - 1;
}

/* Every element within tol * (1 + |ref|); NaN fails. */
static inline int close_all(const float *got, const float *ref, size_t n, float tol) {
    for (size_t i = 0; i < n; i++) {
        if (!(fabsf(got[i] - ref[i]) <= tol * (1 + fabsf(ref[i])))) {
            fprintf(stderr, "  [%zu] got %.9g want %.9g\n", i, got[i], ref[i]);
            return 0;
        }
    }
    return 1;
}

/* ||got - ref|| / ||ref||; NaN when there is one. */
static inline double rel_l2(const float *got, const float *ref, size_t n) {
    double d = 0, r = 0;
    for (size_t i = 0; i < n; i++) {
        d += ((double)got[i] - ref[i]) * ((double)got[i] - ref[i]);
        r += (double)ref[i] * ref[i];
    }
    return sqrt(d / (r > 0 ? r : 1));
}
#endif
