/* tests/test_json.c - what is read, what is refused, and the config readers. */
#include <stdlib.h>
#include <string.h>

#include "assets/json.h"
#include "tests/check.h"

static cJSON *parse(const char *text, rung_err *e) {
    cJSON *v;
    *e = (rung_err){0};
    rung_json_parse(&v, text, strlen(text), "x.json", e);
    return v;
}

static bool refused(const char *text, const char *reason) {
    rung_err e;
    cJSON *v = parse(text, &e);
    const bool fine = !v && e.code == RUNG_EFORMAT && strstr(e.msg, "x.json") && strstr(e.msg, reason);
    if (!fine) fprintf(stderr, "  %s -> %s\n", text, v ? "accepted" : e.msg);
    cJSON_Delete(v);
    return fine;
}

static void python_dialect(void) {
    rung_err e;
    cJSON *v = parse("\xef\xbb\xbf{\"a\": NaN, \"b\": [-Infinity, Infinity], \"NaN\": \"Infinity\"}\n", &e);
    if (!CHECK(v)) return;
    CHECK(isnan(cJSON_GetObjectItemCaseSensitive(v, "a")->valuedouble));
    const cJSON *b = cJSON_GetObjectItemCaseSensitive(v, "b");
    CHECK(b->child->valuedouble == -INFINITY && b->child->next->valuedouble == INFINITY);
    CHECK(strcmp(cJSON_GetObjectItemCaseSensitive(v, "NaN")->valuestring, "Infinity") == 0);
    cJSON_Delete(v);
}

static void refusals(void) {
    CHECK(refused("", "not valid JSON"));
    CHECK(refused("{\"a\": 1} x", "not valid JSON"));
    CHECK(refused("{\"a\": 1", "not valid JSON"));
    CHECK(refused("{\n\n\"a\" 1}", "line 3"));
    CHECK(refused("{\"a\": 1, \"b\": {\"c\": 1, \"d\": 2, \"c\": 3}}", "\"c\" is there twice"));
    CHECK(refused("[\"\xff\"]", "UTF-8"));
    CHECK(refused("[\"\xc0\x80\"]", "UTF-8"));
    CHECK(refused("[\"\xed\xa0\x80\"]", "UTF-8"));
    CHECK(refused("[\"\xf4\x90\x80\x80\"]", "UTF-8"));
    CHECK(refused("[\"a\tb\"]", "control character"));
    CHECK(refused("[\"a\\u0000b\"]", "\\u0000"));
    CHECK(refused("[\"abc", "does not end"));
    CHECK(refused("[\"abc\\", "does not end"));
    CHECK(refused("[\x01]", "unexpected character"));
    CHECK(refused("[nan]", "not valid JSON"));
    char deep[300] = {0};
    memset(deep, '[', 100);
    memset(deep + 100, ']', 100);
    CHECK(refused(deep, "nested"));
    rung_err e = {0};
    cJSON *v;
    CHECK(rung_json_parse(&v, "[1]\0", 4, "x.json", &e) == RUNG_EFORMAT && !v);
}

static void many_keys(void) {
    enum { N = 100000, EACH = 16 };
    char *text = malloc(N * EACH + 3), *at = text;
    *at++ = '{';
    for (int i = 0; i < N; i++) at += sprintf(at, "%s\"k%d\":1", i ? "," : "", i);
    strcpy(at, "}");
    rung_err e;
    cJSON *v = parse(text, &e);
    CHECK(v && cJSON_GetArraySize(v) == N);
    cJSON_Delete(v);
    free(text);
    enum { HUGE = 9 << 20 };
    char *wide = malloc(HUGE + 1);
    memset(wide, '0', HUGE);
    for (int i = 1; i < HUGE; i += 2) wide[i] = ',';
    wide[0] = '[';
    wide[HUGE] = 0;
    CHECK(refused(wide, "too many values"));
    free(wide);
}

static void files(void) {
    cJSON *v;
    rung_err e = {0};
    CHECK(rung_json_load(&v, "no/such.json", &e) == RUNG_EIO && !v && strstr(e.msg, "no/such.json"));
    e = (rung_err){0};
    CHECK(rung_json_load(&v, ".", &e) == RUNG_EIO && strstr(e.msg, "regular file"));
    char *text;
    size_t bytes;
    FILE *f = fopen("test_json.tmp", "wb");
    if (!CHECK(f)) return;
    fputs("{\"a\": 1}", f);
    fclose(f);
    e = (rung_err){0};
    CHECK(rung_file_read("test_json.tmp", 8, &text, &bytes, &e) == RUNG_OK && bytes == 8 && strlen(text) == 8);
    free(text);
    CHECK(rung_file_read("test_json.tmp", 7, &text, &bytes, &e) == RUNG_EFORMAT && !text && strstr(e.msg, "at most 7"));
    remove("test_json.tmp");
}

