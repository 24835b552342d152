#define _DEFAULT_SOURCE /* madvise */
#include "kernels/base/pages.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "kernels/base/size.h"

void *rung_pages_alloc(size_t bytes) {
    enum { LINE = 64, PAGE = 2 << 20, LARGE = 2 * PAGE };
    if (bytes > PTRDIFF_MAX - PAGE) return NULL;
    if (bytes < LARGE) return aligned_alloc(LINE, size_max(size_div_up(bytes, LINE), 1) * LINE);
    const size_t rounded = size_div_up(bytes, PAGE) * PAGE;
    void *p = aligned_alloc(PAGE, rounded);
#ifdef MADV_HUGEPAGE
    if (p) (void)madvise(p, rounded, MADV_HUGEPAGE); /* advice: without it everything works, slower */
#endif
    return p;
}
