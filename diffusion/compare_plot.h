/* diffusion/compare_plot.h - quality against cost, as an SVG inside a page. */
#ifndef RUNG_COMPARE_PLOT_H
#define RUNG_COMPARE_PLOT_H
#include <stdio.h>

#include "diffusion/compare.h"

/** An <svg> element: means over the subjects, a line for each sampler, schedule and guidance, a point for each step
 *  count; the methods that follow another path (class "noisy") have hollow points. Groups carry data-s, data-k, data-g
 *  (indices of sampler, schedule, guidance), points data-n (steps), as the page's filters want them. */
void compare_plot(FILE *f, const compare *c);

/** The colour of a sampler in plot and legend: hue in degrees. */
int compare_hue(const compare *c, size_t sampler);
#endif
