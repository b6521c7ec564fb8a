"""A large capture that looks like a network's, made by numpy in seconds: the same octets for the same seed and size.

Nine flows of ten are conversations: DNS lookups, web requests over TCP with their answers, acknowledgements and
closes, a few long downloads, calls by voice, some refused or unanswered attempts, pings; one of five in IPv6, one of
five in a VLAN.
Knows the layout of headers, not who reads them.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Octets = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]
START_S = 1_700_000_000
_BLOCK_PACKETS = 100_000
_FLOW_OCTETS = 20_700  # what a flow of the mix comes to
_SEGMENT = 1448
_RECORD, _ETHERNET, _VLAN = 16, 14, 4
_HEAD_OCTETS = 120
_SYN, _SYN_ACK, _ACK, _PUSH, _FIN, _RST = 2, 18, 16, 24, 17, 20
_LOOKUP = bytes.fromhex("1234 0100 0001 0000 0000 0000 03777777 0773686f702d3031 076578616d706c65 00 0001 0001")
_REQUEST = b"GET /item HTTP/1.1\r\nHost: www.shop.example\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nServer: bench\r\n\r\n"
_HELLO = (
    bytes.fromhex(
        "16030100750100007103030000000000000000000000000000000000000000000000000000000000000000000002130101"
        "000046000000150013000010777777312e73686f702e6578616d706c65"
    )
    + bytes.fromhex("002b0003020304")
    + bytes(42)
)


@dataclass(frozen=True, slots=True)
class Mix:
    """How many flows of each kind a block has in a thousand, and how many octets an answer has in the middle."""

    web: int = 560
    lookup: int = 330
    refused: int = 25
    unanswered: int = 45
    ping: int = 40
    voice: int = 15
    answer_octets: int = 12_000


def write_capture(path: Path, octets: int, seed: int) -> int:
    """Write a pcap of about this size; returns the number of packets."""
    packets = 0
    with path.open("wb", buffering=0) as file:
        file.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, 1))
        for block, count in blocks(octets, seed):
            file.write(block.data)
            packets += count
    return packets


def blocks(octets: int, seed: int, mix: Mix = Mix()) -> Iterator[tuple[Octets, int]]:
    """The records of the capture in the order of time, some megabytes at a time, and how many they are."""
    random = np.random.default_rng(seed)
    flows = max(octets // _FLOW_OCTETS, 20)
    shares = np.cumsum([mix.web, mix.lookup, mix.refused, mix.unanswered, mix.ping, mix.voice])
    kind = np.searchsorted(shares, random.integers(0, shares[-1], flows), side="right")
    packets = _packets(random, kind, mix)
    begins = np.concatenate(([0], np.cumsum(random.exponential(500_000, flows - 1)))).astype(np.int64)
    running = np.cumsum(packets.gap_ns)
    first = np.searchsorted(packets.flow, np.arange(flows))
    time_ns = begins[packets.flow] + running - running[first][packets.flow]
    hosts = _hosts(random, kind, flows)
    sequence = _sequences(random, packets, kind)
    order = np.argsort(time_ns, kind="stable")
    for begin in range(0, len(order), _BLOCK_PACKETS):
        some = order[begin : begin + _BLOCK_PACKETS]
        yield _octets(kind, packets, hosts, time_ns[some], sequence[some], some), len(some)


@dataclass(frozen=True, slots=True)
class _Packets:
    """Packets by flow: whose, the how many-th, from which end (0 the client), flags, octets of payload, gap before."""

    flow: Ints
    at: Ints
    end: Ints
    flags: Ints
    payload: Ints
    gap_ns: Ints


def _packets(random: np.random.Generator, kind: Ints, mix: Mix) -> _Packets:
    """Every flow's packets: those of a web flow are its handshake, request, answer with acknowledgements, close."""
    flows = len(kind)
    web, ping, voice = kind == 0, kind == 4, kind == 5
    sizes = np.minimum(random.lognormal(np.log(mix.answer_octets), 1.3, flows), 4_000_000).astype(np.int64)
    segments = np.where(web, sizes // _SEGMENT + 1, 0)
    pairs = (segments + 1) // 2
    counts = np.select([web, kind == 1, kind == 2, kind == 3], [3 + 1 + segments + pairs + 3, 2, 2, 3], 6)
    counts = np.where(voice, random.integers(100, 1500, flows), counts)
    flow = np.repeat(np.arange(flows), counts)
    at = np.arange(len(flow)) - (np.cumsum(counts) - counts)[flow]
    end, flags, payload = np.zeros(len(flow), np.int64), np.full(len(flow), _ACK), np.zeros(len(flow), np.int64)
    is_web, body = web[flow], segments[flow] + pairs[flow]
    data = at - 4
    in_body = is_web & (data >= 0) & (data < body)
    acknowledges = in_body & ((data % 3 == 2) | (data == body - 1))
    sends = in_body & ~acknowledges
    payload[sends] = _SEGMENT
    payload[is_web & (at == 3)] = random.integers(150, 700, flows)[flow[is_web & (at == 3)]]
    flags[is_web & (at == 0)], flags[is_web & (at == 1)] = _SYN, _SYN_ACK
    flags[is_web & (at == 3)] = _PUSH
    closing = is_web & (data >= body)
    flags[closing & (data <= body + 1)] = _FIN
    end[(is_web & (at == 1)) | sends | (closing & (data == body))] = 1
    others = ~is_web
    end[others & (at % 2 == 1) & (kind[flow] != 3)] = 1
    flags[others] = np.where(kind[flow[others]] == 2, np.where(at[others] == 0, _SYN, _RST), _SYN)
    payload[others & (kind[flow] == 1)] = len(_LOOKUP)
    payload[ping[flow]] = 56
    payload[voice[flow]] = 172
    rtt_ns = random.lognormal(np.log(8e6), 0.8, flows)
    gap = np.where(sends, 12_000, rtt_ns[flow] / 2) * random.uniform(0.7, 1.3, len(flow))
    gap[others & (kind[flow] == 3)] *= 100
    gap[voice[flow]] = 10_000_000
    return _Packets(flow, at, end, flags, payload, gap.astype(np.int64))


@dataclass(frozen=True, slots=True)
class _Hosts:
    """Who the flows are between, and how."""

    six: Bools
    vlan: Bools
    tls: Bools
    client: Ints
    server: Ints
    port: Ints
    protocol: Ints
    service: Ints


def _hosts(random: np.random.Generator, kind: Ints, flows: int) -> _Hosts:
    six, vlan = random.random(flows) < 0.2, random.random(flows) < 0.2
    tls = random.random(flows) < 0.6
    protocol = np.select([(kind == 1) | (kind == 5), kind == 4], [17, 1], 6)
    service = np.select([kind == 1, kind == 4, kind == 5], [53, 0, 4000], np.where(tls, 443, 80))
    return _Hosts(
        six, vlan, tls, random.integers(0, 4000, flows), random.integers(0, 200, flows),
        random.integers(1024, 65535, flows), np.where(six & (kind == 4), 58, protocol), service,
    )  # fmt: skip


def _octets(kind: Ints, packets: _Packets, hosts: _Hosts, when: Ints, sequence: Ints, some: Ints) -> Octets:
    """The records of some packets: headers laid over a buffer of filler, then the first words."""
    flow, at, end = packets.flow[some], packets.at[some], packets.end[some]
    protocol, six, vlan = hosts.protocol[flow], hosts.six[flow], hosts.vlan[flow]
    link = _ETHERNET + np.where(vlan, _VLAN, 0)
    network = np.where(six, 40, 20)
    transport = np.where(protocol == 6, 32, 8)
    heads = _RECORD + link + network + transport
    payload = packets.payload[some]
    sizes = heads + payload
    ends = np.cumsum(sizes)
    begins = ends - sizes
    out = np.full(int(ends[-1]), 0x6E, np.uint8)
    columns = {
        "frame": sizes - _RECORD, "seconds": START_S + when // 10**9, "nanoseconds": when % 10**9,
        "length": network + transport + payload, "end": end, "flags": packets.flags[some],
        "sequence": sequence, "client": hosts.client[flow], "server": hosts.server[flow], "port": hosts.port[flow],
        "service": hosts.service[flow], "protocol": protocol, "payload": payload,
    }  # fmt: skip
    for is_six in (False, True):
        for in_vlan in (False, True):
            rows = np.flatnonzero((six == is_six) & (vlan == in_vlan))
            if len(rows):
                heads_of = _heads({name: column[rows] for name, column in columns.items()}, is_six, in_vlan)
                for number in (6, 17, 1, 58):
                    mine = np.flatnonzero(columns["protocol"][rows] == number)
                    if len(mine):
                        width = int(heads[rows[mine[0]]])
                        out[begins[rows[mine]][:, None] + np.arange(width)] = heads_of[mine, :width]
    words = begins + heads
    asks = (kind[flow] == 0) & (at == 3)
    _lay(out, words[asks & ~hosts.tls[flow]], _REQUEST)
    _lay(out, words[asks & hosts.tls[flow]], _HELLO)
    _lay(out, words[kind[flow] == 1], _LOOKUP)
    _lay(out, words[(kind[flow] == 0) & (at == 4) & (end == 1)], _ANSWER)
    return out


def _sequences(random: np.random.Generator, packets: _Packets, kind: Ints) -> Ints:
    """Sequence numbers: each end's own first number, and what it sent before (a SYN counts one, once)."""
    flows = len(kind)
    lane = packets.flow * 2 + packets.end
    used = packets.payload + ((packets.flags & 3 != 0) & (kind[packets.flow] != 3))
    order = np.argsort(lane, kind="stable")
    before = np.cumsum(used[order]) - used[order]
    first = np.searchsorted(lane[order], np.arange(flows * 2))
    sequence = np.empty(len(lane), np.int64)
    sequence[order] = before - before[np.minimum(first, len(lane) - 1)][lane[order]]
    number: Ints = (sequence + random.integers(0, 1 << 32, flows * 2)[lane]) % (1 << 32)
    return number


def _heads(of: dict[str, Ints], six: bool, vlan: bool) -> Octets:
    """Record, link, network and transport headers of packets of one layout."""
    count, back = len(of["end"]), of["end"] == 1
    out = np.zeros((count, _HEAD_OCTETS), np.uint8)
    for place, name in enumerate(("seconds", "nanoseconds", "frame", "frame")):
        _put(out, 4 * place, of[name], "<u4")
    at = _RECORD
    out[:, at : at + 12] = np.frombuffer(bytes.fromhex("02000000000102000000 0002"), np.uint8)
    at += 12
    if vlan:
        out[:, at : at + 4] = np.frombuffer(bytes.fromhex("8100 0064"), np.uint8)
        at += _VLAN
    _put(out, at, np.full(count, 0x86DD if six else 0x0800), ">u2")
    at += 2
    clients, servers = _addresses(of["client"], 10, six), _addresses(of["server"], 20, six)
    source, destination = np.where(back[:, None], servers, clients), np.where(back[:, None], clients, servers)
    if six:
        out[:, at] = 0x60
        _put(out, at + 4, of["length"] - 40, ">u2")
        out[:, at + 6], out[:, at + 7] = of["protocol"], 64
        out[:, at + 8 : at + 24], out[:, at + 24 : at + 40] = source, destination
        at += 40
    else:
        out[:, at] = 0x45
        _put(out, at + 2, of["length"], ">u2")
        out[:, at + 6], out[:, at + 8], out[:, at + 9] = 0x40, 64, of["protocol"]
        out[:, at + 12 : at + 16], out[:, at + 16 : at + 20] = source, destination
        at += 20
    ports = np.where(back, of["service"], of["port"]), np.where(back, of["port"], of["service"])
    tcp, udp = of["protocol"] == 6, of["protocol"] == 17
    _put(out, at, ports[0], ">u2")
    _put(out, at + 2, ports[1], ">u2")
    _put(out, at + 4, np.where(tcp, of["sequence"], (8 + of["payload"]) << 16), ">u4")
    out[:, at + 12] = np.where(tcp, 0x80, 0)
    out[:, at + 13] = np.where(tcp, of["flags"], 0)
    echo = np.where(back, 129 if six else 0, 128 if six else 8)
    neither = np.flatnonzero(~tcp & ~udp)
    out[neither, at], out[neither, at + 1] = echo[neither], 0
    _put(out, at + 4, np.where(tcp | udp, 0, of["port"]), ">u2", neither)
    return out


def _addresses(host: Ints, net: int, six: bool) -> Octets:
    out = np.zeros((len(host), 16 if six else 4), np.uint8)
    out[:, 0] = net
    if six:
        out[:, :4] = np.frombuffer(bytes.fromhex("20010db8"), np.uint8)
        out[:, 7] = net
    out[:, -3], out[:, -2], out[:, -1] = 1, host >> 8, host & 0xFF
    return out


def _put(out: Octets, at: int, values: Ints, dtype: str, rows: Ints | None = None) -> None:
    width = np.dtype(dtype).itemsize
    octets = values.astype(dtype).view(np.uint8).reshape(-1, width)
    if rows is None:
        out[:, at : at + width] = octets
    else:
        out[rows, at : at + width] = octets[rows]


def _lay(out: Octets, at: Ints, words: bytes) -> None:
    out[at[:, None] + np.arange(len(words))] = np.frombuffer(words, np.uint8)


if __name__ == "__main__":
    sys.stdout.write(str(write_capture(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
