/* tests/test_compare_figures.c - rung compare, from its files alone: the figures in CSV and JSON are computed again
 * from the pictures and from latents drawn by the commands; each command in the page draws its picture byte for byte;
 * prompts that are markup, quotes and newlines come through whole. */
#define _GNU_SOURCE /* setenv, asprintf, memmem */
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "assets/json.h"
#include "assets/npy.h"
#include "check.h"
#include "vae/png.h"

static const char prompt[] =
    "</script><img src=x onerror=\"alert(1)\"> 'q' \"d\", ;&amp; <!-- --> ]]> \\ $(touch owned) "
    "`touch owned` caf\xc3\xa9 \xe6\xbc\xa2\n\tline two\r\n=1+1";
enum { MAX_FILE = 1 << 26 };

static char *quoted(const char *s) {
    char *out = calloc(4 * strlen(s) + 3, 1), *w = out;
    *w++ = '\'';
    for (; *s; s++) {
        if (*s == '\'')
            w += sprintf(w, "'\\''");
        else
            *w++ = *s;
    }
    *w = '\'';
    return out;
}

static char *slurp(const char *path, size_t *n) {
    rung_err err = {0};
    char *text = NULL;
    if (!CHECK(rung_file_read(path, MAX_FILE, &text, n, &err) == RUNG_OK)) fprintf(stderr, "  %s\n", err.msg);
    return text;
}

static bool same_files(const char *a, const char *b) {
    size_t n = 0, m = 0;
    char *x = slurp(a, &n), *y = slurp(b, &m);
    const bool same = x && y && n == m && memcmp(x, y, n) == 0;
    free(x);
    free(y);
    return same;
}

/* ---- the figures again ---- */

struct picture {
    uint8_t *bytes;
    size_t w, h, channels;
    rung_npy latents;
};

static void free_picture(struct picture *p) {
    free(p->bytes);
    rung_npy_free(&p->latents);
    *p = (struct picture){0};
}

static double over_white(const struct picture *p, size_t pixel, size_t k) {
    const uint8_t *s = p->bytes + pixel * p->channels;
    const double a = p->channels == 4 ? s[3] / 255.0 : 1;
    return floor(s[k] * a + 255 * (1 - a) + 0.5);
}

static double psnr_of(const struct picture *a, const struct picture *b) {
    double sum = 0;
    for (size_t i = 0; i < a->w * a->h; i++)
        for (size_t k = 0; k < 3; k++) sum += pow(over_white(a, i, k) - over_white(b, i, k), 2);
    return sum > 0 ? 10 * log10(255.0 * 255.0 / (sum / (3.0 * (double)(a->w * a->h)))) : 120;
}

/* Draws a picture by its command into again.png and again.npy, and compares it with the one that compare wrote. */
static bool redraw(const char *command, const char *file, struct picture *out) {
    rung_err err = {0};
    char *line, *path;
    if (asprintf(&line, "%s -q -o again.png --save-latents again.npy >again.txt", command) < 0) return false;
    if (asprintf(&path, "out/%s", file) < 0) return false;
    bool ok = CHECK(system(line) == 0) && CHECK(same_files(path, "again.png"));
    ok = ok && CHECK(rung_png_read(path, &out->bytes, &out->w, &out->h, &out->channels, NULL, &err) == RUNG_OK) &&
         CHECK(rung_npy_read(&out->latents, "again.npy", &err) == RUNG_OK);
    if (!ok) fprintf(stderr, "  %s\n", command);
    free(line);
    free(path);
    return ok;
}

static const char *text_of(const cJSON *o, const char *key) {
    return cJSON_GetStringValue(cJSON_GetObjectItem(o, key));
}

static double number_of(const cJSON *o, const char *key) {
    const cJSON *v = cJSON_GetObjectItem(o, key);
    return cJSON_IsNumber(v) ? v->valuedouble : NAN;
}

