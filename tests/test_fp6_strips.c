/* tests/test_fp6_strips.c - bitmap strips against a slow reader written from the header's text. */
#include <stdlib.h>
#include <string.h>

#include "kernels/fp6_strips.h"
#include "tests/check.h"

/* Element (r, c), found by counting from the beginning of its strip. */
static unsigned element(const uint32_t *bitmap, const uint32_t *strip_at, const uint32_t *words, size_t across,
                        size_t r, size_t c) {
    const size_t strip = r / 16 * across + c / 64;
    size_t before = 0;
    for (size_t i = 0; i < r % 16 * 64 + c % 64; i++) before += bitmap[strip * 32 + i / 32] >> i % 32 & 1;
    if (!(bitmap[strip * 32 + 2 * (r % 16) + c % 64 / 32] >> c % 32 & 1)) return 0;
    unsigned code = 0;
    for (size_t b = 0; b < 6; b++) {
        const size_t bit = 6 * before + b;
        code |= (words[(size_t)strip_at[strip] * 4 + bit / 32] >> bit % 32 & 1) << b;
    }
    return code;
}

static void test_round_trip(size_t rows, size_t cols, float density, size_t row_multiple) {
    uint64_t seed = 3;
    uint8_t *codes = calloc(rows * cols, 1);
    for (size_t i = 0; i < rows * cols; i++)
        if ((rnd(&seed) + 1) / 2 < density) codes[i] = (uint8_t)((rnd(&seed) + 1) * 32);
    const size_t strips = rung_strips(rows, cols, row_multiple), across = (cols + 63) / 64;
    const size_t count = rung_strips_words(codes, rows, cols);
    uint32_t *bitmap = malloc(strips * RUNG_STRIP_WORDS * sizeof *bitmap), *at = malloc((strips + 1) * sizeof *at);
    uint32_t *words = malloc((count + 1) * sizeof *words);
    words[count] = 0xdeadbeef;
    CHECK(rung_strips_pack(bitmap, at, words, codes, rows, cols, row_multiple));
    CHECK(at[0] == 0 && at[strips] * 4 == count && words[count] == 0xdeadbeef);
    CHECK(strips * 1024 >= rows * cols && strips % across == 0 && strips / across * 16 % row_multiple == 0);
    size_t wrong = 0;
    for (size_t r = 0; r < strips / across * 16; r++)
        for (size_t c = 0; c < across * 64; c++) {
            const unsigned want = r < rows && c < cols ? codes[r * cols + c] : 0;
            wrong += element(bitmap, at, words, across, r, c) != want;
        }
    CHECK(wrong == 0);
    free(words);
    free(at);
    free(bitmap);
    free(codes);
}

int main(void) {
    static const float densities[] = {0, 0.01f, 0.5f, 1};
    for (size_t i = 0; i < 4; i++) {
        test_round_trip(1, 1, densities[i], 16);
        test_round_trip(16, 64, densities[i], 16);
        test_round_trip(17, 65, densities[i], 128);
        test_round_trip(40, 200, densities[i], 64);
    }
    return check_result();
}
