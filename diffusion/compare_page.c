#include "diffusion/compare_page.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "assets/json.h"
#include "assets/outfile.h"
#include "diffusion/compare_parts.h"
#include "diffusion/compare_plot.h"

enum { MOST_PNG = 1 << 29 };

static const char head[] =
    "<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n"
    "<meta name=viewport content='width=device-width, initial-scale=1'>\n"
    "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'\">\n"
    "<link rel=icon href='data:,'>\n<title>rung compare</title>\n<style>\n";

static const char dialog[] =
    "</main>\n<dialog id=large aria-label='one picture, large'>\n<p><b id=caption></b><br><small "
    "id=figures></small></p>\n"
    "<div class=pair><figure><img alt=picture><figcaption>this one</figcaption></figure>"
    "<figure><img alt=reference><figcaption>the reference</figcaption></figure></div>\n<code tabindex=0></code>\n"
    "<div class=bar><button type=button id=before>&larr;</button><button type=button id=after>&rarr;</button>"
    "<button type=button id=copy>copy command</button><button type=button id=close>close</button></div>\n"
    "</dialog>\n<style id=hidden></style>\n<script>\n";

/* Text and quoted attribute values alike. A carriage return or a control character by its number: the parser would
 * turn the first into a line feed. */
static void put_text(FILE *f, const char *s) {
    for (; *s; s++) {
        const unsigned char c = (unsigned char)*s;
        if ((c < ' ' && c != '\n') || strchr("&<>\"'`", c))
            fprintf(f, "&#%u;", c);
        else
            fputc(c, f);
    }
}

static void put_base64(FILE *f, const unsigned char *data, size_t n) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < n; i += 3) {
        const unsigned v =
            (unsigned)data[i] << 16 | (i + 1 < n ? (unsigned)data[i + 1] << 8 : 0) | (i + 2 < n ? data[i + 2] : 0);
        fputc(digits[v >> 18], f);
        fputc(digits[v >> 12 & 63], f);
        fputc(i + 1 < n ? digits[v >> 6 & 63] : '=', f);
        fputc(i + 2 < n ? digits[v & 63] : '=', f);
    }
}

/* ---- one picture ---- */

static const char *schedule_of(const compare_cell *p) { return p->scheduler ? p->scheduler : "default"; }

static void put_nearness(FILE *f, const compare_cell *p) {
    if (p->psnr == COMPARE_EQUAL)
        fputs("equal", f);
    else if (isfinite(p->psnr))
        fprintf(f, "%.1f dB", p->psnr);
    else
        fputs("not finite", f);
}

static void put_figures(FILE *f, const compare *c, const compare_cell *p) {
    if (p != compare_reference(c, p->subject, 0, 0)) {
        put_nearness(f, p);
        fprintf(f, ", latents at %.3g of the reference's length, ", p->distance);
    }
    fprintf(f, "%zu denoiser calls, %.3f s", p->calls, p->seconds);
    if (!p->ode) fputs("; it does not aim at the reference", f);
}

/* The picture as a button that shows it large, with its command */
static rung_status put_picture(FILE *f, const compare *c, const compare_cell *p, size_t cfg, rung_err *err) {
    char *png = NULL, *path = compare_path(c, p->file);
    size_t n;
    rung_status st = path ? rung_file_read(path, MOST_PNG, &png, &n, err)
                          : rung_fail(err, RUNG_ENOMEM, "comparison page: out of memory");
    if (!st) {
        fprintf(f, "<button type=button class=shot data-reference=ref-%zu-%zu data-figures=\"", p->subject, cfg);
        put_figures(f, c, p);
        fputs("\" data-command=\"", f);
        put_text(f, p->command);
        fprintf(f, "\"><img alt=\"%s %s, %d steps, cfg %g\" src=\"data:image/png;base64,", p->sampler, schedule_of(p),
                p->steps, (double)p->cfg_scale);
        put_base64(f, (const unsigned char *)png, n);
        fputs("\"></button>", f);
    }
    free(png);
    free(path);
    return st;
}

