/* diffusion/convert_report.c - what a conversion did, for people and for programs. */
#define _POSIX_C_SOURCE 200809L /* open_memstream */
#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "diffusion/convert.h"

static void add_measured(cJSON *o, const char *key, double v) {
    if (isfinite(v)) cJSON_AddNumberToObject(o, key, v);
}

static cJSON *row_json(const convert_row *r) {
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "tensor", r->name);
    cJSON_AddStringToObject(o, "shape", r->shape);
    cJSON_AddStringToObject(o, "role", r->role);
    cJSON_AddStringToObject(o, "from", r->from);
    cJSON_AddStringToObject(o, "to", r->to);
    cJSON_AddStringToObject(o, "form", r->form);
    cJSON_AddNumberToObject(o, "weights", (double)r->weights);
    cJSON_AddNumberToObject(o, "held", (double)r->held);
    cJSON_AddNumberToObject(o, "bytes_before", (double)r->bytes_before);
    cJSON_AddNumberToObject(o, "bytes", (double)r->bytes);
    cJSON_AddNumberToObject(o, "sparsity", r->sparsity);
    add_measured(o, "error", r->error);
    add_measured(o, "output_error", r->output_error);
    return o;
}

static char *report_json(const convert_report *r) {
    cJSON *root = cJSON_CreateObject(), *rows = cJSON_AddArrayToObject(root, "tensors");
    cJSON_AddNumberToObject(root, "bytes_before", (double)r->bytes_before);
    cJSON_AddNumberToObject(root, "bytes", (double)r->bytes);
    cJSON_AddStringToObject(root, "left_out", r->left_out);
    for (size_t i = 0; i < r->count; i++) cJSON_AddItemToArray(rows, row_json(&r->rows[i]));
    char *text = cJSON_PrintUnformatted(root), *line = text ? malloc(strlen(text) + 2) : NULL;
    if (line) sprintf(line, "%s\n", text);
    cJSON_free(text);
    cJSON_Delete(root);
    return line;
}

static void put_percent(FILE *f, double v) {
    if (isfinite(v))
        fprintf(f, " %7.2f%%", 100 * v);
    else
        fprintf(f, " %8s", "-");
}

static void put_row(FILE *f, const convert_row *r) {
    char type[40];
    snprintf(type, sizeof type, "%s%s%s", r->to, strcmp(r->form, "dense") == 0 ? "" : " ",
             strcmp(r->form, "dense") == 0 ? "" : r->form);
    fprintf(f, "%-74s %-20s %-6s %-14s", r->name, r->shape, r->role, type);
    put_percent(f, r->sparsity > 0 && r->weights ? 1 - (double)r->held / (double)r->weights : 0);
    fprintf(f, " %11zu %6.3f", r->bytes, r->weights ? (double)r->bytes / (double)r->weights : 0);
    put_percent(f, r->error);
    put_percent(f, r->output_error);
    fputc('\n', f);
}

/* Vectors are many, small, and as they were: they go into the totals only. */
static char *report_table(const convert_report *r) {
    char *text = NULL;
    size_t size, vectors = 0, vector_bytes = 0;
    FILE *f = open_memstream(&text, &size);
    if (!f) return NULL;
    fprintf(f, "%-74s %-20s %-6s %-14s %8s %11s %6s %8s %8s\n", "tensor", "shape", "role", "type", "zeros", "bytes",
            "each", "error", "output");
    for (size_t i = 0; i < r->count; i++) {
        const bool vector = strcmp(r->rows[i].role, "vector") == 0;
        vectors += vector;
        vector_bytes += vector ? r->rows[i].bytes : 0;
        if (!vector) put_row(f, &r->rows[i]);
    }
    fprintf(f, "%zu vectors, %zu bytes\n", vectors, vector_bytes);
    if (*r->left_out) fprintf(f, "left out, for rung does not read it: %s\n", r->left_out);
    fprintf(f, "%.2f MB of weights, %.2f MB before: %.3f of it\n", 1e-6 * (double)r->bytes,
            1e-6 * (double)r->bytes_before, r->bytes_before ? (double)r->bytes / (double)r->bytes_before : 1);
    if (fclose(f) == 0) return text;
    free(text);
    return NULL;
}

char *convert_report_text(const convert_report *r, bool json) { return json ? report_json(r) : report_table(r); }
