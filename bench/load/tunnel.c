/* One tunnel of a row: how it is opened, worked, checked and closed, whatever carries it. */
#include "frontend.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { CONNECT_LIMIT = 5 }; /* seconds */

static void fault(const char *format, va_list arguments) {
    struct report *r = frontend.report;
    if (r->errors++ == 0)
        vsnprintf(r->first_error, sizeof r->first_error, format, arguments);
}

void fault_if(bool wrong, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    if (wrong)
        fault(format, arguments);
    va_end(arguments);
}

void tunnel_abandon(struct tunnel *t) {
    frontend.opening -= t->state == OPENING;
    t->state = CLOSED;
    frontend.closed++;
    close(t->fd);
}

void tunnel_failed(struct tunnel *t, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fault(format, arguments);
    va_end(arguments);
    tunnel_abandon(t);
}

void tunnel_closed(struct tunnel *t) {
    tunnel_abandon(t);
    if (t->role == DIAL && frontend.measuring) {
        frontend.report->dials++;
        histogram_add(&frontend.report->dial_time, (uint64_t)((now() - t->began) * 1e9));
    }
}

static void watch(struct tunnel *t);

static bool can_upload(const struct tunnel *t) {
    return t->role == UPLOAD && t->state == OPEN && !frontend.stopping && frontend.carrier->room(t);
}

void tunnel_echo(struct tunnel *t) {
    t->began = now();
    size_t size = frontend.options->echo_size;
    size_t n = frontend.carrier->send(t, pattern_at(t->sent), size);
    t->sent += n;
    if (t->state == OPEN && n != size)
        tunnel_failed(t, "an echo of %zu bytes did not fit into an idle tunnel", size);
}

void tunnel_close(struct tunnel *t) {
    t->state = CLOSING;
    frontend.carrier->close(t);
    if (t->role == STALL && t->state != CLOSED)
        watch(t);
}

void tunnel_opened(struct tunnel *t) {
    frontend.opening--;
    t->state = OPEN;
    frontend.report->opened++;
    if (t->role == DIAL)
        tunnel_close(t);
    else if (frontend.carrier->send(
                 t, (uint8_t[]){(uint8_t)(t->role == STALL ? DOWNLOAD : t->role)}, 1) != 1)
        tunnel_failed(t, "a new tunnel took no byte");
    else if (t->role == ECHO || t->role == IDLE)
        tunnel_echo(t);
}

static void take_echo(struct tunnel *t) {
    if (t->received < t->sent)
        return;
    t->echoes++;
    if (frontend.measuring) {
        frontend.report->echoes++;
        histogram_add(&frontend.report->echo_time, (uint64_t)((now() - t->began) * 1e9));
    }
    if (t->role == ECHO && !frontend.stopping)
        tunnel_echo(t);
}

void tunnel_data(struct tunnel *t, const uint8_t *data, size_t size) {
    if (!pattern_matches(t->received, data, size)) {
        tunnel_failed(t, "wrong bytes after %llu good ones", (unsigned long long)t->received);
        return;
    }
    t->received += size;
    if (t->role != DOWNLOAD && t->role != STALL && t->received > t->sent)
        tunnel_failed(t, "more bytes came back than were sent");
    else if (t->role == ECHO || t->role == IDLE)
        take_echo(t);
}

/* A blocking connect: the kernel holds it while the server's backlog is full. */
static int connect_socket(void) {
    bool direct = frontend.carrier == &raw_carrier; /* the others have a Unix socket */
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    struct sockaddr_in remote = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (direct)
        remote.sin_port = htons((uint16_t)atoi(strchr(frontend.endpoint, ':') + 1));
    else
        strncpy(local.sun_path, frontend.options->uds, sizeof local.sun_path - 1);
    int fd = socket(direct ? AF_INET : AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &(struct timeval){CONNECT_LIMIT, 0},
               sizeof(struct timeval));
    int wrong = direct ? connect(fd, (struct sockaddr *)&remote, sizeof remote)
                       : connect(fd, (struct sockaddr *)&local, sizeof local);
    if (wrong) {
        close(fd);
        return -1;
    }
    return fd;
}

static void watch(struct tunnel *t) {
    bool wants_write = frontend.carrier->unsent(t) || can_upload(t);
    uint32_t interest = EPOLLIN | (wants_write ? (uint32_t)EPOLLOUT : 0);
    if (t->role == STALL && t->state == OPEN)
        interest &= ~(uint32_t)EPOLLIN;
    if (interest != t->interest)
        epoll_ctl(frontend.poller, EPOLL_CTL_MOD, t->fd,
                  &(struct epoll_event){.events = interest, .data.ptr = t});
    t->interest = interest;
}

void tunnel_open(struct tunnel *t) {
    *t = (struct tunnel){.role = t->role, .grpc = t->grpc, .state = OPENING, .began = now()};
    frontend.closed--;
    frontend.opening++;
    t->fd = connect_socket();
    if (t->fd < 0) {
        tunnel_failed(t, "connect: %s", strerror(errno));
        return;
    }
    t->interest = EPOLLIN;
    epoll_ctl(frontend.poller, EPOLL_CTL_ADD, t->fd,
              &(struct epoll_event){.events = EPOLLIN, .data.ptr = t});
    frontend.carrier->start(t, frontend.endpoint);
    if (t->state != CLOSED)
        watch(t);
}

void tunnel_work(struct tunnel *t, uint32_t events) {
    if (events & ~(uint32_t)EPOLLOUT)
        frontend.carrier->readable(t);
    if (t->state != CLOSED && (events & EPOLLOUT))
        frontend.carrier->flush(t);
    if (can_upload(t))
        t->sent += frontend.carrier->send(t, pattern_at(t->sent), frontend.options->chunk);
    if (t->state != CLOSED)
        watch(t);
}
