/* Load generator: one row of the benchmark, as options in, as one line of JSON out.
 *
 * Exit status 0 if all was as it should be, 1 if the report carries errors, 2 for bad options. */
#include "load.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/un.h>

static const char usage[] =
    "usage: load --mode=direct|relay|http-connect|grpc [--uds=PATH] [--endpoint-port=PORT]\n"
    "            [--downloads=N] [--uploads=N] [--echoes=N] [--idles=N] [--stalls=N]\n"
    "            [--dialers=N] [--chunk=BYTES] [--echo-size=BYTES] [--warmup=SECONDS]\n"
    "            [--seconds=SECONDS]\n";

static void refuse(const char *what) {
    fprintf(stderr, "load: %s\n%s", what, usage);
    exit(2);
}

static unsigned count_of(const char *text, unsigned least, unsigned most) {
    char *end;
    unsigned long n = strtoul(text, &end, 10);
    if (*text == 0 || *end != 0 || n < least || n > most)
        refuse("a number is out of range");
    return (unsigned)n;
}

static double seconds_of(const char *text) {
    char *end;
    double n = strtod(text, &end);
    if (*text == 0 || *end != 0 || !(n >= 0 && n <= 300))
        refuse("a duration is not within 0 to 300 seconds");
    return n;
}

static struct options read_options(int argc, char **argv) {
    static const struct option names[] = {
        {"mode", 1, 0, 'm'},    {"uds", 1, 0, 'p'},     {"downloads", 1, 0, 'd'},
        {"uploads", 1, 0, 'u'}, {"echoes", 1, 0, 'e'},  {"idles", 1, 0, 'i'},
        {"dialers", 1, 0, 'l'}, {"chunk", 1, 0, 'c'},   {"echo-size", 1, 0, 'z'},
        {"warmup", 1, 0, 'w'},  {"seconds", 1, 0, 's'}, {"stalls", 1, 0, 't'},
        {"endpoint-port", 1, 0, 'o'}, {0}};
    struct options o = {.mode = "", .uds = "", .chunk = 32768, .echo_size = 64, .warmup = 0.5,
                        .seconds = 2};
    for (int c; (c = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        switch (c) {
        case 'm': o.mode = optarg; break;
        case 'p': o.uds = optarg; break;
        case 'd': o.downloads = count_of(optarg, 0, 1000); break;
        case 'u': o.uploads = count_of(optarg, 0, 1000); break;
        case 'e': o.echoes = count_of(optarg, 0, 10000); break;
        case 'i': o.idles = count_of(optarg, 0, 10000); break;
        case 't': o.stalls = count_of(optarg, 0, 1000); break;
        case 'l': o.dialers = count_of(optarg, 0, 1000); break;
        case 'c': o.chunk = count_of(optarg, 1, CHUNK_MAX); break;
        case 'z': o.echo_size = count_of(optarg, 1, 4096); break;
        case 'w': o.warmup = seconds_of(optarg); break;
        case 's': o.seconds = seconds_of(optarg); break;
        case 'o': o.endpoint_port = (uint16_t)count_of(optarg, 1, 65535); break;
        default: refuse("an option is unknown or has no value");
        }
    }
    bool direct = strcmp(o.mode, "direct") == 0;
    bool relay = strcmp(o.mode, "relay") == 0;
    if (!direct && !relay && strcmp(o.mode, "http-connect") != 0 && strcmp(o.mode, "grpc") != 0)
        refuse("--mode must be direct, relay, http-connect or grpc");
    if (relay && !o.endpoint_port)
        refuse("--endpoint-port must be what the relay leads to");
    if (!direct && (*o.uds == 0 || strlen(o.uds) >= sizeof((struct sockaddr_un *)0)->sun_path))
        refuse("--uds must name the frontend socket, with fewer than 108 bytes");
    if (o.downloads + o.uploads + o.echoes + o.idles + o.stalls + o.dialers == 0)
        refuse("there is nothing to do");
    return o;
}

static double cpu_seconds(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
}

static void print_text(const char *text) {
    putchar('"');
    for (; *text; text++)
        if (*text == '"' || *text == '\\')
            printf("\\%c", *text);
        else
            putchar((unsigned char)*text < ' ' || (unsigned char)*text > '~' ? '?' : *text);
    putchar('"');
}

static void print_report(const struct report *r) {
    printf("{\"errors\": %u, \"first_error\": ", r->errors);
    print_text(r->first_error);
    printf(", \"opened\": %u, \"seconds\": %.6f", r->opened, r->seconds);
    printf(", \"download_bytes\": %llu, \"upload_bytes\": %llu, \"echoes\": %llu, \"dials\": %llu",
           (unsigned long long)r->download_bytes, (unsigned long long)r->upload_bytes,
           (unsigned long long)r->echoes, (unsigned long long)r->dials);
    printf(", \"echo_p50_us\": %.2f, \"echo_p99_us\": %.2f",
           histogram_percentile(&r->echo_time, 0.50), histogram_percentile(&r->echo_time, 0.99));
    printf(", \"dial_p50_us\": %.2f, \"dial_p99_us\": %.2f",
           histogram_percentile(&r->dial_time, 0.50), histogram_percentile(&r->dial_time, 0.99));
    printf(", \"cpu_seconds\": %.4f}\n", cpu_seconds());
}

int main(int argc, char **argv) {
    static struct report report;
    struct options options = read_options(argc, argv);
    pattern_init();
    frontend_run(&options, endpoint_start(options.chunk, options.endpoint_port), &report);
    print_report(&report);
    return report.errors > 0;
}
