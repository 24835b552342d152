/* tests/fuzz/replay_main.c - runs a fuzz target over files and folders given as arguments, without a fuzzer. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay_file(const char *path) {
    FILE *f = fopen(path, "rb");
    if (!f) return 0;
    uint8_t *data = malloc(1 << 20); /* exact size below, so that ASan sees a read past the end */
    const size_t n = data ? fread(data, 1, 1 << 20, f) : 0;
    fclose(f);
    uint8_t *exact = malloc(n ? n : 1);
    if (exact && data) {
        memcpy(exact, data, n);
        LLVMFuzzerTestOneInput(exact, n);
    }
    free(exact);
    free(data);
    return 1;
}

int main(int argc, char **argv) {
    int files = 0;
    for (int i = 1; i < argc; i++) {
        DIR *d = opendir(argv[i]);
        if (!d) {
            files += replay_file(argv[i]);
            continue;
        }
        for (struct dirent *e; (e = readdir(d));) {
            char path[4096];
            snprintf(path, sizeof path, "%s/%s", argv[i], e->d_name);
            if (e->d_name[0] != '.') files += replay_file(path);
        }
        closedir(d);
    }
    fprintf(stderr, "%d inputs\n", files);
    return files == 0;
}