static rung_status put_cell(FILE *f, const compare *c, size_t subject, size_t cfg, size_t row, size_t step,
                            rung_err *err) {
    const compare_cell *p = compare_at(c, subject, cfg, row, step);
    fprintf(f, "<td data-n=%d data-g=%zu%s>", p->steps, cfg,
            compare_is_nearest(c, subject, cfg, row, step) ? " class=nearest" : "");
    if (p->refusal) {
        fprintf(f, "<small class=steps>%d steps</small><small>skipped: ", p->steps);
        put_text(f, p->refusal);
        fputs("</small>", f);
    } else {
        RUNG_TRY(put_picture(f, c, p, cfg, err));
        fprintf(f, "<small class=steps>%d steps", p->steps);
        if (c->n_cfgs > 1) fprintf(f, ", cfg %g", (double)p->cfg_scale);
        fprintf(f, "</small><small>%zu calls, %.2f s</small><small>", p->calls, p->seconds);
        put_nearness(f, p);
        fputs("</small>", f);
    }
    fputs("</td>\n", f);
    return RUNG_OK;
}

/* ---- a subject ---- */

static void put_title(FILE *f, const rung_request *r) {
    fputs("<h2>", f);
    put_text(f, *r->prompt ? r->prompt : "(no prompt)");
    fprintf(f, " <small>seed %llu</small></h2>\n", (unsigned long long)r->seed);
    if (!r->negative_prompt || !*r->negative_prompt) return;
    fputs("<p class=pale>not: ", f);
    put_text(f, r->negative_prompt);
    fputs("</p>\n", f);
}

static rung_status put_references(FILE *f, const compare *c, size_t subject, rung_err *err) {
    fputs("<div class=references>\n", f);
    for (size_t cfg = 0; cfg < c->n_cfgs; cfg++)
        for (size_t i = 0; i < COMPARE_REFERENCES; i++) {
            const compare_cell *p = compare_reference(c, subject, cfg, i);
            fprintf(f, "<figure data-g=%zu", cfg);
            if (i == 0) fprintf(f, " id=ref-%zu-%zu", subject, cfg);
            fputs(">", f);
            RUNG_TRY(put_picture(f, c, p, cfg, err));
            fprintf(f, "<figcaption>%s, %d steps<small>", p->sampler, p->steps);
            if (c->n_cfgs > 1) fprintf(f, "cfg %g, ", (double)p->cfg_scale);
            if (i == 0)
                fputs("the reference", f);
            else
                put_nearness(f, p);
            fputs("</small></figcaption></figure>\n", f);
        }
    fputs("</div>\n", f);
    return RUNG_OK;
}

static rung_status put_subject(FILE *f, const compare *c, size_t subject, rung_err *err) {
    fprintf(f, "<section data-p=%zu>\n", subject);
    put_title(f, &c->subjects[subject]);
    RUNG_TRY(put_references(f, c, subject, err));
    fputs("<div class=shots><table>\n<thead><tr><th></th>", f);
    for (size_t i = 0; i < c->n_cfgs * c->n_steps; i++)
        fprintf(f, "<th data-n=%d data-g=%zu><b>%d steps</b><small>cfg %g</small></th>", c->steps[i % c->n_steps],
                i / c->n_steps, c->steps[i % c->n_steps], (double)c->cfgs[i / c->n_steps]);
    fputs("</tr></thead>\n<tbody>\n", f);
    for (size_t row = 0; row < c->n_rows; row++) {
        const size_t sampler = row / c->n_schedulers, schedule = row % c->n_schedulers;
        const bool ode = compare_at(c, subject, 0, row, 0)->ode;
        if (compare_row_is_empty(c, row)) continue;
        fprintf(f, "<tr data-s=%zu data-k=%zu data-o=%d><th><b>%s</b>%s<small>%s</small></th>\n", sampler, schedule,
                ode, c->samplers[sampler], ode ? "" : " *", c->schedulers[schedule]);
        for (size_t i = 0; i < c->n_cfgs * c->n_steps; i++)
            RUNG_TRY(put_cell(f, c, subject, i / c->n_steps, row, i % c->n_steps, err));
        fputs("</tr>\n", f);
    }
    fputs("</tbody></table></div>\n</section>\n", f);
    return RUNG_OK;
}

