/* diffusion/info.h - what is in a model, as text for people or JSON for programs. */
#ifndef RUNG_INFO_H
#define RUNG_INFO_H
#include <stdbool.h>

#include "kernels/base/err.h"

/** The text, malloc'd, into *text: each part with its class, tensors, parameters, bytes and dtypes. Nothing is loaded
 *  beyond the files' headers. RUNG_EIO, RUNG_EFORMAT, RUNG_ENOMEM. */
rung_status rung_info_text(char **text, const char *path, bool json, rung_err *err);

/** The same for what can compute: the processor with the instructions that are used, then each GPU, or why there is
 *  none. RUNG_EARG (RUNG_CPU names no level), RUNG_ENOMEM. */
rung_status rung_info_devices(char **text, bool json, rung_err *err);
#endif
