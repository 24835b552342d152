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
    void *p = NULL;
    if (posix_memalign(&p, PAGE, bytes) != 0) return NULL;
#ifdef MADV_HUGEPAGE
    (void)madvise(p, bytes / PAGE * PAGE, MADV_HUGEPAGE); /* advice: without it everything works, slower */
#endif
    return p;
}
