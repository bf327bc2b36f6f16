/* The endpoints in the cluster, on one thread: source, sink and echo behind one port.
 *
 * The first byte of a connection says which. A source waits for it: an endpoint that spoke first
 * would measure the races of its peers and not their speed. */
#define _GNU_SOURCE /* accept4 */
#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

struct connection {
    int fd;
    enum role role; /* 0 until the first byte has come */
    uint64_t offset;
};

static int listener, poller;
static size_t chunk;
static atomic_uint_fast64_t accepted, open_now, sunk, corrupt;
static uint8_t buffer[READ_SIZE];

struct endpoint_counts endpoint_counts(void) {
    return (struct endpoint_counts){accepted, open_now, sunk, corrupt};
}

static void hang_up(struct connection *c) {
    close(c->fd);
    free(c);
    open_now--;
}

static void accept_all(void) {
    for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
        struct connection *c = calloc(1, sizeof *c);
        c->fd = fd;
        open_now++;
        accepted++;
        epoll_ctl(poller, EPOLL_CTL_ADD, fd,
                  &(struct epoll_event){.events = EPOLLIN, .data.ptr = c});
    }
}

static void be_source(struct connection *c) {
    ssize_t n = send(c->fd, pattern_at(c->offset), chunk, MSG_NOSIGNAL);
    if (n > 0)
        c->offset += (uint64_t)n;
    else if (errno != EAGAIN)
        hang_up(c);
}

static void be_sink(struct connection *c, const uint8_t *data, size_t size) {
    if (!pattern_matches(c->offset, data, size))
        corrupt++;
    c->offset += size;
    sunk += size;
}

static void take_role(struct connection *c, uint8_t role) {
    c->role = role == IDLE ? ECHO : role;
    if (c->role == DOWNLOAD)
        epoll_ctl(poller, EPOLL_CTL_MOD, c->fd,
                  &(struct epoll_event){.events = EPOLLIN | EPOLLOUT, .data.ptr = c});
    else if (c->role != UPLOAD && c->role != ECHO)
        corrupt++;
}

static void serve(struct connection *c, uint32_t events) {
    if (!(events & ~(uint32_t)EPOLLOUT)) {
        be_source(c);
        return;
    }
    ssize_t n = recv(c->fd, buffer, sizeof buffer, 0);
    if (n <= 0) {
        if (n == 0 || errno != EAGAIN)
            hang_up(c);
        return;
    }
    const uint8_t *data = buffer;
    if (c->role == 0) {
        take_role(c, *data++);
        n--;
    }
    if (c->role == UPLOAD)
        be_sink(c, data, (size_t)n);
    else if (c->role == ECHO && send(c->fd, data, (size_t)n, MSG_NOSIGNAL) != n)
        corrupt++; /* never: one small echo is outstanding */
}

static void *serve_all(void *unused) {
    struct epoll_event events[256];
    for (;;) {
        int n = epoll_wait(poller, events, 256, -1);
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr == NULL)
                accept_all();
            else
                serve(events[i].data.ptr, events[i].events);
        }
    }
    return unused;
}

/* Listen on the loopback, at a free port for 0; the thread lives as long as the process. */
uint16_t endpoint_start(size_t chunk_size, uint16_t port) {
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    pthread_t thread;
    chunk = chunk_size;
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    poller = epoll_create1(EPOLL_CLOEXEC);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
    if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, 4096) ||
        getsockname(listener, (struct sockaddr *)&address, &size) ||
        epoll_ctl(poller, EPOLL_CTL_ADD, listener, &(struct epoll_event){.events = EPOLLIN}) ||
        pthread_create(&thread, NULL, serve_all, NULL)) {
        perror("load: endpoint on 127.0.0.1");
        exit(2);
    }
    return ntohs(address.sin_port);
}
