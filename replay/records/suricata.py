"""Suricata's EVE output, one JSON object a line: its `flow` events, each one whole flow. Knows no other format.

Octets are those of the whole packets, link headers included, as Suricata counts them. Events of other types are
counted. Fields: Suricata, "Eve JSON format", event type flow.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from replay.biflow import Timeouts
from replay.columns import ICMP, ICMPV6, TCP
from replay.records.content import lines
from replay.records.fields import DamagedRecord, address, json_object, mapping, port, stamp_ns, text, whole
from replay.records.piece import Details, Initiator, Piece
from replay.records.protocols import icmp_initiator, protocol_number
from replay.records.stitch import UNTIMED
from replay.records.table import Records, records

NAME = "suricata"
_HEXADECIMAL = re.compile(r"[0-9a-fA-F]{1,2}")
_EVENT = re.compile(rb'"event_type"\s*:\s*"')
_END_REASONS = {"timeout": "idle", "forced": "forced", "shutdown": "forced", "tcp_reuse": "end_of_flow"}
_APPLICATIONS = {"http": "http", "tls": "tls", "dns": "dns", "ssh": "ssh", "pgsql": "postgres", "redis": "redis"}


def recognises(head: bytes) -> bool:
    """Whether a file begins as an EVE log does, with whatever event."""
    first = head.lstrip().split(b"\n", 1)[0]
    return first.startswith(b"{") and _EVENT.search(first) is not None and b'"timestamp"' in first


def pieces(path: Path, skipped: Counter[str], layout: str | None = None) -> Iterator[Piece]:  # noqa: ARG001  a port
    """The flow events of a log; other events and damaged lines are counted.

    Raises InvalidCapture when the file cannot be read.
    """
    for _, line in lines(path, skipped):
        try:
            yield _piece(json_object(line))
        except DamagedRecord as damage:
            skipped[damage.reason] += 1


def read(path: Path, timeouts: Timeouts = UNTIMED) -> Records:  # noqa: ARG001  Suricata's own have been applied
    """One log's flows; raises InvalidCapture as pieces does."""
    skipped: Counter[str] = Counter()
    found = list(pieces(path, skipped))
    return records(found, len(found), skipped, (NAME,))


def _piece(event: dict[str, object]) -> Piece:
    if event.get("event_type") != "flow":
        raise DamagedRecord("other_event" if "event_type" in event else "missing_field")
    flow = mapping(event.get("flow"))
    protocol = protocol_number(event.get("proto"))
    tcp = mapping(event.get("tcp", {})) if protocol == TCP else {}
    portless = protocol in {ICMP, ICMPV6}
    if portless and "icmp_type" in event:
        icmp_initiator(protocol, whole(event["icmp_type"], 255))
    start_ns = stamp_ns(flow.get("start"))
    end_ns = stamp_ns(flow.get("end", flow.get("start")))
    state, reason = text(flow.get("state")), text(flow.get("reason"))
    closed = text(tcp.get("state")) == "closed"
    return Piece(
        start_ns=start_ns,
        end_ns=max(start_ns, end_ns),
        protocol=protocol,
        source_address=address(event.get("src_ip")),
        source_port=0 if portless else port(event.get("src_port", 0)),
        destination_address=address(event.get("dest_ip")),
        destination_port=0 if portless else port(event.get("dest_port", 0)),
        forward_packets=whole(flow.get("pkts_toserver", 0)),
        forward_octets=whole(flow.get("bytes_toserver", 0)),
        reverse_packets=whole(flow.get("pkts_toclient", 0)),
        reverse_octets=whole(flow.get("bytes_toclient", 0)),
        forward_flags=_flags(tcp.get("tcp_flags_ts")),
        reverse_flags=_flags(tcp.get("tcp_flags_tc")),
        initiator=Initiator.SOURCE,
        outcome="denied" if flow.get("action") == "drop" else "",
        end_reason="end_of_flow" if closed else _END_REASONS.get(reason, ""),
        application=_APPLICATIONS.get(text(event.get("app_proto")), ""),
        details=Details(observer=text(event.get("host")), identifier=_identifier(event.get("flow_id")), state=state),
    )


def _flags(written: object) -> int:
    return int(written, 16) if isinstance(written, str) and _HEXADECIMAL.fullmatch(written) else 0


def _identifier(written: object) -> str:
    return str(written)[:32] if isinstance(written, int) else text(written)
