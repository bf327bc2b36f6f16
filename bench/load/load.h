/* What the files of the load generator share.
 *
 * Two threads: the endpoints in the cluster (endpoint.c), and the frontend that opens tunnels to
 * them (frontend.c) by one of four carriers (raw.c: direct, relay, http-connect; grpc.c). Every
 * tunnel carries the byte stream of pattern.c, so both ends know each byte that must arrive.
 */
#ifndef LOAD_H
#define LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CHUNK_MAX = 65536, READ_SIZE = 65536 };

/* The first byte of a tunnel tells the endpoint what to be; a dialled tunnel sends none. A stalled
 * one is a download that the frontend does not read until all is over. */
enum role { DOWNLOAD = 'D', UPLOAD = 'U', ECHO = 'E', IDLE = 'I', STALL = 'S', DIAL = '-' };

struct options {
    const char *mode;       /* direct, relay, http-connect or grpc */
    const char *uds;        /* path of the frontend socket; unused by direct */
    unsigned downloads, uploads, echoes, idles, stalls, dialers;
    size_t chunk;           /* bytes of one bulk write, on either end */
    size_t echo_size;       /* bytes of one echo */
    uint16_t endpoint_port; /* 0: any */
    double warmup, seconds; /* before, and during the measurement */
};

double now(void); /* seconds of the monotonic clock */

/* pattern.c */
void pattern_init(void);
const uint8_t *pattern_at(uint64_t offset); /* CHUNK_MAX bytes may be read from here */
bool pattern_matches(uint64_t offset, const uint8_t *data, size_t size);

/* histogram.c: durations in nanoseconds, within 1 % */
struct histogram { uint64_t count; uint32_t buckets[4608]; };
void histogram_add(struct histogram *, uint64_t nanoseconds);
double histogram_percentile(const struct histogram *, double fraction); /* us; 0 if empty */

/* endpoint.c */
struct endpoint_counts { uint64_t accepted, open, sunk, corrupt; };
uint16_t endpoint_start(size_t chunk, uint16_t port);
struct endpoint_counts endpoint_counts(void);

/* frontend.c */
struct http2;
struct tunnel {
    int fd;
    enum role role;
    enum { CLOSED, OPENING, OPEN, CLOSING } state;
    uint32_t interest;        /* what epoll watches for */
    uint64_t sent, received;  /* bytes of the pattern, each way */
    uint64_t marked;          /* sent + received when the measurement began */
    double began;             /* of the dial, or of the outstanding echo */
    unsigned echoes;          /* answered so far */
    size_t head_size;         /* raw.c: what has come of the HTTP response head */
    char head[512];
    struct grpc *grpc;        /* grpc.c: kept when the tunnel is opened again */
};

struct report {
    unsigned errors;
    char first_error[256];
    unsigned opened;
    double seconds;
    uint64_t download_bytes, upload_bytes, echoes, dials;
    struct histogram echo_time, dial_time;
};
void frontend_run(const struct options *, uint16_t endpoint_port, struct report *);

/* What a carrier calls. */
void tunnel_opened(struct tunnel *);
void tunnel_data(struct tunnel *, const uint8_t *data, size_t size);
void tunnel_closed(struct tunnel *);  /* as asked */
void tunnel_failed(struct tunnel *, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* What a carrier does. Any call may end the tunnel through tunnel_closed or tunnel_failed. */
struct carrier {
    void (*start)(struct tunnel *, const char *address); /* the socket is connected */
    void (*readable)(struct tunnel *);
    void (*flush)(struct tunnel *);                      /* the socket takes bytes again */
    bool (*unsent)(const struct tunnel *);               /* do bytes wait for the socket? */
    bool (*room)(const struct tunnel *);                 /* would send() take a chunk now? */
    size_t (*send)(struct tunnel *, const uint8_t *, size_t); /* bytes taken */
    void (*close)(struct tunnel *);
};
extern const struct carrier raw_carrier, relay_carrier, connect_carrier, grpc_carrier;

#endif
