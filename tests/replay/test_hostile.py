"""Hostile octets end in a reason or a refusal: no crash, no hang, no memory beyond a few buffers.

The strings are valid captures of every container, link type and tunnel, mutated, so that they get far into the reader.
"""

from __future__ import annotations

import gzip
import lzma
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.all import ICMP, IP, TCP, UDP, Dot1Q, Ether, IPv6, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, PPPoE, Raw
from scapy.contrib.mpls import MPLS

from replay.errors import InvalidCapture
from replay.meter import metered
from replay.packets import PacketStream
from tests.replay.capture_files import CAPTURES, MACS, START_S, block, enhanced, interface, pcap, section
from tests.replay.test_tunnels import INSIDE, INSIDE_6, TUNNELS

ETHER = Ether(**MACS)
FOUR, SIX = IP(src="10.0.0.1", dst="10.0.0.2"), IPv6(src="fd00::1", dst="fd00::2")
ETHERNET = [
    *(bytes(ETHER / tunnel) for tunnel in TUNNELS.values()),
    bytes(ETHER / INSIDE),
    bytes(ETHER / Dot1Q() / INSIDE_6),
    bytes(ETHER / MPLS(label=16, s=0) / MPLS(label=17, s=1) / INSIDE),
    bytes(ETHER / PPPoE(sessionid=3) / Raw(b"\0\x21") / INSIDE),
    bytes(ETHER / SIX / IPv6ExtHdrHopByHop() / IPv6ExtHdrFragment(id=1, m=1) / UDP(sport=1, dport=2) / Raw(b"x" * 16)),
    bytes(ETHER / SIX / IPv6ExtHdrFragment(id=1, offset=2) / Raw(b"x" * 16)),
    bytes(ETHER / IP(src="10.0.0.1", dst="10.0.0.2", flags="MF", id=3) / UDP(sport=1, dport=2) / Raw(b"x" * 16)),
    bytes(ETHER / IP(src="10.0.0.1", dst="10.0.0.2", frag=2, id=3, proto=17) / Raw(b"x" * 16)),
    bytes(ETHER / FOUR / ICMP(type=3, code=1) / FOUR / UDP(sport=1, dport=2)),
    bytes(ETHER / FOUR / TCP(sport=1, dport=2, flags="S")),
]
LINK_TYPES = (0, 1, 9, 12, 50, 51, 101, 104, 108, 113, 219, 228, 229, 276, 7)
RAW = [bytes(INSIDE), bytes(INSIDE_6), b"\0\0\0\2" + bytes(INSIDE), bytes(14) + b"\x08\0" + bytes(INSIDE)]
FRAMES = st.lists(st.sampled_from([*ETHERNET, *RAW]), min_size=1, max_size=6)
PUBLIC = [path.read_bytes()[:4000] for path in sorted(CAPTURES.glob("*.pcap*"))]
MOST_CPU_S, MOST_MORE_KIB = 2.0, 32 << 10


@st.composite
def valid(draw):
    """A capture that is right."""
    frames, link_type, order = draw(FRAMES), draw(st.sampled_from(LINK_TYPES)), draw(st.sampled_from("<>"))
    kind = draw(st.integers(0, 4))
    if kind == 0 and PUBLIC:
        return draw(st.sampled_from(PUBLIC))
    if kind <= 2:
        return pcap([(n / 7, frame) for n, frame in enumerate(frames)], order, draw(st.booleans()), link_type)
    content = section(order) + interface(link_type, b"", order) + interface(1, b"", order)
    for n, frame in enumerate(frames):
        one = draw(st.sampled_from(("enhanced", "simple", "other", "section")))
        if one == "simple":
            content += block(3, len(frame).to_bytes(4, "little" if order == "<" else "big") + frame, order)
        elif one == "other":
            content += block(draw(st.integers(0, 12)), frame, order)
        elif one == "section":
            content += section(order) + interface(link_type, b"", order)
        content += enhanced(n % 2, START_S * 10**6 + n, frame, order)
    return content


