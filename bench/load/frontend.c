/* The frontend: opens the tunnels of one row, works them, measures, closes them, and checks all.
 *
 * One epoll loop on one thread. Each step has a limit in time; what is undone then is an error. */
#include "frontend.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

enum { OPENING_MAX = 32 };                                                     /* tunnels */
enum { OPEN_LIMIT = 60, HOLD_LIMIT = 600, SETTLE_LIMIT = 5, CLOSE_LIMIT = 10 }; /* seconds */

struct frontend frontend;
static struct tunnel *tunnels;
static unsigned tunnel_count;
static bool released; /* idle tunnels may echo once more */

double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void work_all(int milliseconds) {
    struct epoll_event events[256];
    int n = epoll_wait(frontend.poller, events, 256, milliseconds);
    for (int i = 0; i < n; i++) {
        if (events[i].data.ptr == NULL) { /* standard input ended */
            epoll_ctl(frontend.poller, EPOLL_CTL_DEL, STDIN_FILENO, NULL);
            released = true;
        } else {
            tunnel_work(events[i].data.ptr, events[i].events);
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
            tunnel_open(&tunnels[i]);
}

static void run_for(double seconds) {
    for (double end_at = now() + seconds; now() < end_at;) {
        if (frontend.options->dialers)
            redial();
        work_all(frontend.options->dialers && frontend.closed ? 0 : 1);
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
    for (; next < tunnel_count && frontend.opening < OPENING_MAX; next++)
        if (tunnels[next].role != DIAL)
            tunnel_open(&tunnels[next]);
    return next == tunnel_count && frontend.opening == 0 && all_have(1);
}

static bool is_released(void) { return released; }
static bool all_echoed_again(void) { return all_have(2); }
static bool all_closed(void) { return frontend.closed == tunnel_count; }

static bool endpoint_empty(void) { /* and has seen them all: the last may still be on its way */
    struct endpoint_counts counts = endpoint_counts();
    return counts.accepted >= frontend.report->opened && counts.open == 0;
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
    run_for(frontend.options->warmup);
    for (unsigned i = 0; i < tunnel_count; i++)
        tunnels[i].marked = tunnels[i].sent + tunnels[i].received;
    uint64_t down = downloaded(), up = endpoint_counts().sunk;
    double began = now();
    frontend.measuring = true;
    run_for(frontend.options->seconds);
    frontend.measuring = false;
    frontend.report->seconds = now() - began;
    frontend.report->download_bytes = downloaded() - down;
    frontend.report->upload_bytes = endpoint_counts().sunk - up;
    for (unsigned i = 0; i < tunnel_count; i++)
        fault_if(tunnels[i].role != DIAL && tunnels[i].role != STALL && tunnels[i].state == OPEN &&
                     tunnels[i].sent + tunnels[i].received == tunnels[i].marked,
                 "a tunnel (%c) moved no byte while it was measured", (char)tunnels[i].role);
}

static void hold_idle(void) {
    puts("ready");
    fflush(stdout);
    if (epoll_ctl(frontend.poller, EPOLL_CTL_ADD, STDIN_FILENO,
                  &(struct epoll_event){.events = EPOLLIN}))
        released = true; /* not a pipe: nobody to wait for */
    fault_if(!run_until(is_released, HOLD_LIMIT), "idle tunnels were held for 10 minutes");
    for (unsigned i = 0; i < tunnel_count; i++)
        if (tunnels[i].state == OPEN)
            tunnel_echo(&tunnels[i]);
    fault_if(!run_until(all_echoed_again, CLOSE_LIMIT), "an idle tunnel no longer echoes");
}

static void close_all(void) {
    for (unsigned i = 0; i < tunnel_count; i++)
        if (tunnels[i].state == OPEN)
            tunnel_close(&tunnels[i]);
    fault_if(!run_until(all_closed, CLOSE_LIMIT), "%u tunnels did not close",
             tunnel_count - frontend.closed);
    for (unsigned i = 0; i < tunnel_count; i++)
        if (tunnels[i].state != CLOSED)
            tunnel_abandon(&tunnels[i]);
    fault_if(!run_until(endpoint_empty, CLOSE_LIMIT),
             "%llu connections stay open at the endpoint",
             (unsigned long long)endpoint_counts().open);
}

void frontend_run(const struct options *o, uint16_t endpoint_port, struct report *r) {
    frontend.options = o;
    frontend.report = r;
    frontend.carrier = strcmp(o->mode, "grpc") == 0           ? &grpc_carrier
                       : strcmp(o->mode, "http-connect") == 0 ? &connect_carrier
                       : strcmp(o->mode, "relay") == 0        ? &relay_carrier
                                                              : &raw_carrier;
    snprintf(frontend.endpoint, sizeof frontend.endpoint, "127.0.0.1:%u", endpoint_port);
    tunnels = calloc(o->downloads + o->uploads + o->echoes + o->idles + o->stalls + o->dialers,
                     sizeof *tunnels);
    add(STALL, o->stalls);
    add(DOWNLOAD, o->downloads);
    add(UPLOAD, o->uploads);
    add(ECHO, o->echoes);
    add(IDLE, o->idles);
    add(DIAL, o->dialers);
    frontend.closed = tunnel_count;
    frontend.poller = epoll_create1(EPOLL_CLOEXEC);

    fault_if(!run_until(all_open, OPEN_LIMIT), "%u tunnels did not open", frontend.opening);
    if (o->idles)
        hold_idle();
    else if (o->dialers || frontend.closed < tunnel_count)
        measure();
    frontend.stopping = true;
    fault_if(!run_until(all_settled, SETTLE_LIMIT), "a dial or an echo got no answer");
    close_all();
    struct endpoint_counts counts = endpoint_counts();
    fault_if(counts.corrupt > 0, "the endpoint got wrong bytes");
    fault_if(counts.accepted < r->opened, "%u tunnels opened, but the endpoint saw %llu", r->opened,
             (unsigned long long)counts.accepted);
}
