/* How large a receive window kube-apiserver's client announces: the estimate of grpc-go.
 *
 * It begins with 65535 bytes. A PING goes out with the first DATA after each answered PING; the
 * bytes that come until the answer are the sample. When a sample fills two thirds of the window and
 * no faster rate was seen, the window becomes twice the sample, at most 16 MiB. On loopback it
 * ends between some hundred KiB and 16 MiB. The PINGs cost the server work in every small exchange
 * too, so a generator without them would flatter it.
 *
 * Source: grpc-go, internal/transport/bdp_estimator.go. */
#include "http2.h"

enum { LIMIT_MAX = 16 << 20 };

void window_reset(struct window *w) { *w = (struct window){.limit = WINDOW_FIRST}; }

bool window_sample(struct window *w, uint32_t size, double now) {
    if (w->limit == LIMIT_MAX)
        return false;
    if (w->pinging) {
        w->sample += size;
        return false;
    }
    w->pinging = true;
    w->sample = size;
    w->samples++;
    w->pinged_at = now;
    return true;
}

uint32_t window_pong(struct window *w, double now) {
    double weight = w->samples < 10 ? 1.0 / (double)w->samples : 0.9;
    w->round_trip += (now - w->pinged_at - w->round_trip) * weight;
    w->pinging = false;
    double rate = (double)w->sample / (w->round_trip * 1.5);
    if (rate < w->best_rate)
        return 0;
    w->best_rate = rate;
    if ((double)w->sample < 0.66 * w->limit)
        return 0;
    uint64_t wanted = 2 * w->sample;
    w->limit = wanted < LIMIT_MAX ? (uint32_t)wanted : LIMIT_MAX;
    return w->limit;
}
