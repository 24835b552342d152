/* bench/op_timer.h - how long a network spends in each kind of operation. Internal to bench/. */
#ifndef RUNG_OP_TIMER_H
#define RUNG_OP_TIMER_H
#include "kernels/backend.h"

typedef enum {
    TIMED_LINEAR,
    TIMED_CONV3,
    TIMED_CONV,
    TIMED_ATTENTION,
    TIMED_NORM,
    TIMED_OTHER,
    TIMED_KINDS
} timed_kind;

typedef struct {
    double seconds, operations; /* operations: 2 * multiply-adds of the definition; 0 where none are counted */
    size_t calls;
} timed_sum;

typedef struct op_timer op_timer;

/** Puts its own table of operations in front of the backend's; layers are opened afterwards. RUNG_ENOMEM. */
rung_status op_timer_open(op_timer **out, rung_backend *be, rung_err *err);
void op_timer_close(op_timer **t); /* after the backend; NULL and *t == NULL are fine */
void op_timer_reset(op_timer *t);
const timed_sum *op_timer_sums(const op_timer *t); /* [TIMED_KINDS] */
#endif
