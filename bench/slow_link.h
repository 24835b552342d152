/* bench/slow_link.h - a communicator that takes as long for a sum as a link of a known rate would, while the processor
 * does no more than the communicator below it needs: what an adaptor that moves data by itself is like. For ranks on
 * one machine, whose clocks are one. */
#ifndef RUNG_SLOW_LINK_H
#define RUNG_SLOW_LINK_H
#include "kernels/base/comm.h"

/** Sums and gathers only; gathers are not slowed down. A link serves sums in order, both directions at once. `below` is
 *  borrowed, and its progress is the caller's affair. bytes_per_second > 0. RUNG_ENOMEM. */
rung_status slow_link_open(rung_comm **out, rung_comm *below, double bytes_per_second, rung_err *err);
#endif
