/* Konnectivity's packets in protobuf, as far as a frontend needs them: packet.c. */
#ifndef PACKET_H
#define PACKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum packet_type { DIAL_REQ, DIAL_RSP, CLOSE_REQ, CLOSE_RSP, DATA_PACKET, DIAL_CLS, DRAIN };
enum { PACKET_HEAD_MAX = 32 }; /* gRPC prefix and packet head in front of the data */

struct packet {
    uint64_t type, connect_id, random;
    const uint8_t *data, *error; /* inside the bytes that were read */
    size_t data_size, error_size;
};

bool packet_read(struct packet *, const uint8_t *, size_t);

/* Each writes one gRPC message (prefix and packet) and returns its size. */
size_t packet_write_dial(uint8_t *, const char *address, uint64_t random);
size_t packet_write_close(uint8_t *, uint64_t connect_id);
size_t packet_write_data_head(uint8_t *, uint64_t connect_id, size_t data_size);

#endif
