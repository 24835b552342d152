#!/bin/sh
# tests/test_install.sh RUNG SOURCE WORK - what cmake --install puts in place: the program finds its model there, and a
# program of somebody else builds against rung.h through pkg-config and samples with a denoiser of its own.
build=$(dirname "$1")
work=$3
command -v pkg-config >/dev/null && command -v cc >/dev/null || exit 77
if grep -q '^RUNG_SANITIZE:STRING=.' "$build/CMakeCache.txt"; then
    echo "SKIP: a sanitized library needs its flags in the other program too"
    exit 77
fi
rm -rf "$work"
mkdir -p "$work/elsewhere"
cmake --install "$build" --prefix "$work/prefix" >"$work/log" || { cat "$work/log"; exit 1; }
cd "$work/elsewhere" || exit 1

cat >own.c <<'C'
#include <math.h>
#include <rung.h>
#include <stdio.h>

/* Data that is 3 everywhere: its noise is known exactly, so every deterministic sampler has to end at 3. */
static rung_status point(void *user, float *out, float *uncond, const float *x, float t, rung_err *err) {
    const rung_sampler *s = *(rung_sampler **)user;
    const float sigma = rung_sampler_sigma(s, (int)(size_t)rung_sampler_calls(s) - 1), scale = sqrtf(sigma * sigma + 1);
    (void)uncond, (void)t, (void)err;
    for (int i = 0; i < 4; i++) out[i] = (x[i] * scale - 3) / sigma;
    return RUNG_OK;
}

int main(void) {
    rung_err err = {0};
    rung_sampler *s;
    if (rung_sampler_open(&s, &(rung_sampler_params){.sampler = "euler", .steps = 10, .eta = NAN, .batch = 1, .n = 4}, &err))
        return puts(err.msg), 1;
    float x[4] = {0.5f, -1, 2, 0};
    for (int i = 0; i < 4; i++) x[i] = x[i] * rung_sampler_init_sigma(s) + 3;
    for (int i = 0; i < rung_sampler_steps(s); i++)
        if (rung_sampler_step(s, i, x, point, &s, NULL, NULL, &err)) return puts(err.msg), 1;
    rung_sampler_close(&s);
    printf("%s %.4f %.4f %.4f %.4f\n", rung_version(), x[0], x[1], x[2], x[3]);
    return 0;
}
C
PKG_CONFIG_PATH=$(dirname "$(find "$work/prefix" -name rung.pc)")
export PKG_CONFIG_PATH
cc -std=c11 -Wall -Wextra -Werror own.c $(pkg-config --cflags --libs rung) -lm -o own || exit 1
./own | tee own.txt
grep -q ' 3.0000 3.0000 3.0000 3.0000$' own.txt || { echo "FAIL: the sampler did not end at 3"; exit 1; }

"$work/prefix/bin/rung" -q --steps 2 -o icon.png "a red apple" || { echo "FAIL: the installed program"; exit 1; }
[ -s icon.png ] && [ -f "$work/prefix/share/man/man1/rung.1" ] && [ -f "$work/prefix/share/rung/icons/LICENSES.md" ]
