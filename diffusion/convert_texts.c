/* diffusion/convert_texts.c - the files of the new folder that hold no weights. */
#define _GNU_SOURCE /* asprintf, scandir, open_memstream */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "assets/outfile.h"
#include "diffusion/convert_folder.h"

enum { TEXT_MAX = 64 << 20 };

static rung_status no_memory(rung_err *err) { return rung_fail(err, RUNG_ENOMEM, "convert: out of memory"); }

static rung_status write_text(const convert_folder *f, const char *part, const char *name, const char *text, size_t n,
                              rung_err *err) {
    char *path;
    rung_outfile o;
    RUNG_TRY(convert_folder_path(f, part, name, &path, err));
    rung_status st = rung_outfile_open(&o, path, err);
    if (!st) {
        (void)fwrite(text, 1, n, o.f); /* a failure shows at the commit */
        st = rung_outfile_commit(&o, err);
    }
    free(path);
    return st;
}

static rung_status write_json(const convert_folder *f, const char *part, const char *name, const cJSON *root,
                              rung_err *err) {
    char *printed = cJSON_Print(root), *text = NULL;
    if (!printed || asprintf(&text, "%s\n", printed) < 0) text = NULL;
    cJSON_free(printed);
    if (!text) return no_memory(err);
    const rung_status st = write_text(f, part, name, text, strlen(text), err);
    free(text);
    return st;
}

/* ---- a directory in diffusers layout ---- */

static bool fits(const char *name, const char *const *patterns) {
    for (; *patterns; patterns++)
        if (fnmatch(*patterns, name, FNM_CASEFOLD) == 0) return true;
    return false;
}

/* Weights of whatever framework, and what belongs to them. */
static bool is_weights(const char *name) {
    static const char *const patterns[] = {"*.safetensors", "*.safetensors.index*.json",
                                           "*.bin",         "*.bin.index*.json",
                                           "*.ckpt",        "*.pt",
                                           "*.pth",         "*.msgpack",
                                           "*.h5",          "*.onnx",
                                           "*.onnx_data",   "*.gguf",
                                           "*.pb",          NULL};
    return fits(name, patterns);
}

static bool is_licence(const char *name) {
    static const char *const patterns[] = {"licen[sc]e*", "notice*", "readme*", "credits*", "*.md", NULL};
    return fits(name, patterns);
}

static int by_entry(const struct dirent **a, const struct dirent **b) { return strcmp((*a)->d_name, (*b)->d_name); }

static rung_status copy_file(const convert_folder *f, const char *folder, const char *part, const char *name,
                             rung_err *err) {
    char *path = NULL, *text = NULL;
    struct stat s;
    size_t n;
    if (asprintf(&path, "%s/%s", folder, name) < 0) return no_memory(err);
    rung_status st = RUNG_OK;
    if (stat(path, &s) == 0 && S_ISREG(s.st_mode)) {
        st = rung_file_read(path, TEXT_MAX, &text, &n, err);
        if (!st) st = write_text(f, part, name, text, n, err);
    }
    free(text);
    free(path);
    return st;
}

/* Which of a folder's files are copied: of a part all but weights, at the top the licences. */
static rung_status copy_files(const convert_folder *f, const char *folder, const char *part, rung_err *err) {
    struct dirent **list = NULL;
    rung_status st = RUNG_OK;
    const int n = scandir(folder, &list, NULL, by_entry);
    if (n < 0) return rung_fail(err, RUNG_EIO, "%s: cannot be read: %s", folder, strerror(errno));
    for (int i = 0; i < n; i++) {
        const char *name = list[i]->d_name;
        const bool wanted = *name != '.' && (*part ? !is_weights(name) : is_licence(name));
        if (!st && wanted) st = copy_file(f, folder, part, name, err);
        free(list[i]);
    }
    free(list);
    return st;
}

static bool holds_weights(const char *folder) {
    DIR *d = opendir(folder);
    bool found = false;
    for (struct dirent *e; d && !found && (e = readdir(d));) found = is_weights(e->d_name);
    if (d) closedir(d);
    return found;
}

/* A name of model_index.json leads nowhere but into the model. */
static bool plain_name(const char *s) { return isalnum((unsigned char)*s) && !strchr(s, '/'); }

