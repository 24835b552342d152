/* assets/weights_pieces.h - tensors that lie in a file in several pieces: values and scales, bitmaps, tiles. The names and
 * shapes of the pieces: docs/WEIGHT_FILES.md. Internal to assets/. */
#ifndef RUNG_WEIGHTS_PIECES_H
#define RUNG_WEIGHTS_PIECES_H
#include "assets/weights_view.h"

enum { PIECES_NAME = 512 };

/**
 * What file tensor `name`, `t`, stands for: its own name and itself; the name and the view of the tensor that it is the
 * head of; or, a piece of another one, the empty name. The view borrows from the files, what had to be computed is
 * freed with w. RUNG_EFORMAT, naming the tensor: a piece is missing, misshapen or contradicts another; RUNG_ENOMEM.
 */
rung_status pieces_read(rung_weights *w, const char *name, const rung_tensor *t, char stem[PIECES_NAME],
                        rung_tensor *out, rung_err *err);
#endif
