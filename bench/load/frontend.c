/* The frontend: opens the tunnels of one row, works them, measures, closes them, and checks all.
 *
 * One epoll loop on one thread. Each step has a limit in time; what it leaves undone is an error. */
#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { OPENING_MAX = 32, OPEN_LIMIT = 60, SETTLE_LIMIT = 5, CLOSE_LIMIT = 10 };

static const struct options *options;
static const struct carrier *carrier;
static struct report *report;
static struct tunnel *tunnels;
static unsigned tunnel_count, opening, closed;
static char endpoint[32];
static int poller;
static bool measuring, stopping, released; /* released: idle tunnels may echo once more */

double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void fault(const char *format, va_list arguments) {
    if (report->errors++ == 0)
        vsnprintf(report->first_error, sizeof report->first_error, format, arguments);
}

static void fault_if(bool wrong, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    if (wrong)
        fault(format, arguments);
    va_end(arguments);
}

/* ---- one tunnel ---- */

static void end(struct tunnel *t) {
    opening -= t->state == OPENING;
    t->state = CLOSED;
    closed++;
    close(t->fd);
}

void tunnel_failed(struct tunnel *t, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fault(format, arguments);
    va_end(arguments);
    end(t);
}

void tunnel_closed(struct tunnel *t) {
    end(t);
    if (t->role == DIAL && measuring) {
        report->dials++;
        histogram_add(&report->dial_time, (uint64_t)((now() - t->began) * 1e9));
    }
}

static bool is_bulk(const struct tunnel *t) { return t->role == DOWNLOAD || t->role == UPLOAD; }

static void send_echo(struct tunnel *t) {
    t->began = now();
    size_t n = carrier->send(t, pattern_at(t->sent), options->echo_size);
    t->sent += n;
    if (t->state == OPEN && n != options->echo_size)
        tunnel_failed(t, "an echo of %zu bytes did not fit into an idle tunnel", options->echo_size);
}

static void send_chunk(struct tunnel *t) {
    t->sent += carrier->send(t, pattern_at(t->sent), options->chunk);
}

static void close_tunnel(struct tunnel *t) {
    t->state = CLOSING;
    carrier->close(t);
}

void tunnel_opened(struct tunnel *t) {
    opening--;
    t->state = OPEN;
    report->opened++;
    if (t->role == DIAL)
        close_tunnel(t);
    else if (carrier->send(t, (uint8_t[]){(uint8_t)t->role}, 1) != 1)
        tunnel_failed(t, "a new tunnel took no byte");
    else if (t->role == ECHO || t->role == IDLE)
        send_echo(t);
}

static void take_echo(struct tunnel *t) {
    if (t->received < t->sent)
        return;
    t->echoes++;
    if (measuring) {
        report->echoes++;
        histogram_add(&report->echo_time, (uint64_t)((now() - t->began) * 1e9));
    }
    if (t->role == ECHO && !stopping)
        send_echo(t);
}

void tunnel_data(struct tunnel *t, const uint8_t *data, size_t size) {
    if (!pattern_matches(t->received, data, size)) {
        tunnel_failed(t, "wrong bytes after %llu good ones", (unsigned long long)t->received);
        return;
    }
    t->received += size;
    if (t->role != DOWNLOAD && t->received > t->sent)
        tunnel_failed(t, "more bytes came back than were sent");
    else if (!is_bulk(t))
        take_echo(t);
}

