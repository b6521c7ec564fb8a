/* The headers of ordinary packets: what replay/headers/decode.py makes of them, in one pass over the records.
 *
 * Ordinary is TCP, UDP or an ICMP echo, whole in its first headers, not a fragment, its length said by itself, over
 * IPv4 or IPv6 without extension headers, over Ethernet (with VLAN tags), Linux cooked capture or nothing. Whatever
 * is not plainly so is left to the caller: no record is given up here, and no reason is known here.
 * Every read is checked against the end of the record, and the record against the buffer.
 */
#include <endian.h>
#include <stdint.h>
#include <string.h>

enum { ETHERNET = 1, RAW_12 = 12, RAW_14 = 14, RAW = 101, COOKED = 113, COOKED_2 = 276 };
enum { TCP = 6, UDP = 17, ICMP = 1, ICMPV6 = 58 };
enum { MOST_TAGS = 4, AHEAD = 12 };

struct columns {
    uint8_t *protocol, *version, *source, *destination;
    uint16_t *source_port, *destination_port;
    uint32_t *sequence, *acknowledgement;
    uint8_t *tcp_flags, *hop_limit;
    int32_t *payload_octets, *captured_octets;
    int64_t *payload_offset;
    int32_t *ip_octets;
    uint8_t *icmp_type, *icmp_code;
};

static uint32_t two(const uint8_t *at)
{
    return (uint32_t)at[0] << 8 | at[1];
}

static uint32_t four(const uint8_t *at)
{
    uint32_t word;
    memcpy(&word, at, sizeof word);
    return be32toh(word);
}

/* Where the IP header begins and of which version it has to be (0: either); -1 when that is not plain. */
static int64_t network(const uint8_t *data, int64_t at, int64_t end, int64_t link, uint32_t *version)
{
    uint32_t type;
    *version = 0;
    switch (link) {
    case RAW_12:
    case RAW_14:
    case RAW:
        return at;
    case ETHERNET:
        if (end - at < 14)
            return -1;
        type = two(data + at + 12);
        at += 14;
        break;
    case COOKED:
        if (end - at < 16)
            return -1;
        type = two(data + at + 14);
        at += 16;
        break;
    case COOKED_2:
        if (end - at < 20)
            return -1;
        type = two(data + at);
        at += 20;
        break;
    default:
        return -1;
    }
    for (int tags = 0; type == 0x8100 || type == 0x88A8 || type == 0x9100 || type == 0x9200 || type == 0x9300; tags++) {
        if (tags == MOST_TAGS || end - at < 4)
            return -1;
        type = two(data + at + 2);
        at += 4;
    }
    *version = type == 0x0800 ? 4 : type == 0x86DD ? 6 : 0;
    return *version ? at : -1;
}

