/* Packets, written and read by hand: protobuf varints and length-delimited fields only. */
#include "packet.h"

#include <string.h>

struct field {
    unsigned number;
    uint64_t value;        /* of a varint */
    const uint8_t *bytes;  /* of a length-delimited field, else NULL */
    size_t size;
};

static bool read_varint(const uint8_t **p, const uint8_t *end, uint64_t *value) {
    *value = 0;
    for (unsigned shift = 0; shift < 64 && *p < end; shift += 7) {
        uint8_t byte = *(*p)++;
        *value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80)
            return true;
    }
    return false;
}

static bool read_field(const uint8_t **p, const uint8_t *end, struct field *f) {
    uint64_t tag;
    *f = (struct field){0};
    if (!read_varint(p, end, &tag) || !read_varint(p, end, &f->value))
        return false;
    f->number = (unsigned)(tag >> 3);
    if ((tag & 7) == 0)
        return true;
    if ((tag & 7) != 2 || f->value > (uint64_t)(end - *p))
        return false;
    f->bytes = *p;
    f->size = (size_t)f->value;
    *p += f->size;
    return true;
}

static bool read_payload(struct packet *packet, unsigned kind, const struct field *payload) {
    const uint8_t *p = payload->bytes, *end = p + payload->size;
    bool is_data = kind == 4, has_random = kind == 3;
    for (struct field f; p < end;) {
        if (!read_field(&p, end, &f))
            return false;
        if (f.number == (is_data ? 1 : 2) && !f.bytes)
            packet->connect_id = f.value;
        else if (f.number == (is_data ? 2 : 1) && f.bytes)
            packet->error = f.bytes, packet->error_size = f.size;
        else if (f.number == 3 && is_data)
            packet->data = f.bytes, packet->data_size = f.size;
        else if (f.number == 3 && has_random)
            packet->random = f.value;
    }
    return true;
}

bool packet_read(struct packet *packet, const uint8_t *p, size_t size) {
    const uint8_t *end = p + size;
    *packet = (struct packet){0};
    for (struct field f; p < end;) {
        if (!read_field(&p, end, &f))
            return false;
        if (f.number == 1)
            packet->type = f.value;
        else if ((f.number == 3 || f.number == 4 || f.number == 6) && f.bytes &&
                 !read_payload(packet, f.number, &f))
            return false;
    }
    return true;
}

static uint8_t *put_varint(uint8_t *p, uint64_t value) {
    for (; value >= 0x80; value >>= 7)
        *p++ = (uint8_t)(value | 0x80);
    *p++ = (uint8_t)value;
    return p;
}

static size_t varint_size(uint64_t value) {
    uint8_t scratch[10];
    return (size_t)(put_varint(scratch, value) - scratch);
}

/* The gRPC prefix: not compressed, then the size of the message, big-endian. */
static void put_prefix(uint8_t *message, size_t size) {
    message[0] = 0;
    for (int i = 0; i < 4; i++)
        message[1 + i] = (uint8_t)(size >> (24 - 8 * i));
}

size_t packet_write_dial(uint8_t *message, const char *address, uint64_t random) {
    size_t n = strlen(address);
    uint8_t *p = message + 5; /* no field 1: DIAL_REQ is 0 */
    *p++ = 0x12;
    p = put_varint(p, 5 + 1 + varint_size(n) + n + 1 + varint_size(random));
    memcpy(p, "\x0a\x03tcp\x12", 6);
    p = put_varint(p + 6, n);
    memcpy(p, address, n);
    p += n;
    *p++ = 0x18;
    p = put_varint(p, random);
    put_prefix(message, (size_t)(p - message) - 5);
    return (size_t)(p - message);
}

size_t packet_write_close(uint8_t *message, uint64_t connect_id) {
    uint8_t *p = message + 5;
    *p++ = 0x08, *p++ = CLOSE_REQ, *p++ = 0x2a;
    p = put_varint(p, 1 + varint_size(connect_id));
    *p++ = 0x08;
    p = put_varint(p, connect_id);
    put_prefix(message, (size_t)(p - message) - 5);
    return (size_t)(p - message);
}

size_t packet_write_data_head(uint8_t *message, uint64_t connect_id, size_t data_size) {
    uint8_t *p = message + 5;
    *p++ = 0x08, *p++ = DATA_PACKET, *p++ = 0x22;
    p = put_varint(p, 1 + varint_size(connect_id) + 1 + varint_size(data_size) + data_size);
    *p++ = 0x08;
    p = put_varint(p, connect_id);
    *p++ = 0x1a;
    p = put_varint(p, data_size);
    put_prefix(message, (size_t)(p - message) - 5 + data_size);
    return (size_t)(p - message);
}
