/* tests/test_tiling.c - strips give the image that the whole picture gives, in less memory. Golden models of
 * tools/goldens/vae.py. */
#include "tests/vae_cases.h"

/* A picture of several strips in each level, so that every level's strips meet. */
static void strips_leave_no_seam(const char *name, size_t h, size_t w, unsigned cpu) {
    vae_setup s;
    rung_err e = {0};
    float *z = NULL, *whole = NULL, *strips = NULL;
    if (!CHECK(vae_setup_case(&s, name, cpu, &e) == RUNG_OK)) goto done;
    const rung_vae_info *info = rung_vae_describe(s.vae);
    const size_t n = h * w * info->latent_channels, pixels = h * w * info->factor * info->factor * info->image_channels;
    uint64_t seed = h;
    z = malloc(n * sizeof *z);
    whole = malloc(pixels * sizeof *whole);
    strips = malloc(pixels * sizeof *strips);
    /* a strong slope from top to bottom: statistics of a strip alone would be far from the picture's */
    for (size_t i = 0; i < n; i++) z[i] = rnd(&seed) + 3 * (float)i / (float)n;
    CHECK(rung_vae_decode(s.vae, whole, z, h, w, RUNG_TILING_OFF, &e) == RUNG_OK);
    CHECK(rung_vae_decode(s.vae, strips, z, h, w, RUNG_TILING_ON, &e) == RUNG_OK);
    if (!CHECK(close_all(strips, whole, pixels, 1e-4f))) fprintf(stderr, "  %s\n", name);
    const double d = image_error(strips, whole, pixels);
    if (!CHECK(d < 1e-5)) fprintf(stderr, "  %s %zux%zu: %.1e apart\n", name, w, h, d);
done:
    free(z);
    free(whole);
    free(strips);
    vae_teardown(&s);
}

/* AUTO under tighter and tighter limits: the lower levels whole, the upper ones in strips, at every boundary. */
static void levels_mix(const char *name) {
    enum { H = 13, W = 5 };
    vae_setup s;
    rung_err e = {0};
    float *z = NULL, *whole = NULL, *mixed = NULL;
    if (!CHECK(vae_setup_case(&s, name, 0, &e) == RUNG_OK)) goto done;
    const rung_vae_info *info = rung_vae_describe(s.vae);
    const size_t n = H * W * info->latent_channels, pixels = H * W * info->factor * info->factor * info->image_channels;
    uint64_t seed = 7;
    z = malloc(n * sizeof *z);
    whole = malloc(pixels * sizeof *whole);
    mixed = malloc(pixels * sizeof *mixed);
    for (size_t i = 0; i < n; i++) z[i] = 2 * rnd(&seed);
    CHECK(rung_vae_decode(s.vae, whole, z, H, W, RUNG_TILING_OFF, &e) == RUNG_OK);
    const size_t off = rung_vae_scratch(s.vae, H, W, RUNG_TILING_OFF);
    int plans = 0;
    size_t last = off;
    for (size_t limit = off; limit > off / 4; limit -= off / 16) {
        rung_vae_limit_scratch(s.vae, limit);
        const size_t now = rung_vae_scratch(s.vae, H, W, RUNG_TILING_AUTO);
        plans += now != last;
        last = now;
        memset(mixed, 0, pixels * sizeof *mixed);
        CHECK(rung_vae_decode(s.vae, mixed, z, H, W, RUNG_TILING_AUTO, &e) == RUNG_OK);
        const double d = image_error(mixed, whole, pixels);
        if (!CHECK(d < 1e-5)) fprintf(stderr, "  %s limit %zu of %zu: %.1e apart\n", name, limit, off, d);
    }
    CHECK(plans > 0);
done:
    free(z);
    free(whole);
    free(mixed);
    vae_teardown(&s);
}

static int syncs_left; /* until the device fails, once */

static rung_status failing_sync(rung_backend *be, rung_err *err) {
    (void)be;
    return --syncs_left == 0 ? rung_fail(err, RUNG_EDEVICE, "the device is gone") : RUNG_OK;
}

/* Statistics are read back many times in one decode: an error at any of these comes out. */
static void device_errors_come_out(void) {
    vae_setup s;
    rung_err e = {0};
    float z[20 * 2 * 4] = {0}, image[20 * 4 * 2 * 4 * 3];
    if (CHECK(vae_setup_case(&s, "kl_lists", rung_cpu_detect(), &e) == RUNG_OK)) {
        const rung_backend_ops *real = s.be->ops;
        rung_backend_ops failing = *real;
        failing.sync = failing_sync;
        s.be->ops = &failing;
        int n = 0;
        rung_status st = RUNG_EDEVICE;
        while (st == RUNG_EDEVICE && n < 1000) {
            rung_err err = {0};
            syncs_left = ++n;
            st = rung_vae_decode(s.vae, image, z, 20, 2, RUNG_TILING_ON, &err);
            CHECK(st == RUNG_OK || (st == RUNG_EDEVICE && strstr(err.msg, "gone")));
        }
        CHECK(st == RUNG_OK && n > 10);
        s.be->ops = real;
    }
    vae_teardown(&s);
}

static void strips_take_less_memory(const char *name) {
    vae_setup s;
    rung_err e = {0};
    const size_t limit = (size_t)1 << 30;
    if (CHECK(vae_setup_case(&s, name, rung_cpu_detect(), &e) == RUNG_OK)) {
        const size_t small = rung_vae_scratch(s.vae, 64, 64, RUNG_TILING_OFF);
        CHECK(small > 0 && small < limit && rung_vae_scratch(s.vae, 64, 64, RUNG_TILING_AUTO) == small);
        size_t side = 64, off;
        while ((off = rung_vae_scratch(s.vae, side, side, RUNG_TILING_OFF)) <= limit) side += 32;
        const size_t automatic = rung_vae_scratch(s.vae, side, side, RUNG_TILING_AUTO);
        const size_t on = rung_vae_scratch(s.vae, side, side, RUNG_TILING_ON);
        fprintf(stderr, "%s: %zu cells a side, off %zu auto %zu on %zu MiB\n", name, side, off >> 20, automatic >> 20,
                on >> 20);
        CHECK(automatic <= limit && on <= automatic && on < off * 3 / 4);
        CHECK(rung_vae_scratch(s.vae, 0, 5, RUNG_TILING_AUTO) == 0);
    }
    vae_teardown(&s);
}

int main(void) {
    const unsigned best = rung_cpu_detect();
    /* every height of the last strip; the scalar kernels' stores are all seen by the address sanitizer */
    for (size_t h = 32; h <= 48; h++) strips_leave_no_seam("kl_lists", h, 1, 0);
    for (size_t h = 4; h <= 16; h++) strips_leave_no_seam("tiny_odd", h, 1, 0);
    strips_leave_no_seam("kl_sd", 21, 5, best);
    strips_leave_no_seam("kl_rgba", 13, 9, best);
    strips_leave_no_seam("kl_lists", 50, 3, best);
    strips_leave_no_seam("kl_one_level", 70, 2, best);
    strips_leave_no_seam("tiny_sd", 25, 4, best);
    strips_leave_no_seam("tiny_odd", 19, 3, best);
    levels_mix("kl_sd");
    levels_mix("kl_rgba");
    levels_mix("tiny_odd");
    device_errors_come_out();
    strips_take_less_memory("kl_sd");
    strips_take_less_memory("kl_rgba");
    strips_take_less_memory("tiny_sd");
    return check_result();
}
