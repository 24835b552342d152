/* kernels/base/hash.h - a 64-bit hash for telling files apart. Not for secrets, and not for foes. */
#ifndef RUNG_HASH_H
#define RUNG_HASH_H
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/** One round: every bit of h and v reaches every bit of the result, and the two cannot change places. Constants:
 *  splitmix64 (Steele et al. 2014). */
static inline uint64_t rung_hash_word(uint64_t h, uint64_t v) {
    h = (h * 3 ^ v) + 0x9e3779b97f4a7c15u;
    h = (h ^ h >> 30) * 0xbf58476d1ce4e5b9u;
    h = (h ^ h >> 27) * 0x94d049bb133111ebu;
    return h ^ h >> 31;
}

/** `bytes` at p on top of h; begin with any number. */
static inline uint64_t rung_hash(uint64_t h, const void *p, size_t bytes) {
    const unsigned char *b = (const unsigned char *)p;
    uint64_t v;
    for (; bytes >= sizeof v; b += sizeof v, bytes -= sizeof v) {
        memcpy(&v, b, sizeof v);
        h = rung_hash_word(h, v);
    }
    v = 0;
    memcpy(&v, b, bytes);
    return rung_hash_word(rung_hash_word(h, v), bytes);
}
#endif
