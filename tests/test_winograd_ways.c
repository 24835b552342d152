/* tests/test_winograd_ways.c - the way that a 3x3 convolution takes is the fastest that was measured, or close to it,
 * and within its error: the committed measurements (bench/winograd.csv, by `rung bench winograd`) against the cost
 * model. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/conv.h"
#include "tests/check.h"

enum { WAYS = 4, COLUMNS = 5 + 2 * WAYS }; /* isa, batch, in, out, side; then milliseconds and errors */
static const size_t ways[WAYS] = {0, 2, 4, 6};

static bool read_row(FILE *f, double *column, bool *avx2) {
    char line[256], *at = line;
    if (!fgets(line, sizeof line, f)) return false;
    *avx2 = strncmp(line, "avx2,", 5) == 0;
    for (size_t i = 1; i < COLUMNS; i++) {
        at = strchr(at, ',');
        if (!CHECK(at != NULL)) return false;
        column[i] = strtod(++at, NULL);
    }
    return true;
}

static void check_row(const double *column, bool avx2, double *lost) {
    const size_t side = (size_t)column[4], way = winograd_way(side, side);
    const double *ms = column + 5, *error = ms + WAYS;
    double best = ms[0], chosen = 0;
    for (size_t i = 0; i < WAYS; i++) {
        best = fmin(best, ms[i]);
        if (ways[i] != way) continue;
        chosen = ms[i];
        CHECK(error[i] > 0 && error[i] <= (way ? winograd_error(way) : 1e-5));
    }
    *lost += chosen / best - 1;
    if (!CHECK(best > 0 && chosen <= 1.12 * best))
        fprintf(stderr, "  %s %g -> %g channels, %zux%zu: F(%zux%zu) takes %g ms, another way %g\n",
                avx2 ? "avx2" : "avx512", column[2], column[3], side, side, way, way, chosen, best);
}

int main(void) {
    FILE *f = fopen(RUNG_SOURCE_DIR "/bench/winograd.csv", "r");
    char header[256];
    double column[COLUMNS], lost = 0;
    int rows[2] = {0};
    bool avx2;
    if (!CHECK(f && fgets(header, sizeof header, f))) return 1;
    CHECK(strcmp(header, "isa,batch,in,out,side,ms_0,ms_2,ms_4,ms_6,error_0,error_2,error_4,error_6\n") == 0);
    for (; read_row(f, column, &avx2); rows[avx2]++) check_row(column, avx2, &lost);
    CHECK(feof(f) && rows[0] >= 30 && rows[1] >= 30);
    fprintf(stderr, "%d rows, slower than the fastest way by %.1f%% in the mean\n", rows[0] + rows[1],
            100 * lost / (rows[0] + rows[1]));
    CHECK(lost <= 0.009 * (rows[0] + rows[1]));
    fclose(f);
    /* A way whose error times the layers of a network passes the budget may not be taken. */
    for (size_t i = 1; i < WAYS; i++) CHECK(winograd_error(ways[i]) > 0 && winograd_error(ways[i]) * 60 <= 1e-3);
    return check_result();
}
