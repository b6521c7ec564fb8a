"""Packets as columns without a file: random traffic for the meter, and a table cut into chunks."""

from __future__ import annotations

from dataclasses import fields, replace
from ipaddress import ip_address
from itertools import pairwise

import numpy as np
from hypothesis import strategies as st

from replay.columns import ICMP, TCP, UDP, Packets, Quotes

START_NS = 1_700_000_000_000_000_000
MS = 1_000_000
HOSTS = ["10.0.0.1", "10.0.0.2", "2001:db8::1"]
FLAGS = [0x02, 0x12, 0x10, 0x18, 0x11, 0x04, 0x14, 0x00, 0x03]

PACKET = st.tuples(
    st.sampled_from([TCP, TCP, TCP, TCP, UDP, UDP, ICMP, "error"]),
    st.tuples(st.integers(0, 2), st.integers(0, 2)),
    st.sampled_from([(40000, 80), (40001, 53), (5, 6), (40000, 443)]),
    st.booleans(),  # the other way
    st.sampled_from(FLAGS),
    st.sampled_from([0, 1, 3, 7, 10, 2**31, 2**32 - 4]),  # sequence number
    st.integers(0, 12),  # octets of payload
    st.integers(0, 2),  # octets that were not captured
    st.sampled_from([0, 0, 1, 1, 5, 30, 250, 1500]),  # ms since the packet before
    st.integers(0, 5),  # back to the first fragment, when it is a datagram
)
TRAFFIC = st.lists(PACKET, min_size=1, max_size=40)
WORDS = np.frombuffer(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", np.uint8)


def packets_of(rows):
    """Columns of rows drawn from TRAFFIC."""
    count = len(rows)
    columns = {
        field.name: np.zeros(count, np.uint8) for field in fields(Packets) if field.name not in ("quotes", "data")
    }
    for name in ("time_ns", "payload_offset", "datagram"):
        columns[name] = np.zeros(count, np.int64)
    for name in ("payload_octets", "captured_octets", "ip_octets", "fragment_octets"):
        columns[name] = np.zeros(count, np.int32)
    for name in ("source_port", "destination_port"):
        columns[name] = np.zeros(count, np.uint16)
    for name in ("sequence", "acknowledgement"):
        columns[name] = np.zeros(count, np.uint32)
    for name in ("source_address", "destination_address"):
        columns[name] = np.zeros((count, 16), np.uint8)
    data, quoted, now_ns = [], [], START_NS
    for at, (kind, hosts, ports, back, flags, sequence, octets, cut, pause, to_first) in enumerate(rows):
        now_ns += pause * MS
        source, destination = (HOSTS[hosts[0]], HOSTS[hosts[0] if hosts[1] == 2 else hosts[1]])
        if hosts[0] == 2:
            destination = HOSTS[2]
        ends = [(address(source), ports[0]), (address(destination), ports[1])][:: -1 if back else 1]
        if kind == "error":
            quoted.append((at, ends, TCP if flags & 1 == 0 else UDP, version(source)))
            ends = [(address(HOSTS[0]), 0), (address(source), 0)]
        elif kind == ICMP:
            ends = [(end[0], ports[0]) for end in ends]
        columns["time_ns"][at] = now_ns
        columns["protocol"][at] = ICMP if kind == "error" else kind
        columns["version"][at] = version(source)
        columns["source_address"][at], columns["source_port"][at] = ends[0]
        columns["destination_address"][at], columns["destination_port"][at] = ends[1]
        columns["sequence"][at] = sequence
        columns["tcp_flags"][at] = flags if kind == TCP else 0
        columns["icmp_type"][at] = 3 if kind == "error" else 8 * (flags & 1)
        columns["icmp_code"][at] = flags & 7 if kind == "error" else 0
        columns["payload_octets"][at] = octets
        columns["captured_octets"][at] = max(octets - max(cut - 1, 0), 0)
        columns["payload_offset"][at] = sum(map(len, data))
        columns["ip_octets"][at] = 40 + octets
        columns["datagram"][at] = at
        if kind == UDP and to_first and at >= to_first and rows[at - to_first][0] == UDP:
            columns["datagram"][at], columns["fragment_octets"][at] = at - to_first, 8
        data.append(WORDS[sequence % 5 : sequence % 5 + int(columns["captured_octets"][at])])
    return Packets(quotes=quotes(quoted), data=np.concatenate([*data, np.zeros(1, np.uint8)]), **columns)


def address(text):
    packed = ip_address(text).packed
    return np.frombuffer(packed if len(packed) == 16 else b"\0" * 10 + b"\xff\xff" + packed, np.uint8)


def version(text):
    return ip_address(text).version


def quotes(quoted):
    def column(values, dtype):
        return np.array(values, dtype)

    ends = [one[1] for one in quoted]
    none = np.zeros((0, 16), np.uint8)
    return Quotes(
        packet=column([one[0] for one in quoted], np.int64),
        protocol=column([one[2] for one in quoted], np.uint8),
        version=column([one[3] for one in quoted], np.uint8),
        source_address=np.stack([end[0][0] for end in ends]) if ends else none,
        destination_address=np.stack([end[1][0] for end in ends]) if ends else none,
        source_port=column([end[0][1] for end in ends], np.uint16),
        destination_port=column([end[1][1] for end in ends], np.uint16),
    )


def cut(packets, places):
    """The table in chunks that begin at these places and at the first row."""
    bounds = sorted({0, *(min(place, len(packets)) for place in places), len(packets)})
    for begin, end in pairwise(bounds):
        yield part(packets, begin, end)


def part(packets, begin, end):
    inside = (packets.quotes.packet >= begin) & (packets.quotes.packet < end)
    chosen = Quotes(*(getattr(packets.quotes, field.name)[inside] for field in fields(Quotes)))
    columns = {
        field.name: getattr(packets, field.name)[begin:end]
        for field in fields(Packets)
        if field.name not in ("quotes", "data", "datagram")
    }
    columns["quotes"] = replace(chosen, packet=chosen.packet - begin)
    return Packets(data=packets.data, datagram=packets.datagram[begin:end] - begin, **columns)