static int decoded(const uint8_t *data, int64_t at, int64_t end, uint32_t promised, int64_t row, const struct columns *to)
{
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF};
    if (end - at < 20)
        return 0;
    const uint8_t *ip = data + at;
    uint32_t version = ip[0] >> 4, protocol, hop_limit;
    int64_t total, header;
    if (promised && promised != version)
        return 0;
    if (version == 4) {
        header = (ip[0] & 0x0F) * 4;
        total = two(ip + 2);
        if (header < 20 || total < header || (two(ip + 6) & 0x3FFF))
            return 0;
        hop_limit = ip[8];
        protocol = ip[9];
    } else if (version == 6) {
        if (end - at < 40)
            return 0;
        header = 40;
        total = 40 + (int64_t)two(ip + 4);
        if (total == 40)
            return 0;
        protocol = ip[6];
        hop_limit = ip[7];
    } else {
        return 0;
    }
    int64_t payload = total - header, transport_at = at + header, transport_header = 8;
    const uint8_t *transport = data + transport_at;
    uint32_t source_port = 0, destination_port = 0, sequence = 0, acknowledgement = 0;
    uint8_t flags = 0, icmp_type = 0, icmp_code = 0;
    if (end - transport_at < (protocol == TCP ? 14 : 8))
        return 0;
    if (protocol == TCP) {
        source_port = two(transport);
        destination_port = two(transport + 2);
        sequence = four(transport + 4);
        acknowledgement = four(transport + 8);
        flags = transport[13];
        transport_header = (transport[12] >> 4) * 4;
        if (transport_header < 20)
            return 0;
    } else if (protocol == UDP) {
        source_port = two(transport);
        destination_port = two(transport + 2);
        int64_t claimed = two(transport + 4);
        if (claimed >= 8 && claimed < payload)
            payload = claimed;
    } else if ((protocol == ICMP && (transport[0] == 0 || transport[0] == 8)) ||
               (protocol == ICMPV6 && (transport[0] == 128 || transport[0] == 129))) {
        if ((protocol == ICMP) != (version == 4))
            return 0;
        icmp_type = transport[0];
        icmp_code = transport[1];
        source_port = destination_port = two(transport + 4);
        sequence = two(transport + 6);
    } else {
        return 0;
    }
    payload -= transport_header;
    if (payload < 0)
        return 0;
    int64_t payload_at = transport_at + transport_header, captured = end - payload_at;
    to->protocol[row] = (uint8_t)protocol;
    to->version[row] = (uint8_t)version;
    if (version == 4) {
        memcpy(to->source + 16 * row, mapped, 12);
        memcpy(to->source + 16 * row + 12, ip + 12, 4);
        memcpy(to->destination + 16 * row, mapped, 12);
        memcpy(to->destination + 16 * row + 12, ip + 16, 4);
    } else {
        memcpy(to->source + 16 * row, ip + 8, 16);
        memcpy(to->destination + 16 * row, ip + 24, 16);
    }
    to->source_port[row] = (uint16_t)source_port;
    to->destination_port[row] = (uint16_t)destination_port;
    to->sequence[row] = sequence;
    to->acknowledgement[row] = acknowledgement;
    to->tcp_flags[row] = flags;
    to->hop_limit[row] = (uint8_t)hop_limit;
    to->payload_octets[row] = (int32_t)payload;
    to->captured_octets[row] = (int32_t)(captured < 0 ? 0 : captured < payload ? captured : payload);
    to->payload_offset[row] = payload_at < end ? payload_at : end;
    to->ip_octets[row] = (int32_t)total;
    to->icmp_type[row] = icmp_type;
    to->icmp_code[row] = icmp_code;
    return 1;
}

/* Fills the columns of ordinary records and lists the other rows; returns how many those are. */
int64_t ordinary_headers(const uint8_t *data, int64_t octets, int64_t rows, const int64_t *offset,
                         const int64_t *captured, const int64_t *link, uint8_t *const *columns, int64_t *others)
{
    const struct columns to = {
        columns[0], columns[1], columns[2], columns[3], (uint16_t *)columns[4], (uint16_t *)columns[5],
        (uint32_t *)columns[6], (uint32_t *)columns[7], columns[8], columns[9], (int32_t *)columns[10],
        (int32_t *)columns[11], (int64_t *)columns[12], (int32_t *)columns[13], columns[14], columns[15],
    };
    int64_t left = 0;
    for (int64_t row = 0; row < rows; row++) {
        if (row + AHEAD < rows && offset[row + AHEAD] >= 0 && offset[row + AHEAD] < octets)
            __builtin_prefetch(data + offset[row + AHEAD]);
        int64_t at = offset[row], length = captured[row];
        uint32_t version;
        if (at >= 0 && length >= 0 && at <= octets && length <= octets - at) {
            int64_t end = at + length;
            at = network(data, at, end, link[row], &version);
            if (at >= 0 && decoded(data, at, end, version, row, &to))
                continue;
        }
        others[left++] = row;
    }
    return left;
}