/* *taken: the part's folder is there, and holds no weights that rung cannot read; its files are copied. */
static rung_status copy_part(const convert_folder *f, const rung_model *m, const char *part, bool *taken,
                             rung_err *err) {
    static const char *const read[] = {"unet", "transformer", "vae", "text_encoder", "text_encoder_2", NULL};
    char *folder = NULL;
    struct stat s;
    *taken = false;
    if (!plain_name(part)) return RUNG_OK;
    if (asprintf(&folder, "%s/%s", rung_model_path(m), part) < 0) return no_memory(err);
    *taken = stat(folder, &s) == 0 && S_ISDIR(s.st_mode) && (fits(part, read) || !holds_weights(folder));
    const rung_status st = *taken ? copy_files(f, folder, part, err) : RUNG_OK;
    free(folder);
    return st;
}

static rung_status copy_model(const convert_folder *f, const rung_model *m, FILE *left_out, rung_err *err) {
    const rung_config index = rung_model_index(m, err);
    cJSON *copy = cJSON_Duplicate(index.root, true);
    bool taken, first = true;
    rung_status st = copy ? RUNG_OK : no_memory(err);
    for (cJSON *v = copy ? copy->child : NULL; !st && v; v = v->next) {
        if (!cJSON_IsArray(v) || !rung_model_has(m, v->string, NULL)) continue;
        st = copy_part(f, m, v->string, &taken, err);
        if (st || taken) continue;
        fprintf(left_out, "%s%s", first ? "" : ", ", v->string);
        first = false;
        for (int i = 0; !st && i < cJSON_GetArraySize(v); i++)
            if (!cJSON_ReplaceItemInArray(v, i, cJSON_CreateNull())) st = no_memory(err);
    }
    if (!st) st = copy_files(f, rung_model_path(m), "", err);
    if (!st) st = write_json(f, "", "model_index.json", copy, err);
    cJSON_Delete(copy);
    return st;
}

/* ---- one file in ldm layout ---- */

/* UTF-8 of CLIP's stand-in for byte b: itself when it prints, else 256 and up in order; `next` counts those. */
static int stand_in(char out[3], int b, int *next) {
    const bool prints = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
    const int c = prints ? b : 256 + (*next)++;
    if (c < 128) {
        out[0] = (char)c;
        return 1;
    }
    out[0] = (char)(0xc0 | c >> 6);
    out[1] = (char)(0x80 | (c & 63));
    return 2;
}

static void vocab_entry(FILE *f, const char *a, size_t na, const char *b, size_t nb, const char *ending, size_t *id) {
    fputs(*id ? ", \"" : "{\"", f);
    for (size_t i = 0; i < na + nb; i++) {
        const char c = i < na ? a[i] : b[i - na];
        if (c == '"' || c == '\\') fputc('\\', f);
        fputc(c, f);
    }
    fprintf(f, "%s\": %zu", ending, (*id)++);
}

/* The 256 bytes, those that print first, as CLIP's own vocabulary has them. */
static void vocab_bytes(FILE *f, const char *ending, size_t *id) {
    char printing[256][3], others[256][3];
    int len[2][256], n[2] = {0, 0}, next = 0;
    for (int b = 0; b < 256; b++) {
        char s[3];
        const int before = next, k = stand_in(s, b, &next), other = next > before;
        memcpy(other ? others[n[1]] : printing[n[0]], s, sizeof s);
        len[other][n[other]++] = k;
    }
    for (int i = 0; i < n[0]; i++) vocab_entry(f, printing[i], (size_t)len[0][i], "", 0, ending, id);
    for (int i = 0; i < n[1]; i++) vocab_entry(f, others[i], (size_t)len[1][i], "", 0, ending, id);
}

