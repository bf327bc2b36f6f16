/* One HTTP/2 connection of a client with one stream (RFC 9113): http2.c, window.c. */
#ifndef HTTP2_H
#define HTTP2_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    FRAME_HEAD = 9,
    FRAME_MAX = 16384,        /* ours and every peer's, RFC 9113 section 6.5.2 */
    WINDOW_FIRST = 65535,     /* section 6.9.2 */
    IN_CAPACITY = 65536,
    OUT_CAPACITY = 196608,
    OUT_FULL = 65536,         /* no DATA is added beyond: grpc-go's write quota of a stream */
    BODY_CAPACITY = 65536 + 64,
};

/* The receive window as grpc-go's clients grow it: see window.c. */
struct window {
    uint32_t limit;           /* bytes, of the stream and of the connection */
    uint32_t unacked_stream, unacked_connection;
    bool pinging;
    uint64_t sample, samples;
    double pinged_at, round_trip, best_rate;
};
void window_reset(struct window *);
bool window_sample(struct window *, uint32_t size, double now); /* true: send a PING */
uint32_t window_pong(struct window *, double now);              /* the new limit, or 0 */

struct http2 {
    void *owner;
    const char *fault;        /* the peer broke the protocol, or hung up */
    bool settled;             /* the peer's SETTINGS have come */
    bool ended;               /* the peer ended the stream */
    int64_t send_connection, send_stream; /* the peer's windows, bytes */
    uint32_t peer_window, peer_frame;
    struct window window;
    size_t in_size, out_start, out_end, body_start, body_end;
    uint8_t in[IN_CAPACITY], out[OUT_CAPACITY], body[BODY_CAPACITY];
};

void http2_open(struct http2 *, void *owner);             /* preface and SETTINGS */
void http2_request(struct http2 *, const char *path);     /* HEADERS of a gRPC call, stream 1 */
bool http2_room(const struct http2 *, size_t size);
void http2_body(struct http2 *, const uint8_t *, size_t); /* goes out with http2_flush() */
bool http2_flush(struct http2 *, int fd);                 /* true when nothing waits */
void http2_readable(struct http2 *, int fd);              /* one read, all its frames */
void http2_goaway(struct http2 *);

/* What the owner must offer. */
void http2_on_settled(void *owner);
void http2_on_body(void *owner, const uint8_t *, size_t);

#endif