/* A blocking connect: the kernel holds it while the server's backlog is full. */
static int connect_socket(void) {
    bool direct = carrier == &raw_carrier;
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    struct sockaddr_in remote = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (direct)
        remote.sin_port = htons((uint16_t)atoi(strchr(endpoint, ':') + 1));
    else
        strncpy(local.sun_path, options->uds, sizeof local.sun_path - 1);
    int fd = socket(direct ? AF_INET : AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &(struct timeval){SETTLE_LIMIT, 0},
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
    bool wants_write = carrier->unsent(t) || (t->role == UPLOAD && t->state == OPEN && !stopping &&
                                              carrier->room(t));
    uint32_t interest = EPOLLIN | (wants_write ? (uint32_t)EPOLLOUT : 0);
    if (interest != t->interest)
        epoll_ctl(poller, EPOLL_CTL_MOD, t->fd,
                  &(struct epoll_event){.events = interest, .data.ptr = t});
    t->interest = interest;
}

static void open_tunnel(struct tunnel *t) {
    *t = (struct tunnel){.role = t->role, .grpc = t->grpc, .state = OPENING, .began = now()};
    closed--;
    opening++;
    t->fd = connect_socket();
    if (t->fd < 0) {
        tunnel_failed(t, "connect: %s", strerror(errno));
        return;
    }
    t->interest = EPOLLIN;
    epoll_ctl(poller, EPOLL_CTL_ADD, t->fd,
              &(struct epoll_event){.events = EPOLLIN, .data.ptr = t});
    carrier->start(t, endpoint);
    if (t->state != CLOSED)
        watch(t);
}

/* ---- all of them ---- */

static void work(struct tunnel *t, uint32_t events) {
    if (events & ~(uint32_t)EPOLLOUT)
        carrier->readable(t);
    if (t->state != CLOSED && (events & EPOLLOUT))
        carrier->flush(t);
    if (t->state == OPEN && t->role == UPLOAD && !stopping && carrier->room(t))
        send_chunk(t);
    if (t->state != CLOSED)
        watch(t);
}

static void work_all(int milliseconds) {
    struct epoll_event events[256];
    int n = epoll_wait(poller, events, 256, milliseconds);
    for (int i = 0; i < n; i++) {
        if (events[i].data.ptr == NULL) { /* standard input ended */
            epoll_ctl(poller, EPOLL_CTL_DEL, STDIN_FILENO, NULL);
            released = true;
        } else {
            work(events[i].data.ptr, events[i].events);
        }
    }
}

static bool run_until(bool (*done)(void), double limit) {
    for (double end_at = now() + limit; !done(); work_all(10))
        if (now() >= end_at)
            return false;
    return true;
}

static void redial(void) {
    for (unsigned i = 0; i < tunnel_count; i++)
        if (tunnels[i].role == DIAL && tunnels[i].state == CLOSED)
            open_tunnel(&tunnels[i]);
}

static void run_for(double seconds) {
    for (double end_at = now() + seconds; now() < end_at;) {
        if (options->dialers)
            redial();
        work_all(options->dialers && closed ? 0 : 1);
    }
}

static bool all_have(unsigned echoes) {
    for (unsigned i = 0; i < tunnel_count; i++)
        if (tunnels[i].role == IDLE && tunnels[i].state == OPEN && tunnels[i].echoes < echoes)
            return false;
    return true;
}

static bool all_open(void) {
    static unsigned next;
    for (; next < tunnel_count && opening < OPENING_MAX; next++)
        if (tunnels[next].role != DIAL)
            open_tunnel(&tunnels[next]);
    return next == tunnel_count && opening == 0 && all_have(1);
}

static bool is_released(void) { return released; }
static bool all_echoed_again(void) { return all_have(2); }
static bool all_closed(void) { return closed == tunnel_count; }

static bool endpoint_empty(void) { /* and has seen them all: the last may still be on its way */
    struct endpoint_counts counts = endpoint_counts();
    return counts.accepted >= report->opened && counts.open == 0;
}

static bool all_settled(void) {
    for (unsigned i = 0; i < tunnel_count; i++) {
        const struct tunnel *t = &tunnels[i];
        if ((t->role == DIAL && t->state != CLOSED) ||
            (t->role == ECHO && t->state == OPEN && t->received < t->sent))
            return false;
    }
    return true;
}

/* ---- one row ---- */

static void add(enum role role, unsigned count) {
    while (count-- > 0)
        tunnels[tunnel_count++].role = role;
}

static uint64_t downloaded(void) {
    uint64_t sum = 0;
    for (unsigned i = 0; i < tunnel_count; i++)
        if (tunnels[i].role == DOWNLOAD)
            sum += tunnels[i].received;
    return sum;
}

static void measure(void) {
    run_for(options->warmup);
    for (unsigned i = 0; i < tunnel_count; i++)
        tunnels[i].marked = tunnels[i].sent + tunnels[i].received;
    uint64_t down = downloaded(), up = endpoint_counts().sunk;
    double began = now();
    measuring = true;
    run_for(options->seconds);
    measuring = false;
    report->seconds = now() - began;
    report->download_bytes = downloaded() - down;
    report->upload_bytes = endpoint_counts().sunk - up;
    for (unsigned i = 0; i < tunnel_count; i++)
        fault_if(tunnels[i].role != DIAL && tunnels[i].state == OPEN &&
                     tunnels[i].sent + tunnels[i].received == tunnels[i].marked,
                 "a tunnel (%c) moved no byte while it was measured", (char)tunnels[i].role);
}

static void hold_idle(void) {
    puts("ready");
    fflush(stdout);
    if (epoll_ctl(poller, EPOLL_CTL_ADD, STDIN_FILENO, &(struct epoll_event){.events = EPOLLIN}))
        released = true; /* not a pipe: nobody to wait for */
    fault_if(!run_until(is_released, 600), "idle tunnels were held for 10 minutes");
    for (unsigned i = 0; i < tunnel_count; i++)
        if (tunnels[i].state == OPEN)
            send_echo(&tunnels[i]);
    fault_if(!run_until(all_echoed_again, CLOSE_LIMIT), "an idle tunnel no longer echoes");
}

static void close_all(void) {
    for (unsigned i = 0; i < tunnel_count; i++)
        if (tunnels[i].state == OPEN)
            close_tunnel(&tunnels[i]);
    fault_if(!run_until(all_closed, CLOSE_LIMIT), "%u tunnels did not close", tunnel_count - closed);
    for (unsigned i = 0; i < tunnel_count; i++)
        if (tunnels[i].state != CLOSED)
            end(&tunnels[i]);
    fault_if(!run_until(endpoint_empty, CLOSE_LIMIT),
             "%llu connections stay open at the endpoint",
             (unsigned long long)endpoint_counts().open);
}

void frontend_run(const struct options *o, uint16_t endpoint_port, struct report *r) {
    options = o;
    report = r;
    carrier = strcmp(o->mode, "grpc") == 0           ? &grpc_carrier
              : strcmp(o->mode, "http-connect") == 0 ? &connect_carrier
                                                     : &raw_carrier;
    snprintf(endpoint, sizeof endpoint, "127.0.0.1:%u", endpoint_port);
    tunnels = calloc(o->downloads + o->uploads + o->echoes + o->idles + o->dialers,
                     sizeof *tunnels);
    add(DOWNLOAD, o->downloads);
    add(UPLOAD, o->uploads);
    add(ECHO, o->echoes);
    add(IDLE, o->idles);
    add(DIAL, o->dialers);
    closed = tunnel_count;
    poller = epoll_create1(EPOLL_CLOEXEC);

    fault_if(!run_until(all_open, OPEN_LIMIT), "%u tunnels did not open", opening);
    if (o->idles)
        hold_idle();
    else if (o->dialers || closed < tunnel_count)
        measure();
    stopping = true;
    fault_if(!run_until(all_settled, SETTLE_LIMIT), "a dial or an echo got no answer");
    close_all();
    struct endpoint_counts counts = endpoint_counts();
    fault_if(counts.corrupt > 0, "the endpoint got wrong bytes");
    fault_if(counts.accepted < report->opened, "%u tunnels opened, but the endpoint saw %llu",
             report->opened, (unsigned long long)counts.accepted);
}
