/* HTTP/2 for one call: frames both ways, the peer's windows honoured, ours returned promptly.
 *
 * Response headers are not decoded: the answer that counts comes in packets. */
#include "http2.h"
#include "load.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

enum { DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE };
enum { END_STREAM = 1, ACK = 1, END_HEADERS = 4, PADDED = 8 };
enum { SETTING_INITIAL_WINDOW_SIZE = 4, SETTING_MAX_FRAME_SIZE = 5 };
static const uint8_t probe[8] = "bdp-ping";

static uint32_t get32(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void put32(uint8_t *p, uint32_t v) {
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (24 - 8 * i));
}

/* ---- writing ---- */

static void put(struct http2 *h, const void *data, size_t size) {
    if (h->out_start == h->out_end)
        h->out_start = h->out_end = 0;
    if (h->out_end + size > OUT_CAPACITY) {
        memmove(h->out, h->out + h->out_start, h->out_end - h->out_start);
        h->out_end -= h->out_start;
        h->out_start = 0;
    }
    if (h->out_end + size > OUT_CAPACITY) {
        h->fault = "the peer asks for answers faster than it reads them";
        return;
    }
    memcpy(h->out + h->out_end, data, size);
    h->out_end += size;
}

static void put_frame(struct http2 *h, int type, int flags, uint32_t stream, const void *payload,
                      size_t size) {
    uint8_t head[FRAME_HEAD];
    put32(head, (uint32_t)size << 8 | (uint32_t)type);
    head[4] = (uint8_t)flags;
    put32(head + 5, stream);
    put(h, head, sizeof head);
    put(h, payload, size);
}

static void put_window_update(struct http2 *h, uint32_t stream, uint32_t increment) {
    uint8_t payload[4];
    put32(payload, increment);
    if (increment)
        put_frame(h, WINDOW_UPDATE, 0, stream, payload, sizeof payload);
}

/* Cut the body into DATA frames as far as the peer's windows and the output's bound allow. */
static void pump(struct http2 *h) {
    while (h->body_start < h->body_end && h->out_end - h->out_start < OUT_FULL) {
        int64_t n = (int64_t)(h->body_end - h->body_start);
        if (n > h->peer_frame)
            n = h->peer_frame;
        if (n > h->send_stream)
            n = h->send_stream;
        if (n > h->send_connection)
            n = h->send_connection;
        if (n <= 0)
            return;
        put_frame(h, DATA, 0, 1, h->body + h->body_start, (size_t)n);
        h->send_stream -= n;
        h->send_connection -= n;
        h->body_start += (size_t)n;
    }
}

