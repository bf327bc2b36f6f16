/* Durations in buckets of 1/128 octave: fixed memory, any number of samples, within 1 %. */
#include "load.h"

enum { SUB_BITS = 7, SUBS = 1 << SUB_BITS, BUCKETS = 4608 }; /* up to 2^42 ns, an hour */

static unsigned bucket_of(uint64_t ns) {
    if (ns < SUBS)
        return (unsigned)ns;
    unsigned octave = 63 - (unsigned)__builtin_clzll(ns);
    unsigned bucket = (octave - SUB_BITS + 1) * SUBS + ((ns >> (octave - SUB_BITS)) & (SUBS - 1));
    return bucket < BUCKETS ? bucket : BUCKETS - 1;
}

static double middle_of(unsigned bucket) {
    if (bucket < SUBS)
        return bucket;
    unsigned shift = bucket / SUBS - 1;
    return ((double)(SUBS + bucket % SUBS) + 0.5) * (double)(1ull << shift);
}

void histogram_add(struct histogram *h, uint64_t nanoseconds) {
    h->count++;
    h->buckets[bucket_of(nanoseconds)]++;
}

double histogram_percentile(const struct histogram *h, double fraction) {
    uint64_t wanted = (uint64_t)(fraction * (double)h->count), seen = 0;
    for (unsigned i = 0; i < BUCKETS; i++) {
        seen += h->buckets[i];
        if (seen > wanted)
            return middle_of(i) / 1000;
    }
    return 0;
}
