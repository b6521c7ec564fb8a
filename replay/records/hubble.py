"""Hubble's flow events as `hubble observe -o json` prints them, one a line: each is one packet seen at one place.

Knows no other format. Hubble counts no octets: they are 0, and the packets of a flow are the events of the place that
saw most of each direction. Fields: Cilium, flow.proto.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from replay.biflow import Timeouts
from replay.columns import ACK, FIN, ICMP, ICMPV6, RST, SYN, TCP, UDP
from replay.records.content import lines
from replay.records.fields import DamagedRecord, address, json_object, mapping, port, stamp_ns, text, whole
from replay.records.piece import Details, Initiator, Piece
from replay.records.protocols import icmp_initiator
from replay.records.stitch import UNTIMED, stitched
from replay.records.table import Records, records

NAME = "hubble"
_VERDICT = re.compile(rb'"verdict"\s*:\s*"|"(?:lost_events|node_status|agent_event|debug_event)"\s*:')
_PASSED = frozenset(("FORWARDED", "REDIRECTED", "AUDIT", "TRACED", "TRANSLATED"))
_DROPPED = frozenset(("DROPPED", "ERROR"))
_FLAGS = {"FIN": FIN, "SYN": SYN, "RST": RST, "PSH": 0x08, "ACK": ACK, "URG": 0x20, "ECE": 0x40, "CWR": 0x80}
_PROTOCOLS = {"TCP": TCP, "UDP": UDP, "SCTP": 132, "ICMPv4": ICMP, "ICMPv6": ICMPV6}


def recognises(head: bytes) -> bool:
    """Whether a file begins as Hubble's JSON does, bare or each flow inside an object `flow`."""
    first = head.lstrip().split(b"\n", 1)[0]
    return first.startswith(b"{") and _VERDICT.search(first) is not None and b'"event_type":"' not in first


def pieces(path: Path, skipped: Counter[str], layout: str | None = None) -> Iterator[Piece]:  # noqa: ARG001  a port
    """The packets of a log; events that are no packet and damaged lines are counted.

    Raises InvalidCapture when the file cannot be read.
    """
    for _, line in lines(path, skipped):
        try:
            document = json_object(line)
            if "flow" in document:
                yield _piece(mapping(document["flow"]))
            elif "verdict" in document:
                yield _piece(document)
            else:
                skipped["other_event"] += 1
        except DamagedRecord as damage:
            skipped[damage.reason] += 1


def read(path: Path, timeouts: Timeouts = UNTIMED) -> Records:
    """One log's flows; raises InvalidCapture as pieces does."""
    skipped: Counter[str] = Counter()
    found = list(pieces(path, skipped))
    return records(stitched(found, timeouts), len(found), skipped, (NAME,))


def _piece(flow: dict[str, object]) -> Piece:
    kind = text(flow.get("Type"))
    if kind in {"L7", "SOCK"}:
        raise DamagedRecord("application_event" if kind == "L7" else "socket_event")
    verdict = text(flow.get("verdict"))
    if verdict not in _PASSED | _DROPPED:
        raise DamagedRecord("unknown_verdict")
    network = mapping(flow.get("IP"))
    protocol, layer = _layer_4(flow)
    initiator = _initiator(flow)
    ports, flags = (0, 0), 0
    if protocol in {ICMP, ICMPV6}:
        asked = icmp_initiator(protocol, whole(layer.get("type", 0), 255))
        initiator = asked if initiator is Initiator.UNKNOWN else initiator
    else:
        ports = port(layer.get("source_port")), port(layer.get("destination_port"))
        seen = mapping(layer.get("flags") or {})
        flags = sum(bit for name, bit in _FLAGS.items() if seen.get(name) is True) if protocol == TCP else 0
    at_ns = stamp_ns(flow.get("time"))
    dropped = verdict in _DROPPED
    return Piece(
        start_ns=at_ns,
        end_ns=at_ns,
        protocol=protocol,
        source_address=address(network.get("source")),
        source_port=ports[0],
        destination_address=address(network.get("destination")),
        destination_port=ports[1],
        forward_packets=1,
        forward_octets=0,
        forward_flags=flags,
        initiator=initiator,
        refused=dropped,
        details=Details(
            observer=_place(flow),
            identifier=text(flow.get("uuid")),
            state=text(flow.get("drop_reason_desc")) if dropped else "",
            flow_direction=text(flow.get("traffic_direction")).lower(),
        ),
    )


def _layer_4(flow: dict[str, object]) -> tuple[int, dict[str, object]]:
    for name, inner in mapping(flow.get("l4")).items():
        if name in _PROTOCOLS:
            return _PROTOCOLS[name], mapping(inner)
    raise DamagedRecord("unknown_protocol")


def _initiator(flow: dict[str, object]) -> Initiator:
    """From is_reply; a dropped packet's false says only that no connection is known, so it is not believed."""
    is_reply = flow.get("is_reply")
    if is_reply is True:
        return Initiator.DESTINATION
    believed = is_reply is False and flow.get("verdict") not in _DROPPED
    return Initiator.SOURCE if believed else Initiator.UNKNOWN


def _place(flow: dict[str, object]) -> str:
    point = text(flow.get("trace_observation_point")) or text(flow.get("verdict"))
    return f"{text(flow.get('node_name'))}/{point}"
