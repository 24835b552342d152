#include "unet/config_keys.h"

#include <string.h>

bool config_present(const rung_config *c, const char *key) {
    return cJSON_GetObjectItemCaseSensitive(c->root, key) != NULL;
}

static const config_key *find(const config_key *keys, size_t n, const char *name) {
    for (size_t i = 0; i < n; i++)
        if (strcmp(keys[i].key, name) == 0) return &keys[i];
    return NULL;
}

void config_check_keys(rung_config *c, const config_key *keys, size_t n) {
    const cJSON *item;
    cJSON_ArrayForEach(item, c->root) {
        if (!item->string || item->string[0] == '_' || cJSON_IsNull(item)) continue;
        const config_key *k = find(keys, n, item->string);
        if (k && k->rule == KEY_READ) continue;
        if (cJSON_IsFalse(item) && (!k || k->rule == KEY_ONLY_FALSE)) continue;
        if (k)
            cfg_refuse(c, "\"%.60s\" is set, which is not supported; only %s is", item->string,
                       k->rule == KEY_ONLY_NULL ? "null" : "false");
        else
            cfg_refuse(c, "\"%.60s\" is not a key that this network knows", item->string);
    }
}

size_t config_word(rung_config *c, const char *key, const char *const *words, size_t n, size_t def) {
    const char *s = cfg_string(c, key, NULL);
    if (!s) return def;
    for (size_t i = 0; i < n; i++)
        if (strcmp(words[i], s) == 0) return i;
    cfg_refuse(c, "\"%s\": \"%.60s\" is not supported, \"%s\" is", key, s, words[def < n ? def : 0]);
    return def;
}

void config_bools(rung_config *c, const char *key, bool *out, size_t n) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(c->root, key);
    for (size_t i = 0; i < n; i++) out[i] = false;
    if (!item || cJSON_IsNull(item)) return;
    if (cJSON_IsBool(item)) {
        for (size_t i = 0; i < n; i++) out[i] = cJSON_IsTrue(item);
        return;
    }
    size_t count = 0;
    const cJSON *entry;
    cJSON_ArrayForEach(entry, item) {
        if (!cJSON_IsBool(entry)) break;
        if (count < n) out[count] = cJSON_IsTrue(entry);
        count++;
    }
    if (!cJSON_IsArray(item) || entry || count != n)
        cfg_refuse(c, "\"%s\" is neither true or false nor a list of %zu of them", key, n);
}
