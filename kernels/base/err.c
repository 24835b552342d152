#include "kernels/base/err.h"

#include <stdarg.h>
#include <stdio.h>

rung_status rung_fail(rung_err *e, rung_status code, const char *fmt, ...) {
    if (e && e->code == RUNG_OK) { /* keep the first cause, not the last echo */
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(e->msg, sizeof e->msg, fmt, ap);
        va_end(ap);
        e->code = code;
    }
    return code;
}
