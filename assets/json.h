/* assets/json.h - JSON files through cJSON, and range-checked reading of configs. */
#ifndef RUNG_JSON_H
#define RUNG_JSON_H
#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>

#include "kernels/base/err.h"

/** Reads a whole regular file of at most `max` bytes and adds a NUL. Free with free(). RUNG_EIO, RUNG_EFORMAT. */
rung_status rung_file_read(const char *path, size_t max, char **text, size_t *bytes, rung_err *err);

/**
 * Parses JSON: UTF-8, limited depth, nothing after the value; duplicate keys refused. Also Python's dialect: NaN,
 * Infinity, -Infinity become numbers. `where` names the source in messages. Free with cJSON_Delete.
 */
rung_status rung_json_parse(cJSON **out, const char *text, size_t bytes, const char *where, rung_err *err);
rung_status rung_json_load(cJSON **out, const char *path, rung_err *err);

/* A config being read. The first value that is missing, of the wrong type or out of range sets `status` and err; the
 * readers then return the default, so that a reader of ten keys checks once, at the end. */
typedef struct {
    const cJSON *root;
    const char *where; /* file name for messages */
    rung_err *err;
    rung_status status;
} rung_config;

bool cfg_has(const rung_config *c, const char *key); /* present and not null */
long cfg_int(rung_config *c, const char *key, long def, long lo, long hi);
double cfg_real(rung_config *c, const char *key, double def, double lo, double hi);
bool cfg_bool(rung_config *c, const char *key, bool def);
const char *cfg_string(rung_config *c, const char *key, const char *def); /* borrowed from root */
/** A list of 1..cap integers, or one integer (then *n = 1). Missing or null: *n = 0. */
void cfg_ints(rung_config *c, const char *key, long *out, size_t cap, size_t *n, long lo, long hi);
/** Missing is an error. */
long cfg_need_int(rung_config *c, const char *key, long lo, long hi);
/** For checks that span several keys: records RUNG_EFORMAT with `where` in front. */
void cfg_refuse(rung_config *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
#endif
