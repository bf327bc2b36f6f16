/* Three carriers that put the tunnel's bytes on the socket as they are.
 *
 * direct: a TCP connection to the endpoint, no tunnel. relay: a Unix socket that leads to the
 * endpoint and never says whether it did, so a dial is done when the endpoint has echoed a byte.
 * http-connect: what kube-apiserver sends, and its rule that the head of the 200 must come alone. */
#include "load.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

/* Nothing is queued: what the socket does not take, the frontend sends again. */
static void flush(struct tunnel *t) { (void)t; }
static bool unsent(const struct tunnel *t) { return t == NULL; }
static bool room(const struct tunnel *t) { return t != NULL; }

static size_t raw_send(struct tunnel *t, const uint8_t *data, size_t size) {
    ssize_t n = send(t->fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n >= 0)
        return (size_t)n;
    if (errno != EAGAIN)
        tunnel_failed(t, "write: %s", strerror(errno));
    return 0;
}

static void direct_start(struct tunnel *t, const char *address) {
    /* Closed by RST, so that dials do not use up the ports: each would linger in TIME_WAIT. */
    setsockopt(t->fd, SOL_SOCKET, SO_LINGER, &(struct linger){1, 0}, sizeof(struct linger));
    setsockopt(t->fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    (void)address;
    tunnel_opened(t);
}

static void connect_start(struct tunnel *t, const char *address) {
    char request[128];
    int n = snprintf(request, sizeof request, "CONNECT %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
                     address);
    t->head_size = 0;
    raw_send(t, (uint8_t *)request, (size_t)n);
}

static void read_head(struct tunnel *t, const uint8_t *data, size_t size) {
    if (t->head_size + size >= sizeof t->head) {
        tunnel_failed(t, "the head of the response is longer than %zu bytes", sizeof t->head);
        return;
    }
    memcpy(t->head + t->head_size, data, size);
    t->head_size += size;
    t->head[t->head_size] = 0;
    char *end = strstr(t->head, "\r\n\r\n");
    if (!end)
        return;
    if (strncmp(t->head, "HTTP/1.1 200 ", 13) != 0)
        tunnel_failed(t, "CONNECT answered: %.*s", (int)strcspn(t->head, "\r"), t->head);
    else if (end + 4 != t->head + t->head_size)
        tunnel_failed(t, "bytes of the tunnel came with the head of the response");
    else
        tunnel_opened(t);
}

static void raw_readable(struct tunnel *t) {
    static uint8_t buffer[READ_SIZE];
    ssize_t n = recv(t->fd, buffer, sizeof buffer, MSG_DONTWAIT);
    if (n > 0 && t->state == OPENING)
        read_head(t, buffer, (size_t)n);
    else if (n > 0)
        tunnel_data(t, buffer, (size_t)n);
    else if (n == 0)
        tunnel_failed(t, "closed by the other side %s",
                      t->state == OPENING ? "without an answer" : "in mid-tunnel");
    else if (errno != EAGAIN)
        tunnel_failed(t, "read: %s", strerror(errno));
}

static void relay_start(struct tunnel *t, const char *address) {
    (void)address;
    if (t->role != DIAL)
        tunnel_opened(t);
    else
        raw_send(t, (uint8_t[]){ECHO, *pattern_at(0)}, 2);
}

static void relay_readable(struct tunnel *t) {
    uint8_t byte;
    if (t->state != OPENING || recv(t->fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK) <= 0)
        raw_readable(t);
    else if (pattern_matches(0, &byte, 1))
        tunnel_opened(t);
    else
        tunnel_failed(t, "a wrong byte came first");
}

const struct carrier raw_carrier = {direct_start, raw_readable, flush,        unsent,
                                    room,         raw_send,     tunnel_closed};
const struct carrier relay_carrier = {relay_start, relay_readable, flush,        unsent,
                                      room,        raw_send,       tunnel_closed};
const struct carrier connect_carrier = {connect_start, raw_readable, flush,        unsent,
                                        room,          raw_send,     tunnel_closed};