PLACE = st.floats(0, 1, exclude_max=True)
WORDS = st.sampled_from([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\x10", b"\x10\0\0\0", b"\x45"])
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("write"), PLACE, st.binary(min_size=1, max_size=6) | WORDS),
        st.tuples(st.just("insert"), PLACE, st.binary(min_size=1, max_size=40)),
        st.tuples(st.just("remove"), PLACE, st.integers(1, 60)),
        st.tuples(st.just("repeat"), PLACE, st.integers(1, 400)),
        st.tuples(st.just("cut"), PLACE, st.just(0)),
    ),
    max_size=5,
)


def changed(content, changes):
    content = bytearray(content)
    for kind, place, what in changes:
        at = int(place * len(content))
        if kind == "write":
            content[at : at + len(what)] = what
        elif kind == "insert":
            content[at:at] = what
        elif kind == "remove":
            del content[at : at + what]
        elif kind == "repeat":
            content[at:at] = content[at : at + what]
        else:
            del content[at:]
    return bytes(content)


PACKINGS = st.sampled_from([None, None, None, None, None, gzip.compress, lzma.compress])
HOSTILE = st.tuples(
    st.one_of(st.builds(changed, valid(), CHANGES), st.binary(max_size=300), st.builds(changed, valid(), st.just([]))),
    PACKINGS,
    st.lists(st.tuples(st.just("write"), PLACE, st.binary(min_size=1, max_size=2)), max_size=1),
)


def survives(path, hostile, chunk_octets, inner):
    content, pack, changes = hostile
    path.write_bytes(changed(pack(content), changes) if pack else content)
    began = time.process_time()
    stream = PacketStream([path], chunk_octets=chunk_octets, inner=inner)
    try:
        for chunk in stream:
            assert np.all(np.diff(chunk.time_ns) >= 0)
            assert np.all((chunk.captured_octets >= 0) & (chunk.captured_octets <= chunk.payload_octets))
            assert np.all(chunk.payload_offset + chunk.captured_octets <= len(chunk.data))
            assert np.all(chunk.payload_offset >= 0)
            assert np.all(chunk.datagram < len(chunk))
    except InvalidCapture:
        pass
    assert all(count > 0 for count in stream.skipped.values())
    assert time.process_time() - began < MOST_CPU_S


def kib(name):
    """A figure of this process' memory: VmRSS now, VmHWM the most since it was last reset."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


@contextmanager
def little_memory():
    """What is done inside never holds more than MOST_MORE_KIB; what the test's own tools keep does not count."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = kib("VmRSS")
    yield
    assert kib("VmHWM") - before < MOST_MORE_KIB


CHUNKS = st.sampled_from([40, 500, 1 << 20, 1 << 20])
SLOWLY = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]


@settings(max_examples=300, deadline=None, suppress_health_check=SLOWLY)
@given(HOSTILE, CHUNKS, st.booleans())
def test_hostile_strings_are_survived(tmp_path, hostile, chunk_octets, inner):
    survives(tmp_path / "hostile", hostile, chunk_octets, inner)


@settings(max_examples=50, deadline=None, suppress_health_check=SLOWLY)
@given(HOSTILE, st.booleans())
def test_hostile_strings_are_metered(tmp_path, hostile, inner):
    path = tmp_path / "hostile"
    survives(path, hostile, 1 << 20, inner)
    try:
        for piece in metered(PacketStream([path], inner=inner)):
            assert piece.flows["flow_id"].is_unique
    except InvalidCapture:
        pass


@pytest.mark.slow
def test_a_hundred_thousand_hostile_strings_are_survived_in_bounded_memory(tmp_path):
    @settings(max_examples=100_000, deadline=None, suppress_health_check=SLOWLY, database=None)
    @given(HOSTILE, CHUNKS, st.booleans())
    def every(hostile, chunk_octets, inner):
        with little_memory():
            survives(tmp_path / "hostile", hostile, chunk_octets, inner)

    every()
