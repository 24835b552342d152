/* kernels/base/pages.h - large blocks of memory on large pages, where the system has them to give. */
#ifndef RUNG_PAGES_H
#define RUNG_PAGES_H
#include <stddef.h>

/**
 * `bytes` of memory, 64-byte aligned, released by free(); NULL: none. From 4 MiB on it asks for 2 MiB pages: transforms
 * that write 36 streams at once otherwise wait for address translation, and a page fault comes 512 times as rarely.
 */
void *rung_pages_alloc(size_t bytes);
#endif