static const char CONFIG[] = "{\"i\": 7, \"r\": 0.5, \"b\": true, \"s\": \"text\", \"l\": [1, 2, 3], \"null\": null,"
                             " \"huge\": 1e300, \"inf\": Infinity, \"nan\": NaN, \"empty\": [], \"mixed\": [1, \"2\"]}";

static void config_values(void) {
    rung_err e;
    cJSON *root = parse(CONFIG, &e);
    rung_config c = {root, "c.json", &e, RUNG_OK};
    long list[3];
    size_t n;
    CHECK(cfg_has(&c, "i") && !cfg_has(&c, "null") && !cfg_has(&c, "none"));
    CHECK(cfg_int(&c, "i", 1, 0, 10) == 7 && cfg_int(&c, "null", 1, 0, 10) == 1 && cfg_int(&c, "none", 2, 0, 10) == 2);
    CHECK(cfg_need_int(&c, "i", 7, 7) == 7);
    CHECK(cfg_real(&c, "r", 0, 0, 1) == 0.5 && cfg_real(&c, "i", 0, 0, 10) == 7);
    CHECK(cfg_real(&c, "inf", 0, 0, INFINITY) == INFINITY);
    CHECK(cfg_bool(&c, "b", false) && strcmp(cfg_string(&c, "s", ""), "text") == 0);
    cfg_ints(&c, "l", list, 3, &n, 1, 3);
    CHECK(n == 3 && list[0] == 1 && list[2] == 3);
    cfg_ints(&c, "i", list, 1, &n, 1, 9);
    CHECK(n == 1 && list[0] == 7);
    cfg_ints(&c, "none", list, 3, &n, 1, 3);
    CHECK(n == 0 && c.status == RUNG_OK && e.code == RUNG_OK);
    cJSON_Delete(root);
}

/* Each reader refuses, names file, key and value, returns the default, and stays refused. */
static void config_refusals(void) {
    for (int i = 0; i < 14; i++) {
        rung_err e;
        cJSON *root = parse(CONFIG, &e);
        rung_config c = {root, "c.json", &e, RUNG_OK};
        long list[3], got = 5;
        size_t n = 0;
        const char *says[] = {"\"i\" is 7",          "\"r\" is 0.5",     "\"s\" is \"text\"", "\"huge\"",
                              "\"none\" is missing", "\"b\" is true",    "\"nan\"",           "\"inf\"",
                              "\"i\" is 7",          "\"l\" is [1,2,3]", "\"l\" is [1,2,3]",  "\"l\"",
                              "\"empty\" is []",     "\"mixed\""};
        if (i == 0) got = cfg_int(&c, "i", 5, 8, 10);
        if (i == 1) got = cfg_int(&c, "r", 5, 0, 10);
        if (i == 2) got = cfg_int(&c, "s", 5, 0, 10);
        if (i == 3) got = cfg_int(&c, "huge", 5, 0, 10);
        if (i == 4) got = cfg_need_int(&c, "none", 5, 10);
        if (i == 5) got = (long)cfg_real(&c, "b", 5, 0, 10);
        if (i == 6) got = (long)cfg_real(&c, "nan", 5, -INFINITY, INFINITY);
        if (i == 7) got = (long)cfg_real(&c, "inf", 5, 0, 10);
        if (i == 8) got = cfg_bool(&c, "i", false) ? 0 : 5;
        if (i == 9) got = cfg_string(&c, "l", NULL) ? 0 : 5;
        if (i == 10) cfg_ints(&c, "l", list, 2, &n, 0, 9);
        if (i == 11) cfg_ints(&c, "l", list, 3, &n, 2, 9);
        if (i == 12) cfg_ints(&c, "empty", list, 3, &n, 0, 9);
        if (i == 13) cfg_ints(&c, "mixed", list, 3, &n, 0, 9);
        const bool fine = c.status == RUNG_EFORMAT && strstr(e.msg, "c.json") && strstr(e.msg, says[i]) && got == 5;
        if (!CHECK(fine && n == 0)) fprintf(stderr, "  case %d: %s\n", i, e.msg);
        CHECK(cfg_int(&c, "i", 1, 0, 10) == 1); /* stuck: the default */
        cJSON_Delete(root);
    }
}

int main(void) {
    python_dialect();
    refusals();
    many_keys();
    files();
    config_values();
    config_refusals();
    return check_result();
}