/* ---- what stands above the pictures ---- */

static void put_best(FILE *f, const compare *c) {
    fputs("<table class=best><thead><tr><th>at most</th><th>nearest to the reference</th><th>PSNR</th></tr></thead>"
          "<tbody>\n",
          f);
    for (size_t cfg = 0; cfg < c->n_cfgs; cfg++)
        for (size_t n = 0; n < c->n_steps; n++) {
            size_t row, step;
            if (!compare_best(c, cfg, c->steps[n], &row, &step)) continue;
            const compare_mean m = compare_mean_of(c, cfg, row, step);
            fprintf(f, "<tr><td>%d calls</td><td><b>%s</b> %s, %d steps", c->steps[n],
                    c->samplers[row / c->n_schedulers], c->schedulers[row % c->n_schedulers], c->steps[step]);
            if (c->n_cfgs > 1) fprintf(f, ", cfg %g", (double)c->cfgs[cfg]);
            fprintf(f, "</td><td>%.1f dB</td></tr>\n", m.psnr);
        }
    fputs("</tbody></table>\n", f);
}

/* How far the reference itself still moves: differences below that say nothing. */
static double reference_psnr(const compare *c) {
    double sum = 0;
    for (size_t i = 0; i < c->n_subjects * c->n_cfgs; i++)
        sum += compare_reference(c, i / c->n_cfgs, i % c->n_cfgs, 1)->psnr;
    return sum / (double)(c->n_subjects * c->n_cfgs);
}

static void put_intro(FILE *f, const compare *c, const char *model) {
    fputs("<h1>rung compare</h1>\n<p>Model ", f);
    put_text(f, model);
    fprintf(f,
            ". Each picture is measured against the one that %s reaches in %d steps from the same noise: PSNR of the "
            "pixels over white (more is nearer) and L2 distance of the latents. With half as many steps that "
            "reference differs from itself by %.1f dB: pictures above that are as good as it. Cost is calls of the "
            "denoiser, and seconds of denoising on the machine that drew this.</p>\n"
            "<p>Samplers with * do not aim at the reference: most add noise at each step, and draw another picture of "
            "the same kind. Their distance is no error.</p>\n",
            c->reference, c->reference_steps, reference_psnr(c));
    put_best(f, c);
}

static void put_skipped(FILE *f, const compare *c) {
    bool any = false;
    for (size_t row = 0; row < c->n_rows; row++) {
        const bool whole = compare_row_is_empty(c, row);
        const compare_cell *p;
        for (size_t i = 0; (p = compare_skipped(c, row, i)); i++) {
            if (!any) fputs("<details><summary>Skipped combinations</summary><ul>\n", f);
            any = true;
            fprintf(f, "<li><b>%s</b> %s", p->sampler, c->schedulers[row % c->n_schedulers]);
            if (!whole) fprintf(f, ", %d steps", p->steps);
            fputs(": ", f);
            put_text(f, p->refusal);
            fputs("</li>\n", f);
        }
    }
    if (any) fputs("</ul></details>\n", f);
}

static void open_group(FILE *f, const char *legend) { fprintf(f, "<fieldset><legend>%s</legend>\n", legend); }

static void open_box(FILE *f, const char *key, size_t value) {
    fprintf(f, "<label><input type=checkbox checked data-key=%s value=%zu> ", key, value);
}

