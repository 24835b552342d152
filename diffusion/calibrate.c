#define _GNU_SOURCE /* asprintf */
#include "diffusion/calibrate.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "assets/st_writer.h"
#include "diffusion/engine.h"
#include "diffusion/observe.h"
#include "diffusion/prompt_file.h"

static rung_status watch(void *user, rung_backend *be, rung_err *err) { return observer_open(user, be, err); }

static rung_status draw_line(rung_engine *e, const prompt_line *line, rung_err *err) {
    rung_request r = line->request;
    for (size_t i = 0; i < line->pictures; i++, r.seed++) {
        rung_image image;
        RUNG_TRY(rung_generate(e, &r, 1, &image, err));
        rung_image_free(&image);
    }
    return RUNG_OK;
}

static rung_status draw_all(rung_engine *e, const prompt_file *f, rung_err *err) {
    if (f->fault_count)
        return rung_fail(err, RUNG_EFORMAT, "calibration prompts, line %zu: %s", f->faults[0].line,
                         f->faults[0].message);
    if (f->count == 0) return rung_fail(err, RUNG_EFORMAT, "calibration prompts: there is none");
    for (size_t i = 0; i < f->count; i++) RUNG_TRY(draw_line(e, &f->lines[i], err));
    return RUNG_OK;
}

/* Ids of the writer's tensors are the numbers of the weights that ran. */
static rung_status declare(st_writer *w, const observer *o, rung_err *err) {
    size_t id;
    for (size_t i = 0; i < observer_count(o); i++) {
        const observed_weight s = observer_get(o, i);
        const rung_tensor t = {.dtype = RUNG_F64, .ndim = 1, .shape = {s.inputs}};
        if (s.rows) RUNG_TRY(st_writer_add(w, &t, s.name, &id, err));
    }
    return RUNG_OK;
}

static rung_status put(st_writer *w, const observer *o, rung_err *err) {
    for (size_t i = 0, id = 0; i < observer_count(o); i++) {
        const observed_weight s = observer_get(o, i);
        if (!s.rows) continue;
        double *norm = malloc(s.inputs * sizeof *norm);
        if (!norm) return rung_fail(err, RUNG_ENOMEM, "calibration: out of memory");
        for (size_t c = 0; c < s.inputs; c++) norm[c] = sqrt(s.sum[c]);
        const rung_status st = st_writer_put(w, id++, 0, norm, s.inputs * sizeof *norm, err);
        free(norm);
        RUNG_TRY(st);
    }
    return st_writer_sync(w, err);
}

static rung_status save(const char *path, const observer *o, rung_err *err) {
    st_writer *w = NULL;
    char *temp = NULL;
    if (asprintf(&temp, "%s.tmp", path) < 0) return rung_fail(err, RUNG_ENOMEM, "calibration: out of memory");
    rung_status st = observer_check(o, err);
    if (!st) st = st_writer_open(&w, temp, err);
    if (!st) st = declare(w, o, err);
    if (!st) st = st_writer_start(w, NULL, err);
    if (!st) st = put(w, o, err);
    st_writer_close(&w);
    if (!st && rename(temp, path) != 0) st = rung_fail(err, RUNG_EIO, "%s: %s", path, strerror(errno));
    if (st) unlink(temp);
    free(temp);
    return st;
}

rung_status calibrate(const char *path, const calibrate_options *o, rung_err *err) {
    const rung_options options = {.model = o->model, .threads = o->threads};
    rung_engine *e = NULL;
    observer *seen = NULL;
    prompt_file file = {0};
    rung_status st;
    RUNG_TRY_GOTO(st, done, prompt_file_parse(&file, o->prompts, o->defaults, err));
    RUNG_TRY_GOTO(st, done, engine_open(&e, &options, watch, &seen, err));
    RUNG_TRY_GOTO(st, done, draw_all(e, &file, err));
    st = save(path, seen, err);
done:
    rung_close(&e);
    observer_close(&seen);
    prompt_file_free(&file);
    return st;
}
