/* The carrier kube-apiserver uses in gRPC mode: one HTTP/2 connection and one call per tunnel. */
#include "http2.h"
#include "load.h"
#include "packet.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { MESSAGE_MAX = 4 << 20 }; /* of a packet: the limit of grpc-go's clients */

struct grpc {
    struct http2 http2;
    struct tunnel *tunnel;
    char address[64];
    uint64_t random, connect_id;
    uint8_t *message;   /* a packet that spans DATA frames, with its 5-byte prefix */
    size_t have, capacity;
    bool finished;      /* CLOSE_RSP came for our CLOSE_REQ */
};

static bool over(const struct grpc *g) { return g->finished || g->tunnel->state == CLOSED; }

static void fail(struct grpc *g, const char *what, const uint8_t *detail, size_t size) {
    if (!over(g))
        tunnel_failed(g->tunnel, "%s%.*s", what, (int)size, detail ? (const char *)detail : "");
}

/* Write what waits; end the tunnel if the packets or HTTP/2 say so. */
static void settle(struct grpc *g) {
    struct http2 *h = &g->http2;
    if (g->tunnel->state == CLOSED)
        return;
    if (g->finished)
        http2_goaway(h);
    else if (h->ended && !h->fault)
        h->fault = "the server ended the stream";
    if (!h->fault)
        http2_flush(h, g->tunnel->fd);
    if (g->finished)
        tunnel_closed(g->tunnel);
    else if (h->fault)
        fail(g, h->fault, NULL, 0);
}

static void grpc_start(struct tunnel *t, const char *address) {
    struct grpc *g = t->grpc;
    if (!g)
        g = t->grpc = calloc(1, sizeof *g);
    g->tunnel = t;
    g->connect_id = g->have = 0;
    g->finished = false;
    snprintf(g->address, sizeof g->address, "%s", address);
    http2_open(&g->http2, g);
    settle(g);
}

/* grpc-go, too, waits for the server's SETTINGS before its first call. */
void http2_on_settled(void *owner) {
    struct grpc *g = owner;
    uint8_t message[128];
    if (getrandom(&g->random, sizeof g->random, 0) < 0)
        g->random = (uint64_t)(uintptr_t)g;
    g->random >>= 1; /* 63 bits, as upstream */
    http2_request(&g->http2, "/ProxyService/Proxy");
    http2_body(&g->http2, message, packet_write_dial(message, g->address, g->random));
}

static void take_dial_response(struct grpc *g, const struct packet *p) {
    if (p->error_size)
        fail(g, "dial: ", p->error, p->error_size);
    else if (p->random != g->random || p->connect_id == 0 || g->connect_id)
        fail(g, "DIAL_RSP that answers no dial", NULL, 0);
    else {
        g->connect_id = p->connect_id;
        tunnel_opened(g->tunnel);
    }
}

static void take_packet(struct grpc *g, const uint8_t *data, size_t size) {
    struct packet p;
    if (!packet_read(&p, data, size)) {
        fail(g, "a packet that does not decode", NULL, 0);
    } else if (p.type == DIAL_RSP) {
        take_dial_response(g, &p);
    } else if (p.type == DATA_PACKET && (p.connect_id != g->connect_id || p.data_size == 0)) {
        fail(g, "DATA that is empty or of another tunnel", NULL, 0);
    } else if (p.type == DATA_PACKET) {
        tunnel_data(g->tunnel, p.data, p.data_size);
    } else if (p.type == CLOSE_RSP && g->tunnel->state == CLOSING && p.error_size == 0) {
        g->finished = true;
    } else if (p.type == CLOSE_RSP) {
        fail(g, "CLOSE_RSP in mid-tunnel ", p.error, p.error_size);
    } else if (p.type == DIAL_CLS) {
        fail(g, "DIAL_CLS", NULL, 0);
    }
}

static size_t message_size(const uint8_t *prefix) {
    return 5 + ((size_t)prefix[1] << 24 | (size_t)prefix[2] << 16 | (size_t)prefix[3] << 8 |
                (size_t)prefix[4]);
}

/* Gather a message that does not lie whole in one frame; returns how many bytes were taken. */
static size_t gather(struct grpc *g, const uint8_t *data, size_t size) {
    size_t wanted = g->have < 5 ? 5 : message_size(g->message);
    if (wanted > g->capacity) {
        g->capacity = wanted + 4096;
        g->message = realloc(g->message, g->capacity);
    }
    size_t n = wanted - g->have < size ? wanted - g->have : size;
    memcpy(g->message + g->have, data, n);
    g->have += n;
    if (g->have >= 5 && message_size(g->message) > MESSAGE_MAX)
        fail(g, "a message of more than 4 MiB", NULL, 0);
    else if (g->have >= 5 && g->have == message_size(g->message)) {
        g->have = 0;
        take_packet(g, g->message + 5, message_size(g->message) - 5);
    }
    return n;
}

void http2_on_body(void *owner, const uint8_t *data, size_t size) {
    struct grpc *g = owner;
    while (size > 0 && !over(g)) {
        size_t n;
        if (g->have == 0 && size >= 5 && message_size(data) <= size) {
            n = message_size(data);
            take_packet(g, data + 5, n - 5);
        } else {
            n = gather(g, data, size);
        }
        data += n;
        size -= n;
    }
}

static void grpc_readable(struct tunnel *t) {
    http2_readable(&t->grpc->http2, t->fd);
    settle(t->grpc);
}

static void grpc_flush(struct tunnel *t) { settle(t->grpc); }

static bool grpc_unsent(const struct tunnel *t) {
    return t->grpc->http2.out_start < t->grpc->http2.out_end;
}

static bool grpc_room(const struct tunnel *t) {
    return http2_room(&t->grpc->http2, PACKET_HEAD_MAX + CHUNK_MAX);
}

/* As konnectivity-client: one write is one DATA packet. */
static size_t grpc_send(struct tunnel *t, const uint8_t *data, size_t size) {
    struct grpc *g = t->grpc;
    uint8_t head[PACKET_HEAD_MAX];
    if (!grpc_room(t))
        return 0;
    http2_body(&g->http2, head, packet_write_data_head(head, g->connect_id, size));
    http2_body(&g->http2, data, size);
    http2_flush(&g->http2, t->fd);
    return size;
}

static void grpc_close(struct tunnel *t) {
    struct grpc *g = t->grpc;
    uint8_t message[PACKET_HEAD_MAX];
    http2_body(&g->http2, message, packet_write_close(message, g->connect_id));
    http2_flush(&g->http2, t->fd);
}

const struct carrier grpc_carrier = {grpc_start,  grpc_readable, grpc_flush, grpc_unsent,
                                     grpc_room,   grpc_send,     grpc_close};