static void put_name_boxes(FILE *f, const compare *c) {
    open_group(f, "samplers");
    for (size_t i = 0; i < c->n_samplers; i++) {
        bool drawn = false;
        for (size_t k = 0; k < c->n_schedulers; k++) drawn = drawn || !compare_row_is_empty(c, i * c->n_schedulers + k);
        if (!drawn) continue;
        open_box(f, "s", i);
        fprintf(f, "<i style='--hue:%d'>&#9632;</i> %s%s</label>\n", compare_hue(c, i), c->samplers[i],
                compare_at(c, 0, 0, i * c->n_schedulers, 0)->ode ? "" : " *");
    }
    fputs("</fieldset>\n", f);
    open_group(f, "schedules");
    for (size_t i = 0; i < c->n_schedulers; i++) {
        open_box(f, "k", i);
        fprintf(f, "%s</label>\n", c->schedulers[i]);
    }
    fputs("</fieldset>\n", f);
}

static void put_number_boxes(FILE *f, const compare *c) {
    open_group(f, "steps");
    for (size_t i = 0; i < c->n_steps; i++) {
        open_box(f, "n", (size_t)c->steps[i]);
        fprintf(f, "%d</label>\n", c->steps[i]);
    }
    fputs("</fieldset>\n", f);
    if (c->n_cfgs < 2) return;
    open_group(f, "guidance");
    for (size_t i = 0; i < c->n_cfgs; i++) {
        open_box(f, "g", i);
        fprintf(f, "%g</label>\n", (double)c->cfgs[i]);
    }
    fputs("</fieldset>\n", f);
}

/* The start of a prompt, not through a character */
static void put_short(FILE *f, const char *prompt) {
    enum { MOST = 40 };
    char text[MOST + 1];
    size_t n = strlen(prompt) < MOST ? strlen(prompt) : MOST;
    while (n && ((unsigned char)prompt[n] & 0xc0) == 0x80) n--;
    memcpy(text, prompt, n);
    text[n] = 0;
    put_text(f, text);
    if (prompt[n]) fputs("&hellip;", f);
}

static void put_subject_boxes(FILE *f, const compare *c) {
    if (c->n_subjects < 2) return;
    open_group(f, "pictures");
    for (size_t i = 0; i < c->n_subjects; i++) {
        open_box(f, "p", i);
        put_short(f, c->subjects[i].prompt);
        fprintf(f, " <small>%llu</small></label>\n", (unsigned long long)c->subjects[i].seed);
    }
    fputs("</fieldset>\n", f);
}

static void put_top(FILE *f, const compare *c, const char *model) {
    size_t n;
    const char *css = compare_css(&n);
    fputs(head, f);
    fwrite(css, 1, n, f);
    fputs("</style>\n", f);
    put_intro(f, c, model);
    put_skipped(f, c);
    fputs("<div class=top><div>\n", f);
    compare_plot(f, c);
    fputs(
        "<p class=pale>Means over all pictures below. Points with a white centre belong to samplers with *.</p></div>\n"
        "<div class=filters>\n",
        f);
    put_name_boxes(f, c);
    put_number_boxes(f, c);
    put_subject_boxes(f, c);
    fputs("</div></div>\n<main>\n", f);
}

rung_status compare_page_write(const compare *c, const char *model, const char *path, rung_err *err) {
    rung_outfile out;
    RUNG_TRY(rung_outfile_open(&out, path, err));
    rung_status st = RUNG_OK;
    size_t n;
    put_top(out.f, c, model);
    for (size_t i = 0; !st && i < c->n_subjects; i++) st = put_subject(out.f, c, i, err);
    if (st) {
        rung_outfile_abort(&out);
        return st;
    }
    fputs(dialog, out.f);
    const char *js = compare_js(&n);
    fwrite(js, 1, n, out.f);
    fputs("</script>\n</html>\n", out.f);
    return rung_outfile_commit(&out, err);
}
