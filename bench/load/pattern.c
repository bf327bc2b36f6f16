/* The byte stream that every tunnel carries: a random block of prime length, repeated.
 *
 * No chunk size divides the period, so a piece that is lost, doubled or swapped is seen. */
#include "load.h"

#include <string.h>

enum { PERIOD = 65521 };
static uint8_t block[PERIOD + CHUNK_MAX];

void pattern_init(void) {
    uint64_t x = 88172645463325252u; /* xorshift64, Marsaglia 2003 */
    for (size_t i = 0; i < PERIOD; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        block[i] = (uint8_t)(x >> 32);
    }
    for (size_t i = PERIOD; i < sizeof block; i++)
        block[i] = block[i - PERIOD];
}

const uint8_t *pattern_at(uint64_t offset) { return block + offset % PERIOD; }

bool pattern_matches(uint64_t offset, const uint8_t *data, size_t size) {
    while (size > 0) {
        size_t n = size < CHUNK_MAX ? size : CHUNK_MAX;
        if (memcmp(pattern_at(offset), data, n) != 0)
            return false;
        offset += n;
        data += n;
        size -= n;
    }
    return true;
}
