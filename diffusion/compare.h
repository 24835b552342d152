/* diffusion/compare.h - samplers x schedules x steps x guidance over prompts and seeds, each picture measured against a
 * converged run of the same noise. */
#ifndef RUNG_COMPARE_H
#define RUNG_COMPARE_H
#include "diffusion/prompt_file.h"

/* One picture. */
typedef struct {
    const char *sampler, *scheduler; /* names of the tables; scheduler NULL: the model's own */
    int steps;
    float cfg_scale;
    size_t subject;
    bool ode;        /* converges to what the reference converges to: else its distance is no error */
    char *refusal;   /* why it is not drawn; NULL: it is. What follows is of drawn ones */
    char *file;      /* relative to the folder: "pictures/compare-0001.png" */
    char *command;   /* a shell line that draws it again */
    size_t calls;    /* of the denoiser */
    double seconds;  /* of the denoising alone */
    double distance; /* |latents - reference| / |reference|, both L2; NAN when the latents are not finite */
    double psnr;     /* dB, 8-bit colours over white; COMPARE_EQUAL when no sample differs */
} compare_cell;

enum { COMPARE_EQUAL = 120 }; /* dB: above what one differing sample in the largest picture gives */

typedef struct {
    const char *samplers, *schedulers; /* "a,b,c"; NULL: the preset's */
    const float *steps, *cfgs;         /* whole numbers; none: the preset's, the model's own guidance */
    size_t n_steps, n_cfgs;
    const char *reference;   /* "SAMPLER:STEPS", a method of the ODE; NULL: dpm++2m:200 */
    const prompt_file *file; /* the subjects: a line each, with batch_size * n_iter seeds */
    size_t n_seeds;          /* of lines that say nothing about it */
    const char *folder;      /* made when missing */
    const rung_options *engine;
    const char *model; /* as the user gave it, for the commands; NULL: not given */
} compare_options;

/* Pictures come in groups, one for each subject and guidance: the reference, the reference with half its steps, then
 * a row for each sampler and schedule with a column for each number of steps. */
enum { COMPARE_REFERENCES = 2 };

typedef struct {
    const compare_options *o;
    rung_request *subjects; /* a prompt with a seed, size ...: what is not compared. Strings belong to the file */
    char **samplers, **schedulers;
    int *steps;
    float *cfgs;
    size_t n_subjects, n_samplers, n_schedulers, n_rows, n_steps, n_cfgs; /* rows: samplers x schedules */
    const char *reference;                                                /* sampler */
    int reference_steps;
    compare_cell *cells;             /* [groups][COMPARE_REFERENCES + rows * steps] */
    size_t count, each, drawn, done; /* cells; of a group; to be drawn; drawn so far */
    double work, work_done;          /* denoiser calls, about */
} compare;

/** Prompts that are compared when the user names none, NULL past the last. */
const char *compare_preset_prompt(size_t i);

/**
 * Reads the lists. RUNG_EARG: an unknown name, a wrong number, an empty list, a line that sets what is compared, more
 * than 10000 pictures. `o` must outlive `c`. compare_free in any case.
 */
rung_status compare_plan(compare *c, const compare_options *o, rung_err *err);

/** Asks the engine which combinations it takes, once after compare_plan. RUNG_EARG and others: the reference is
 * refused, or everything else is. */
rung_status compare_fit(compare *c, rung_engine *e, rung_err *err);

/* Told after each picture. Anything but 0 ends the run. */
typedef int compare_event_fn(void *user, const compare *c, const compare_cell *cell);

/**
 * Removes what an earlier comparison left in the folder, then draws all pictures, one by one, into folder/pictures, and
 * measures them. `step` is called between sampler steps: anything but 0 ends the run.
 * RUNG_EIO, RUNG_ENOMEM, RUNG_ECANCELLED; what is drawn by then stays.
 */
rung_status compare_run(compare *c, rung_engine *e, compare_event_fn *event, rung_progress_fn *step, void *user,
                        rung_err *err);

/** What draws a picture: its subject with its settings. */
rung_request compare_request(const compare *c, const compare_cell *p);

/** Denoiser calls of a picture, about: what the time left is reckoned from. */
double compare_work(const compare_cell *p);

/** The references of a group: `which` 0 is the reference, 1 the one with half its steps. */
const compare_cell *compare_reference(const compare *c, size_t subject, size_t cfg, size_t which);
const compare_cell *compare_at(const compare *c, size_t subject, size_t cfg, size_t row, size_t step);
bool compare_is_reference(const compare *c, const compare_cell *p);

/* Of all subjects at one guidance, row and number of steps. */
typedef struct {
    double calls, seconds, distance, psnr; /* means */
    size_t drawn;                          /* pictures in them; 0: all refused */
    bool ode;
} compare_mean;
compare_mean compare_mean_of(const compare *c, size_t cfg, size_t row, size_t step);

/** The nearest to the reference on average, of the methods of its equation that take at most `calls` denoiser calls:
 *  row and step. false: there is none. */
bool compare_best(const compare *c, size_t cfg, double calls, size_t *row, size_t *step);

/** Is it the nearest of its subject and column, of the methods of the reference's equation? */
bool compare_is_nearest(const compare *c, size_t subject, size_t cfg, size_t row, size_t step);

/** The i-th distinct reason why something of row `row` is not drawn: a cell that has it, NULL past the last. */
const compare_cell *compare_skipped(const compare *c, size_t row, size_t i);
/** Is nothing of the row drawn? */
bool compare_row_is_empty(const compare *c, size_t row);

/** "folder/name", malloc'd; NULL when out of memory. */
char *compare_path(const compare *c, const char *name);
void compare_free(compare *c);
#endif
