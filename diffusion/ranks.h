/* diffusion/ranks.h - the place of one process among the ranks of a launch, and what ranks tell each other: that they
 * are the same program over the same model, the prompts' embeddings, finished pictures. Internal to diffusion/.
 *
 * Rank = (group * cfg + half) * tp + part. The leader of a group (half 0, part 0) has the text encoder and the VAE;
 * rank 0 leads group 0, and it alone reads prompt files, writes and prints.
 */
#ifndef RUNG_RANKS_H
#define RUNG_RANKS_H
#include "diffusion/rung.h"
#include "kernels/base/comm.h"
#include "textenc/textenc.h"

/* All NULL and 0 but groups for a process alone. */
typedef struct {
    rung_comm *world; /* borrowed */
    rung_comm *group; /* those who draw one picture together; NULL: this one alone, as are the next two */
    rung_comm *tp;    /* those whose parts of the network make one */
    rung_comm *cfg;   /* those with the same part of the two halves of the guidance pair */
    int group_number, groups;
} ranks;

/** RUNG_EPEER when another rank is another version of rung or was asked for another layout; RUNG_EARG: tp x cfg does
 * not divide the number of ranks. world NULL: alone. */
rung_status ranks_open(ranks *r, rung_comm *world, int tp, int cfg, rung_err *err);
void ranks_close(ranks *r);

static inline bool ranks_lead(const ranks *r) { return !r->group || r->group->rank == 0; }
static inline bool ranks_first(const ranks *r) { return !r->world || r->world->rank == 0; }
/** World rank of a group's leader. */
static inline int ranks_leader(const ranks *r, int group) { return r->world ? r->world->size / r->groups * group : 0; }

/** RUNG_EPEER on every rank of c, naming the rank that has another `hash` of `what` than rank 0. c NULL: fine. */
rung_status ranks_agree(rung_comm *c, uint64_t hash, const char *what, rung_err *err);

/** *text (malloc'd) of rank 0 becomes every rank's; it may be NULL elsewhere. */
rung_status ranks_share_text(rung_comm *c, char **text, rung_err *err);
/** The leader's embeddings to its group; n of them. */
rung_status ranks_share_embeds(rung_comm *c, rung_embeds *e, size_t n, rung_err *err);
/** The picture of world rank `from` to rank 0, whose *image must be empty unless it is that rank. */
rung_status ranks_bring(const ranks *r, rung_image *image, int from, rung_err *err);
#endif