void http2_open(struct http2 *h, void *owner) {
    memset(h, 0, offsetof(struct http2, in));
    h->owner = owner;
    h->send_connection = h->send_stream = h->peer_window = WINDOW_FIRST;
    h->peer_frame = FRAME_MAX;
    window_reset(&h->window);
    put(h, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
    put_frame(h, SETTINGS, 0, 0, "", 0);
}

/* One header by static-table index (RFC 7541, appendix A) with its value as plain text. */
static size_t put_header(uint8_t *block, unsigned index, const char *value) {
    size_t n = 0, size = strlen(value);
    block[n++] = index < 15 ? (uint8_t)(0x10 | index) : 0x1f; /* never indexed, section 6.2.3 */
    if (index >= 15)
        block[n++] = (uint8_t)(index - 15);
    block[n++] = (uint8_t)size; /* < 127 */
    memcpy(block + n, value, size);
    return n + size;
}

void http2_request(struct http2 *h, const char *path) {
    uint8_t block[256];
    size_t n = 0;
    block[n++] = 0x83; /* :method POST */
    block[n++] = 0x86; /* :scheme http */
    n += put_header(block + n, 4, path);
    n += put_header(block + n, 1, "localhost"); /* :authority */
    n += put_header(block + n, 31, "application/grpc");
    n += put_header(block + n, 58, "konnectivity-bench"); /* user-agent */
    memcpy(block + n, "\x10\x02te\x08trailers", 13);
    n += 13;
    put_frame(h, HEADERS, END_HEADERS, 1, block, n);
}

bool http2_room(const struct http2 *h, size_t size) {
    return h->body_start == h->body_end && h->out_end - h->out_start < OUT_FULL &&
           size <= BODY_CAPACITY;
}

void http2_body(struct http2 *h, const uint8_t *data, size_t size) {
    if (h->body_start == h->body_end)
        h->body_start = h->body_end = 0;
    memcpy(h->body + h->body_end, data, size);
    h->body_end += size;
}

bool http2_flush(struct http2 *h, int fd) {
    pump(h);
    while (h->out_start < h->out_end && !h->fault) {
        ssize_t n = send(fd, h->out + h->out_start, h->out_end - h->out_start,
                         MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN)
            return false;
        if (n < 0)
            h->fault = "write: connection closed by the server";
        else
            h->out_start += (size_t)n;
        pump(h);
    }
    return true;
}

void http2_goaway(struct http2 *h) { put_frame(h, GOAWAY, 0, 0, "\0\0\0\0\0\0\0", 8); }

/* ---- reading ---- */

static void take_settings(struct http2 *h, int flags, const uint8_t *p, size_t size) {
    if (flags & ACK)
        return;
    for (; size >= 6; p += 6, size -= 6) {
        uint32_t value = get32(p + 2);
        if (p[1] == SETTING_INITIAL_WINDOW_SIZE) {
            h->send_stream += (int64_t)value - h->peer_window;
            h->peer_window = value;
        } else if (p[1] == SETTING_MAX_FRAME_SIZE) {
            h->peer_frame = value < FRAME_MAX ? value : FRAME_MAX; /* as grpc-go, never larger */
        }
    }
    put_frame(h, SETTINGS, ACK, 0, "", 0);
    if (!h->settled) {
        h->settled = true;
        http2_on_settled(h->owner);
    }
}

static void take_ping(struct http2 *h, int flags, const uint8_t *p, size_t size) {
    if (size != 8) {
        h->fault = "PING without 8 bytes";
    } else if (!(flags & ACK)) {
        put_frame(h, PING, ACK, 0, p, size);
    } else if (h->window.pinging && memcmp(p, probe, 8) == 0) {
        uint32_t before = h->window.limit, limit = window_pong(&h->window, now());
        if (!limit)
            return;
        uint8_t setting[6] = {0, SETTING_INITIAL_WINDOW_SIZE};
        put32(setting + 2, limit);
        put_window_update(h, 0, limit > before ? limit - before : 0);
        put_frame(h, SETTINGS, 0, 0, setting, sizeof setting);
    }
}

/* Credit goes back once a quarter of the window is owed, and before each PING. */
static void give_credit(struct http2 *h, uint32_t size) {
    struct window *w = &h->window;
    w->unacked_connection += size;
    w->unacked_stream += size;
    bool ping = window_sample(w, size, now());
    if (ping || w->unacked_connection >= w->limit / 4) {
        put_window_update(h, 0, w->unacked_connection);
        w->unacked_connection = 0;
    }
    if (w->unacked_stream >= w->limit / 4) {
        put_window_update(h, 1, w->unacked_stream);
        w->unacked_stream = 0;
    }
    if (ping)
        put_frame(h, PING, 0, 0, probe, sizeof probe);
}

static void take_data(struct http2 *h, int flags, const uint8_t *p, size_t size) {
    if (size > 0)
        give_credit(h, (uint32_t)size);
    if (flags & PADDED) {
        if (size == 0 || (size_t)p[0] + 1 > size) {
            h->fault = "DATA with more padding than payload";
            return;
        }
        size -= (size_t)p[0] + 1;
        p++;
    }
    http2_on_body(h->owner, p, size);
}

static void take_frame(struct http2 *h, int type, int flags, uint32_t stream, const uint8_t *p,
                       size_t size) {
    if (type == DATA && stream == 1) {
        take_data(h, flags, p, size);
    } else if (type == SETTINGS) {
        take_settings(h, flags, p, size);
    } else if (type == PING) {
        take_ping(h, flags, p, size);
    } else if (type == WINDOW_UPDATE && size == 4) {
        *(stream ? &h->send_stream : &h->send_connection) += get32(p) & 0x7fffffff;
    } else if (type == RST_STREAM) {
        h->fault = "RST_STREAM from the server";
    } else if (type == GOAWAY) {
        h->fault = "GOAWAY from the server";
    }
    if ((type == DATA || type == HEADERS) && (flags & END_STREAM))
        h->ended = true;
}

void http2_readable(struct http2 *h, int fd) {
    ssize_t n = recv(fd, h->in + h->in_size, IN_CAPACITY - h->in_size, MSG_DONTWAIT);
    if (n <= 0) {
        if (n == 0 || errno != EAGAIN)
            h->fault = "connection closed by the server";
        return;
    }
    h->in_size += (size_t)n;
    size_t at = 0;
    while (h->in_size - at >= FRAME_HEAD && !h->fault) {
        const uint8_t *p = h->in + at;
        size_t size = get32(p) >> 8;
        if (size > FRAME_MAX)
            h->fault = "a frame of more than 16384 bytes";
        else if (h->in_size - at < FRAME_HEAD + size)
            break;
        else
            take_frame(h, p[3], p[4], get32(p + 5) & 0x7fffffff, p + FRAME_HEAD, size);
        at += FRAME_HEAD + size;
    }
    if (!h->fault) {
        memmove(h->in, h->in + at, h->in_size - at);
        h->in_size -= at;
    }
}
