/* Sinusoids against diffusers' get_timestep_embedding: golden rows named dim.flip.shift. */
#include "unet/timestep.h"

#include <stdlib.h>
#include <string.h>

#include "assets/weights.h"
#include "kernels/step_math.h"
#include "tests/check.h"

static void check_row(const float *t, size_t n, const char *name, const rung_tensor *want) {
    size_t dim;
    int flip, shift;
    if (!CHECK(sscanf(name, "%zu.%d.%d", &dim, &flip, &shift) == 3 && want->shape[1] == dim)) return;
    float *ref = malloc(n * dim * sizeof *ref), *got = malloc(n * dim * sizeof *got);
    CHECK(rung_tensor_to_f32(want, 0, n * dim, ref, NULL) == RUNG_OK);
    rung_sinusoids(got, t, n, dim, flip, shift);
    float worst = 0;
    for (size_t i = 0; i < n * dim; i++) worst = fmaxf(worst, fabsf(got[i] - ref[i]));
    if (!CHECK(worst <= 7e-5f)) fprintf(stderr, "  %s: %g\n", name, worst); /* one ulp of a frequency near 1, t 999 */
    CHECK(rel_l2(got, ref, n * dim) < 5e-6);
    free(ref);
    free(got);
}

int main(void) {
    rung_weights *w = NULL;
    rung_err err = {0};
    float t[5];
    if (!CHECK(rung_weights_open(&w, RUNG_TEST_DIR "/golden/unet/timestep.safetensors", &err) == RUNG_OK)) return 1;
    CHECK(rung_tensor_to_f32(rung_weights_find(w, "t"), 0, 5, t, NULL) == RUNG_OK);
    for (size_t i = 0; i < rung_weights_count(w); i++)
        if (strcmp(rung_weights_name(w, i), "t") != 0)
            check_row(t, 5, rung_weights_name(w, i), rung_weights_tensor(w, i));
    rung_weights_close(&w);

    CHECK(timestep_rows((const float[]){7, 7, 7}, 3) == 1);
    CHECK(timestep_rows((const float[]){7, 7, 8}, 3) == 3);
    CHECK(timestep_rows(NULL, 3) == 3);
    return check_result();
}
