/* kernels/base/err.h - one status and one message for each call chain. Part of the public API (rung.h includes it). */
#ifndef RUNG_ERR_H
#define RUNG_ERR_H

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
    RUNG_OK = 0,
    RUNG_ENOMEM = -1,     /* memory, or an arena that is too small */
    RUNG_EIO = -2,        /* the operating system said no: errno's text is in the message */
    RUNG_EFORMAT = -3,    /* a file is not what it should be */
    RUNG_ESHAPE = -4,     /* sizes do not fit each other */
    RUNG_EARG = -5,       /* the caller asked for something that makes no sense */
    RUNG_EDEVICE = -6,    /* the GPU or its driver */
    RUNG_ECANCELLED = -7, /* the caller's callback said stop */
    RUNG_EPEER = -8,      /* another rank has failed, does not answer, or works on something else */
} rung_status;

/* The caller's, zeroed before the first call: rung_err err = {0}. */
typedef struct {
    rung_status code;
    char msg[400];
} rung_err;

/** Records `code` and the message unless an earlier cause is there already; returns `code`. `e` may be NULL. */
rung_status rung_fail(rung_err *e, rung_status code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#define RUNG_TRY(x)                                                                                                    \
    do {                                                                                                               \
        const rung_status st_ = (x);                                                                                   \
        if (st_) return st_;                                                                                           \
    } while (0)

/* The same for functions that clean up at one label: st holds the status. */
#define RUNG_TRY_GOTO(st, label, x)                                                                                    \
    do {                                                                                                               \
        if (((st) = (x))) goto label;                                                                                  \
    } while (0)

#ifdef __cplusplus
}
#endif
#endif