/* One drawn picture; `reference` is kept from one call to the next. */
static void check_figures(const cJSON *p, struct picture *reference) {
    struct picture mine = {0};
    const bool leads = cJSON_IsTrue(cJSON_GetObjectItem(p, "reference")) && number_of(p, "steps") == 12;
    if (!redraw(text_of(p, "command"), text_of(p, "file"), &mine)) return free_picture(&mine);
    if (leads) {
        free_picture(reference);
        *reference = mine;
        CHECK(number_of(p, "latent_distance") == 0 && number_of(p, "psnr_db") == 120);
        return;
    }
    const double distance = rel_l2(mine.latents.data, reference->latents.data, mine.latents.count);
    if (!CHECK(fabs(number_of(p, "latent_distance") - distance) <= 1e-6 * (1 + distance)) ||
        !CHECK(fabs(number_of(p, "psnr_db") - psnr_of(&mine, reference)) < 0.02))
        fprintf(stderr, "  %s: %g and %g dB, wanted %g and %g\n", text_of(p, "command"),
                number_of(p, "latent_distance"), number_of(p, "psnr_db"), distance, psnr_of(&mine, reference));
    free_picture(&mine);
}

/* ---- the CSV ---- */

/* The next field of an RFC 4180 file, NULL at the end; *last: the record ends behind it. */
static char *next_field(const char **s, bool *last) {
    if (!**s) return NULL;
    char *out = calloc(strlen(*s) + 1, 1), *w = out;
    const bool in_quotes = **s == '"';
    *s += in_quotes;
    for (; **s; ++*s) {
        if (in_quotes && **s == '"') {
            if ((*s)[1] != '"') break;
            ++*s;
        } else if (!in_quotes && (**s == ',' || **s == '\r')) {
            break;
        }
        *w++ = **s;
    }
    *s += in_quotes && **s == '"';
    *last = **s == '\r';
    *s += *last ? 2 : **s == ',';
    return out;
}

static void check_csv_line(const cJSON *p, char *const *f) {
    const char *refusal = text_of(p, "refusal");
    CHECK(strcmp(f[0], text_of(p, "prompt")) == 0 && strcmp(f[1], text_of(p, "negative_prompt")) == 0);
    CHECK(strtod(f[2], NULL) == number_of(p, "seed") && strtod(f[5], NULL) == number_of(p, "steps"));
    CHECK(strcmp(f[3], text_of(p, "sampler")) == 0 && strcmp(f[4], text_of(p, "scheduler")) == 0);
    CHECK(strcmp(f[14], refusal ? refusal : "") == 0);
    if (refusal) {
        CHECK(!*f[9] && !*f[13]);
        return;
    }
    CHECK(strtod(f[9], NULL) == number_of(p, "calls") && strcmp(f[13], text_of(p, "file")) == 0);
    CHECK(fabs(strtod(f[11], NULL) - number_of(p, "latent_distance")) < 1e-5 * (1 + number_of(p, "latent_distance")));
    CHECK(fabs(strtod(f[12], NULL) - number_of(p, "psnr_db")) < 1e-3);
}

static void check_csv(const cJSON *pictures) {
    enum { FIELDS = 15 };
    size_t n, lines = 0;
    char *text = slurp("out/compare.csv", &n), *f[FIELDS];
    const char *s = text ? strstr(text, "\r\n") : NULL;
    const cJSON *p = pictures->child;
    if (!CHECK(s)) return;
    for (s += 2; *s && p; p = p->next, lines++) {
        bool last = false;
        size_t k = 0;
        for (; k < FIELDS && !last; k++) f[k] = next_field(&s, &last);
        if (CHECK(k == FIELDS && last)) check_csv_line(p, f);
        while (k) free(f[--k]);
    }
    CHECK(!p && !*s && lines > 0);
    free(text);
}

/* ---- the page ---- */

/* The value of an attribute behind `s`, character references resolved, malloc'd. */
static char *attribute(const char *s, const char *name) {
    const char *from = strstr(s, name);
    if (!from) return NULL;
    from += strlen(name);
    char *out = calloc(strcspn(from, "\"") + 1, 1), *w = out;
    while (*from && *from != '"') {
        if (from[0] == '&' && from[1] == '#') {
            char *end;
            *w++ = (char)strtol(from + 2, &end, 10);
            from = end + (*end == ';');
        } else {
            *w++ = *from++;
        }
    }
    return out;
}

static int base64_digit(char c) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = c ? strchr(digits, c) : NULL;
    return at ? (int)(at - digits) : 0;
}

static bool is_file_in_base64(const char *s, const char *file) {
    size_t n = 0, k = 0;
    char *path = NULL;
    if (asprintf(&path, "out/%s", file) < 0) return false;
    unsigned char *bytes = (unsigned char *)slurp(path, &n);
    const size_t digits = strcspn(s, "\"");
    bool same = bytes && digits == (n + 2) / 3 * 4;
    for (size_t i = 0; same && i < digits; i += 4) {
        const int v = base64_digit(s[i]) << 18 | base64_digit(s[i + 1]) << 12 | base64_digit(s[i + 2]) << 6 |
                      base64_digit(s[i + 3]);
        for (int b = 16; b >= 0 && k < n; b -= 8) same = same && bytes[k++] == (v >> b & 255);
    }
    free(bytes);
    free(path);
    return same && k == n;
}