/* vocab.json of a CLIP tokenizer follows from its merges; transformers wants it beside them. */
static rung_status write_vocab(const convert_folder *f, const char *merges, rung_err *err) {
    char *text = NULL;
    size_t size, id = 0;
    FILE *o = open_memstream(&text, &size);
    if (!o) return no_memory(err);
    vocab_bytes(o, "", &id);
    vocab_bytes(o, "</w>", &id);
    for (const char *s = merges; *s;) {
        const char *end = strchr(s, '\n'), *stop = end ? end : s + strlen(s);
        const char *space = memchr(s, ' ', (size_t)(stop - s));
        const bool is_version = s == merges && *s == '#';
        if (space && !is_version)
            vocab_entry(o, s, (size_t)(space - s), space + 1, (size_t)(stop - space - 1), "", &id);
        s = end ? end + 1 : stop;
    }
    fprintf(o, ", \"<|startoftext|>\": %zu, \"<|endoftext|>\": %zu}\n", id, id + 1);
    rung_status st = fclose(o) == 0 ? RUNG_OK : no_memory(err);
    if (!st) st = write_text(f, "tokenizer", "vocab.json", text, size, err);
    free(text);
    return st;
}

static rung_status write_tokenizer(const convert_folder *f, rung_model *m, rung_err *err) {
    char *merges = NULL;
    size_t n;
    RUNG_TRY(rung_model_text(m, "tokenizer", "merges.txt", &merges, &n, err));
    rung_status st = write_text(f, "tokenizer", "merges.txt", merges, n, err);
    if (!st) st = write_vocab(f, merges, err);
    free(merges);
    return st;
}

static rung_status add_class(cJSON *index, const char *part, const char *library, const char *class_name,
                             rung_err *err) {
    cJSON *pair = cJSON_AddArrayToObject(index, part);
    const char *const words[2] = {library, class_name};
    for (int i = 0; pair && i < 2; i++) {
        cJSON *word = words[i] ? cJSON_CreateString(words[i]) : cJSON_CreateNull();
        if (!word || !cJSON_AddItemToArray(pair, word)) {
            cJSON_Delete(word);
            pair = NULL;
        }
    }
    return pair ? RUNG_OK : no_memory(err);
}

static rung_status write_ldm_part(const convert_folder *f, rung_model *m, cJSON *index, const char *part,
                                  const char *config_file, const char *library, rung_err *err) {
    const char *class_name;
    rung_config c;
    if (!rung_model_has(m, part, &class_name)) return add_class(index, part, NULL, NULL, err);
    RUNG_TRY(rung_model_config(m, part, &c, err));
    RUNG_TRY(write_json(f, part, config_file, c.root, err));
    if (strcmp(part, "tokenizer") == 0) RUNG_TRY(write_tokenizer(f, m, err));
    return add_class(index, part, library, class_name, err);
}

static rung_status write_ldm(const convert_folder *f, rung_model *m, rung_err *err) {
    static const char *const rows[][3] = {{"scheduler", "scheduler_config.json", "diffusers"},
                                          {"text_encoder", "config.json", "transformers"},
                                          {"tokenizer", "tokenizer_config.json", "transformers"},
                                          {"unet", "config.json", "diffusers"},
                                          {"vae", "config.json", "diffusers"}};
    cJSON *index = cJSON_CreateObject();
    rung_status st = RUNG_OK;
    if (!index || !cJSON_AddStringToObject(index, "_class_name", rung_model_pipeline(m)) ||
        !cJSON_AddBoolToObject(index, "requires_safety_checker", false))
        st = no_memory(err);
    if (!st) st = add_class(index, "feature_extractor", NULL, NULL, err);
    if (!st) st = add_class(index, "safety_checker", NULL, NULL, err);
    for (size_t i = 0; !st && i < sizeof rows / sizeof *rows; i++)
        st = write_ldm_part(f, m, index, rows[i][0], rows[i][1], rows[i][2], err);
    if (!st) st = write_json(f, "", "model_index.json", index, err);
    cJSON_Delete(index);
    return st;
}

rung_status convert_folder_texts(const convert_folder *f, rung_model *m, char **left_out, rung_err *err) {
    size_t size;
    *left_out = NULL;
    FILE *names = open_memstream(left_out, &size);
    if (!names) return no_memory(err);
    rung_status st = rung_model_is_ldm(m) ? write_ldm(f, m, err) : copy_model(f, m, names, err);
    if (fclose(names) != 0 && !st) st = no_memory(err);
    if (st) {
        free(*left_out);
        *left_out = NULL;
    }
    return st;
}
