/* tests/fuzz/fuzz_file.h - the input of a fuzz target as a file, for readers that take a path. */
#ifndef RUNG_FUZZ_FILE_H
#define RUNG_FUZZ_FILE_H
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Writes `data` to a file of this process; its name ends in `ending`. The caller removes it. */
static inline void fuzz_file(char *path, size_t cap, const char *ending, const uint8_t *data, size_t size) {
    snprintf(path, cap, "/tmp/rung_fuzz.%ld%s", (long)getpid(), ending);
    FILE *f = fopen(path, "wb");
    if (!f) return;
    fwrite(data, 1, size, f);
    fclose(f);
}
#endif