/* Each picture stands in the page once, with the command of the JSON and the bytes of its file, in the JSON's order. */
static void check_page(const cJSON *pictures) {
    size_t n;
    char *page = slurp("out/compare.html", &n);
    const char *s = page;
    const cJSON *p;
    if (!page) return;
    cJSON_ArrayForEach(p, pictures) {
        if (text_of(p, "refusal")) continue;
        s = strstr(s, "<button type=button class=shot");
        if (!CHECK(s)) break;
        char *command = attribute(s, "data-command=\"");
        CHECK(command && strcmp(command, text_of(p, "command")) == 0);
        free(command);
        s = strstr(s, "src=\"data:image/png;base64,");
        if (!CHECK(s)) break;
        s += strlen("src=\"data:image/png;base64,");
        CHECK(is_file_in_base64(s, text_of(p, "file")));
    }
    CHECK(s && !strstr(s, "<button type=button class=shot"));
    CHECK(!strstr(page, "<img src=x") && !strstr(page, "://")); /* no markup from prompts, nothing from a network */
    const char *script = strstr(page, "</script>");
    CHECK(script && !strstr(script + 1, "</script>"));
    free(page);
}

static void check_counts(const cJSON *pictures) {
    int drawn = 0, refused = 0, other = 0;
    const cJSON *p;
    cJSON_ArrayForEach(p, pictures) {
        const char *refusal = text_of(p, "refusal"), *sampler = text_of(p, "sampler");
        drawn += !refusal;
        refused += refusal != NULL;
        other += cJSON_IsFalse(cJSON_GetObjectItem(p, "ode"));
        if (refusal) CHECK(strcmp(sampler, "ddpm") == 0 && strstr(refusal, "cannot take schedule karras"));
        if (strcmp(sampler, "heun") == 0) CHECK(number_of(p, "calls") == 2 * number_of(p, "steps") - 1);
        if (strcmp(sampler, "euler") == 0) CHECK(number_of(p, "calls") == number_of(p, "steps"));
        CHECK(strcmp(text_of(p, "prompt"), prompt) == 0);
        CHECK(number_of(p, "seed") == 7 || number_of(p, "seed") == 8);
    }
    CHECK(drawn == 2 * (2 + 5 * 2) && refused == 2 * 2 && other == 2 * 4);
}

int main(void) {
    char *line = NULL, *text, *word = quoted(prompt), *folder = strdup(RUNG_PROGRAM), *path = NULL;
    size_t n;
    rung_err err = {0};
    cJSON *root = NULL;
    *strrchr(folder, '/') = 0;
    if (asprintf(&path, "%s:%s", folder, getenv("PATH")) < 0) return 1;
    setenv("PATH", path, 1);
    if (system("rm -rf test_compare_figures.work") != 0 || mkdir("test_compare_figures.work", 0777) != 0 ||
        chdir("test_compare_figures.work"))
        return 1;
    if (asprintf(&line,
                 "rung compare -m %s/golden/pipelines/sd1 -W 32 -H 32 -q -s 7 -b 2 --sampler 'euler,DDPM,heun' "
                 "--scheduler default,karras --steps 2,3 --cfg-scale 2.5 --reference dpm++2m:12 -n 'low, \"quality\"' "
                 "-o out -p %s >names.txt",
                 RUNG_TEST_DIR, word) < 0)
        return 1;
    if (CHECK(system(line) == 0) && (text = slurp("out/compare.json", &n))) {
        if (CHECK(rung_json_parse(&root, text, n, "compare.json", &err) == RUNG_OK)) {
            const cJSON *pictures = cJSON_GetObjectItem(root, "pictures"), *p;
            struct picture reference = {0};
            check_counts(pictures);
            check_csv(pictures);
            check_page(pictures);
            cJSON_ArrayForEach(p, pictures) if (!text_of(p, "refusal")) check_figures(p, &reference);
            free_picture(&reference);
        }
        free(text);
    }
    CHECK(access("owned", F_OK) != 0);
    cJSON_Delete(root);
    free(line);
    free(word);
    free(path);
    free(folder);
    return check_result();
}
