"""Zeek's conn.log, as tab-separated text with its #fields line or as JSON lines: one record is one whole flow.

Knows no other format. States and history letters: Zeek, base/protocols/conn. Octets are those of the IP packets where
the log has them, else the payload's. An ICMP type stands in the log's port fields.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from replay.biflow import Timeouts
from replay.columns import ACK, FIN, ICMP, ICMPV6, RST, SYN, TCP
from replay.records.content import lines
from replay.records.fields import (
    LATEST_S,
    DamagedRecord,
    address,
    json_object,
    port,
    seconds_ns,
    stamp_ns,
    text,
    whole,
)
from replay.records.piece import Details, Initiator, Piece
from replay.records.protocols import icmp_initiator, protocol_number
from replay.records.stitch import UNTIMED
from replay.records.table import Records, records

NAME = "zeek"
_PSH = 0x08
_ENDS = ("id.orig_h", "id.orig_p", "id.resp_h", "id.resp_p")
_OUTCOMES = {
    "S0": "unanswered", "SH": "unanswered", "RSTOS0": "unanswered", "REJ": "reset", "S1": "accepted", "S2": "accepted",
    "S3": "accepted", "SF": "accepted", "RSTO": "accepted", "RSTR": "accepted", "RSTRH": "accepted", "SHR": "accepted",
}  # fmt: skip
_FINISHED = frozenset(("SF", "REJ", "RSTO", "RSTR", "RSTOS0", "RSTRH"))
_APPLICATIONS = {"ssl": "tls", "http": "http", "dns": "dns", "ssh": "ssh", "redis": "redis", "postgresql": "postgres"}
_LETTERS = {
    "s": SYN, "h": SYN | ACK, "a": ACK, "d": ACK | _PSH, "f": FIN | ACK, "r": RST, "c": 0, "g": 0, "t": 0, "w": 0,
    "i": 0, "q": 0,
}  # fmt: skip
_CLOSES = {"F": "fin_forward", "f": "fin_reverse", "R": "rst_forward", "r": "rst_reverse"}


def recognises(head: bytes) -> bool:
    """Whether a file begins as a conn.log does, in either writing."""
    first = head.lstrip().split(b"\n", 1)[0]
    if first.startswith((b"#separator", b"#fields\t")):
        return b"\tid.orig_h\t" in head and b"\tconn_state" in head
    return first.startswith(b"{") and b'"id.orig_h"' in first and b'"conn_state"' in first


def pieces(path: Path, skipped: Counter[str], layout: str | None = None) -> Iterator[Piece]:  # noqa: ARG001  a port
    """The records of a log, damaged lines counted; raises InvalidCapture when the file cannot be read."""
    columns: list[str] = []
    unset = {"-", "(empty)"}
    for _, line in lines(path, skipped):
        if line.startswith("#"):
            word, *rest = line.split("\t")
            columns = rest if word == "#fields" else columns
            if word == "#unset_field" and rest:
                unset = {rest[0], "(empty)"}
            continue
        try:
            if line.startswith("{"):
                row: Mapping[str, object] = json_object(line)
            else:
                row = _row(columns, line, unset)
            yield _piece(row)
        except DamagedRecord as damage:
            skipped[damage.reason] += 1


def read(path: Path, timeouts: Timeouts = UNTIMED) -> Records:  # noqa: ARG001  Zeek's own timeouts have been applied
    """One log's flows; raises InvalidCapture as pieces does."""
    skipped: Counter[str] = Counter()
    found = list(pieces(path, skipped))
    return records(found, len(found), skipped, (NAME,))


def _row(columns: list[str], line: str, unset: set[str]) -> dict[str, object]:
    values = line.split("\t")
    if not columns or len(values) != len(columns):
        raise DamagedRecord("damaged_line")
    return {name: value for name, value in zip(columns, values, strict=True) if value not in unset}


def _piece(row: Mapping[str, object]) -> Piece:
    if "ts" not in row or any(name not in row for name in _ENDS):
        raise DamagedRecord("missing_field")
    protocol = _protocol(row)
    initiator, ports = Initiator.SOURCE, (port(row["id.orig_p"]), port(row["id.resp_p"]))
    if protocol in {ICMP, ICMPV6}:
        icmp_initiator(protocol, ports[0])
        ports = (0, 0)
    start_ns = stamp_ns(row["ts"]) if isinstance(row["ts"], str) and "T" in row["ts"] else seconds_ns(row["ts"])
    state, history = text(row.get("conn_state")), text(row.get("history"))
    forward_flags, reverse_flags, close = _flags(history) if protocol == TCP else (0, 0, "none")
    forward_packets, reverse_packets = _count(row, "orig_pkts"), _count(row, "resp_pkts")
    return Piece(
        start_ns=start_ns,
        end_ns=min(start_ns + seconds_ns(row.get("duration", 0)), LATEST_S * 1_000_000_000),
        protocol=protocol,
        source_address=address(row["id.orig_h"]),
        source_port=ports[0],
        destination_address=address(row["id.resp_h"]),
        destination_port=ports[1],
        forward_packets=forward_packets,
        forward_octets=_count(row, "orig_ip_bytes", "orig_bytes"),
        reverse_packets=reverse_packets,
        reverse_octets=_count(row, "resp_ip_bytes", "resp_bytes"),
        forward_flags=forward_flags,
        reverse_flags=reverse_flags,
        initiator=initiator,
        outcome=_OUTCOMES.get(state, "") if protocol == TCP else "",
        close=close,
        end_reason="end_of_flow" if state in _FINISHED and protocol == TCP else "",
        application=_application(row.get("service")),
        details=Details(identifier=text(row.get("uid")), state=state, history=history),
    )


def _protocol(row: Mapping[str, object]) -> int:
    """Zeek calls both ICMPs `icmp`; the address tells which."""
    number = protocol_number(row.get("proto")) if row.get("proto") != "unknown_transport" else 0
    if not number and "ip_proto" in row:
        number = whole(row["ip_proto"], 255)
    return ICMPV6 if number == ICMP and ":" in str(row["id.orig_h"]) else number


def _count(row: Mapping[str, object], *names: str) -> int:
    return next((whole(row[name]) for name in names if name in row), 0)


def _flags(history: str) -> tuple[int, int, str]:
    """The TCP flags of both directions and who closed first, from the letters (capital: the originator's)."""
    forward, reverse, close = 0, 0, "none"
    for letter in history:
        flags = _LETTERS.get(letter.lower(), 0)
        if letter.isupper():
            forward |= flags
        else:
            reverse |= flags
        if close == "none":
            close = _CLOSES.get(letter, "none")
    return forward, reverse, close


def _application(services: object) -> str:
    names = text(services).split(",")
    return next((_APPLICATIONS[name] for name in names if name in _APPLICATIONS), "")
