/* What the row (frontend.c) and its tunnels (tunnel.c) share. */
#ifndef FRONTEND_H
#define FRONTEND_H

#include "load.h"

struct frontend {
    const struct options *options;
    const struct carrier *carrier;
    struct report *report;
    char endpoint[32];          /* host:port */
    int poller;
    unsigned opening, closed;   /* tunnels */
    bool measuring, stopping;
};
extern struct frontend frontend;

void fault_if(bool wrong, const char *format, ...) __attribute__((format(printf, 2, 3)));

void tunnel_open(struct tunnel *);
void tunnel_work(struct tunnel *, uint32_t events);
void tunnel_echo(struct tunnel *);
void tunnel_close(struct tunnel *);   /* politely */
void tunnel_abandon(struct tunnel *); /* at once */

#endif
