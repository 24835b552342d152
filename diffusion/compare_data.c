#include "diffusion/compare_data.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "assets/json.h"
#include "assets/outfile.h"

static void put_field(FILE *f, const char *text) {
    fputc('"', f);
    for (; *text; text++) fputs(*text == '"' ? "\"\"" : (char[]){*text, 0}, f);
    fputc('"', f);
}

/* A figure that does not exist (latents that are not finite) is an empty field. */
static void put_number(FILE *f, const char *format, double v) {
    if (isfinite(v)) fprintf(f, format, v);
    fputc(',', f);
}

static void put_line(FILE *f, const compare *c, const compare_cell *p) {
    const rung_request *r = &c->subjects[p->subject];
    put_field(f, r->prompt);
    fputc(',', f);
    put_field(f, r->negative_prompt ? r->negative_prompt : "");
    fprintf(f, ",%llu,%s,%s,%d,%.9g,%d,%d,", (unsigned long long)r->seed, p->sampler,
            p->scheduler ? p->scheduler : "default", p->steps, (double)p->cfg_scale, compare_is_reference(c, p),
            p->ode);
    if (p->refusal) {
        fputs(",,,,,", f);
    } else {
        fprintf(f, "%zu,%.6f,", p->calls, p->seconds);
        put_number(f, "%.6g", p->distance);
        put_number(f, "%.3f", p->psnr);
        fprintf(f, "%s,", p->file);
    }
    put_field(f, p->refusal ? p->refusal : "");
    fputs("\r\n", f);
}

rung_status compare_csv_write(const compare *c, const char *path, rung_err *err) {
    rung_outfile out;
    RUNG_TRY(rung_outfile_open(&out, path, err));
    fputs("prompt,negative_prompt,seed,sampler,scheduler,steps,cfg_scale,reference,ode,calls,seconds,latent_distance,"
          "psnr_db,file,refusal\r\n",
          out.f);
    for (const compare_cell *p = c->cells; p < c->cells + c->count; p++) put_line(out.f, c, p);
    return rung_outfile_commit(&out, err);
}

static void add_figure(cJSON *o, const char *key, double v) {
    if (isfinite(v))
        cJSON_AddNumberToObject(o, key, v);
    else
        cJSON_AddNullToObject(o, key);
}

static void add_settings(cJSON *o, const compare_cell *p) {
    cJSON_AddStringToObject(o, "sampler", p->sampler);
    cJSON_AddStringToObject(o, "scheduler", p->scheduler ? p->scheduler : "default");
    cJSON_AddNumberToObject(o, "steps", p->steps);
    cJSON_AddNumberToObject(o, "cfg_scale", (double)p->cfg_scale);
}

void compare_cell_json(cJSON *o, const compare *c, const compare_cell *p) {
    const rung_request *r = &c->subjects[p->subject];
    char seed[32];
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)r->seed);
    cJSON_AddStringToObject(o, "prompt", r->prompt);
    cJSON_AddStringToObject(o, "negative_prompt", r->negative_prompt ? r->negative_prompt : "");
    cJSON_AddRawToObject(o, "seed", seed); /* a double would round seeds above 2^53 */
    add_settings(o, p);
    cJSON_AddBoolToObject(o, "reference", compare_is_reference(c, p));
    cJSON_AddBoolToObject(o, "ode", p->ode);
    if (p->refusal) {
        cJSON_AddStringToObject(o, "refusal", p->refusal);
        return;
    }
    cJSON_AddNumberToObject(o, "calls", (double)p->calls);
    cJSON_AddNumberToObject(o, "seconds", p->seconds);
    add_figure(o, "latent_distance", p->distance);
    add_figure(o, "psnr_db", p->psnr);
    cJSON_AddStringToObject(o, "file", p->file);
    cJSON_AddStringToObject(o, "command", p->command);
}

/* For each number of steps as a budget of denoiser calls, what comes nearest. */
static void add_best(cJSON *list, const compare *c, size_t cfg) {
    for (size_t i = 0; i < c->n_steps; i++) {
        size_t row, step;
        if (!compare_best(c, cfg, c->steps[i], &row, &step)) continue;
        const compare_mean m = compare_mean_of(c, cfg, row, step);
        cJSON *o = cJSON_CreateObject();
        cJSON_AddNumberToObject(o, "most_calls", c->steps[i]);
        add_settings(o, compare_at(c, 0, cfg, row, step));
        cJSON_AddNumberToObject(o, "calls", m.calls);
        cJSON_AddNumberToObject(o, "seconds", m.seconds);
        add_figure(o, "latent_distance", m.distance);
        add_figure(o, "psnr_db", m.psnr);
        cJSON_AddItemToArray(list, o);
    }
}

rung_status compare_json_write(const compare *c, const char *model, const char *path, rung_err *err) {
    rung_outfile out;
    RUNG_TRY(rung_outfile_open(&out, path, err));
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(root, "version", rung_version());
    cJSON_AddStringToObject(root, "model", model);
    cJSON_AddNumberToObject(root, "psnr_db_when_equal", COMPARE_EQUAL);
    cJSON *best = cJSON_AddArrayToObject(root, "best"), *pictures = cJSON_AddArrayToObject(root, "pictures");
    for (size_t i = 0; i < c->n_cfgs; i++) add_best(best, c, i);
    for (const compare_cell *p = c->cells; p < c->cells + c->count; p++) {
        cJSON *o = cJSON_CreateObject();
        compare_cell_json(o, c, p);
        cJSON_AddItemToArray(pictures, o);
    }
    char *text = cJSON_Print(root);
    cJSON_Delete(root);
    if (!text) {
        rung_outfile_abort(&out);
        return rung_fail(err, RUNG_ENOMEM, "%s: out of memory", path);
    }
    fputs(text, out.f);
    fputc('\n', out.f);
    cJSON_free(text);
    return rung_outfile_commit(&out, err);
}
