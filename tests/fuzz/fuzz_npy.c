/* tests/fuzz/fuzz_npy.c - any bytes as a .npy file. */
#include "assets/npy.h"
#include "tests/fuzz/fuzz_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char path[100];
    rung_err err = {0};
    rung_npy a;
    fuzz_file(path, sizeof path, ".npy", data, size);
    if (rung_npy_read(&a, path, &err) == RUNG_OK && a.count > 0) {
        volatile float last = a.data[a.count - 1];
        (void)last;
    }
    rung_npy_free(&a);
    remove(path);
    return 0;
}
