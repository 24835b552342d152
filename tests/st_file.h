/* tests/st_file.h - writes small safetensors files, right and wrong ones. */
#ifndef RUNG_ST_FILE_H
#define RUNG_ST_FILE_H
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* Length, header, data; `data` NULL: bytes 0, 1, 2 ... Returns 1 when written. */
static inline int st_write(const char *path, const char *header, const void *data, size_t bytes) {
    FILE *f = fopen(path, "wb");
    if (!f) return 0;
    const uint64_t n = strlen(header);
    for (int i = 0; i < 8; i++) fputc((int)(n >> 8 * i & 255), f);
    fputs(header, f);
    for (size_t i = 0; i < bytes; i++) fputc(data ? ((const unsigned char *)data)[i] : (int)(i & 255), f);
    return fclose(f) == 0;
}
#endif
