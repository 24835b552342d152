#include "diffusion/compare_plot.h"

#include <math.h>

enum { W = 720, H = 400, LEFT = 48, RIGHT = 14, TOP = 14, BOTTOM = 46 };
static const double MOST_DB = 90; /* a picture that equals the reference stands at the upper edge, at most here */

struct axes {
    double x0, x1; /* log2 of denoiser calls, whole numbers */
    double y0, y1; /* dB, tens */
};

int compare_hue(const compare *c, size_t sampler) { return (int)(sampler * 360 / c->n_samplers); }

static struct axes axes_of(const compare *c) {
    struct axes a = {.x0 = 20, .x1 = 0, .y0 = MOST_DB, .y1 = 0};
    for (size_t i = 0; i < c->n_cfgs * c->n_rows * c->n_steps; i++) {
        const compare_mean m =
            compare_mean_of(c, i / c->n_steps / c->n_rows, i / c->n_steps % c->n_rows, i % c->n_steps);
        if (!m.drawn || !(m.calls >= 1)) continue;
        a.x0 = fmin(a.x0, floor(log2(m.calls)));
        a.x1 = fmax(a.x1, ceil(log2(m.calls)));
        a.y0 = fmin(a.y0, 10 * floor(m.psnr / 10));
        a.y1 = fmax(a.y1, 10 * ceil(fmin(m.psnr, MOST_DB) / 10));
    }
    a.y0 = fmax(a.y0, 0); /* pictures worse than black against white would only flatten the rest */
    a.x1 = fmax(a.x1, a.x0 + 1);
    a.y1 = fmax(a.y1, a.y0 + 10);
    return a;
}

static double at_x(const struct axes *a, double calls) {
    return LEFT + (log2(calls) - a->x0) / (a->x1 - a->x0) * (W - LEFT - RIGHT);
}

static double at_y(const struct axes *a, double psnr) {
    const double y = fmin(fmax(psnr, a->y0), a->y1);
    return TOP + (a->y1 - y) / (a->y1 - a->y0) * (H - TOP - BOTTOM);
}

static void put_axes(FILE *f, const struct axes *a) {
    for (double x = a->x0; x <= a->x1; x++)
        fprintf(f, "<path class=grid d='M%.1f %dV%d'/><text x=%.1f y=%d text-anchor=middle>%.0f</text>\n",
                at_x(a, exp2(x)), TOP, H - BOTTOM, at_x(a, exp2(x)), H - BOTTOM + 16, exp2(x));
    for (double y = a->y0; y <= a->y1; y += 10)
        fprintf(f, "<path class=grid d='M%d %.1fH%d'/><text x=%d y=%.1f text-anchor=end>%.0f</text>\n", LEFT,
                at_y(a, y), W - RIGHT, LEFT - 6, at_y(a, y) + 4, y);
    fprintf(f, "<text x=%d y=%d text-anchor=middle>cost: denoiser calls (logarithmic)</text>\n", (LEFT + W - RIGHT) / 2,
            H - 8);
    fprintf(f, "<text x=12 y=%d text-anchor=middle transform='rotate(-90 12 %d)'>PSNR to the reference, dB</text>\n",
            (TOP + H - BOTTOM) / 2, (TOP + H - BOTTOM) / 2);
}

/* One sampler and schedule at one guidance: a line over its numbers of steps */
static void put_line(FILE *f, const compare *c, const struct axes *a, size_t cfg, size_t row) {
    static const char *const dashes[] = {"none", "7 4", "2 3", "9 3 2 3"};
    const size_t sampler = row / c->n_schedulers, schedule = row % c->n_schedulers;
    fprintf(f, "<g data-s=%zu data-k=%zu data-g=%zu style='--hue:%d'%s><polyline stroke-dasharray='%s' points='",
            sampler, schedule, cfg, compare_hue(c, sampler), compare_at(c, 0, cfg, row, 0)->ode ? "" : " class=noisy",
            dashes[schedule % 4]);
    for (size_t n = 0; n < c->n_steps; n++) {
        const compare_mean m = compare_mean_of(c, cfg, row, n);
        if (m.drawn && isfinite(m.psnr)) fprintf(f, "%.1f,%.1f ", at_x(a, m.calls), at_y(a, m.psnr));
    }
    fputs("'/>\n", f);
    for (size_t n = 0; n < c->n_steps; n++) {
        const compare_mean m = compare_mean_of(c, cfg, row, n);
        if (!m.drawn || !isfinite(m.psnr)) continue;
        fprintf(f,
                "<circle data-n=%d cx=%.1f cy=%.1f r=4.5><title>%s %s, %d steps, cfg %g: %.0f calls, %.3f s, %.1f dB"
                "</title></circle>\n",
                c->steps[n], at_x(a, m.calls), at_y(a, m.psnr), c->samplers[sampler], c->schedulers[schedule],
                c->steps[n], (double)c->cfgs[cfg], m.calls, m.seconds, m.psnr);
    }
    fputs("</g>\n", f);
}

void compare_plot(FILE *f, const compare *c) {
    const struct axes a = axes_of(c);
    fprintf(f, "<svg viewBox='0 0 %d %d' role=img aria-label='PSNR against denoiser calls'>\n", W, H);
    put_axes(f, &a);
    for (size_t cfg = 0; cfg < c->n_cfgs; cfg++)
        for (size_t row = 0; row < c->n_rows; row++)
            if (!compare_row_is_empty(c, row)) put_line(f, c, &a, cfg, row);
    fputs("</svg>\n", f);
}
