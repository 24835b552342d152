/* unet/config_keys.h - the keys of a network's config: which are read, which must stand at the one value that is built.
 * A key that nobody knows is refused unless it is null or false: what it asks for would silently be left out. */
#ifndef RUNG_CONFIG_KEYS_H
#define RUNG_CONFIG_KEYS_H
#include "assets/json.h"

typedef enum {
    KEY_READ,       /* read by the network, or without effect on what it computes */
    KEY_ONLY_NULL,  /* anything but null is refused */
    KEY_ONLY_FALSE, /* anything but false and null is refused */
} key_rule;

typedef struct {
    const char *key;
    key_rule rule;
} config_key;

/** Walks the whole config; names beginning with an underscore are diffusers' own notes. Refuses by name. */
void config_check_keys(rung_config *c, const config_key *keys, size_t n);

/** Is the key there at all, null or not? */
bool config_present(const rung_config *c, const char *key);

/** "a", "b" or NULL; case as it stands. Refuses a string that is not in `words` (n of them) by key and value; returns
 *  the index, `def` when the key is missing or null. */
size_t config_word(rung_config *c, const char *key, const char *const *words, size_t n, size_t def);

/** A list of exactly n booleans, or one for all. Missing: all false. */
void config_bools(rung_config *c, const char *key, bool *out, size_t n);
#endif
