"""AWS VPC Flow Logs, versions 2 to 8, as text: columns by the header line, a given format, or version 2's own order.

Knows no other format. The flow's addresses are the packet's own (pkt-srcaddr, pkt-dstaddr) where the log has them;
the interface's are kept in the details where they differ. Fields: AWS, "Flow log records".
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from replay.biflow import Timeouts
from replay.columns import ICMP, ICMPV6, TCP
from replay.errors import InvalidCapture
from replay.records.content import lines
from replay.records.fields import DamagedRecord, address, port, seconds_ns, text, whole
from replay.records.piece import Details, Piece
from replay.records.stitch import UNTIMED, stitched
from replay.records.table import Records, records

NAME = "vpc"
VERSION_2 = (
    "version", "account-id", "interface-id", "srcaddr", "dstaddr", "srcport", "dstport", "protocol", "packets",
    "bytes", "start", "end", "action", "log-status",
)  # fmt: skip
NEEDED = ("srcaddr", "dstaddr", "srcport", "dstport", "protocol", "packets", "bytes", "start", "end")
_FIELD = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
_STAMP = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z")
_STATUSES = ("OK", "NODATA", "SKIPDATA")
_REFUSED = {"ACCEPT": False, "REJECT": True}


def recognises(head: bytes) -> bool:
    """Whether a file begins as this format does: with its header, or with a record of version 2."""
    words = _words(_first_line(head))
    return _is_header(words) or (len(words) == len(VERSION_2) and words[0] == "2" and words[-1] in _STATUSES)


def columns_of(written: str) -> tuple[str, ...]:
    """The columns of a format string such as `${version} ${account-id} ...`; raises ValueError for what is none."""
    names = tuple(word.removeprefix("${").removesuffix("}").replace("_", "-") for word in written.split())
    wrong = [name for name in names if not _FIELD.fullmatch(name)]
    if wrong:
        raise ValueError(f"{wrong[0]!r} in the format, expected field names such as ${{srcaddr}}")
    lacking = [name for name in NEEDED if name not in names and f"pkt-{name}" not in names]
    if lacking:
        raise ValueError(f"a format without {', '.join(lacking)}")
    return names


def pieces(path: Path, skipped: Counter[str], layout: str | None = None) -> Iterator[Piece]:
    """The records of a log; NODATA, SKIPDATA and damaged lines are counted.

    Raises InvalidCapture when the header lacks a field that a flow needs, and ValueError as columns_of does.
    """
    columns: Sequence[str] = columns_of(layout) if layout else VERSION_2
    for number, line in lines(path, skipped):
        words = _words(line)
        if "addr" in line and _is_header(words):
            if layout is None:
                columns = _from_header(path, number, line)
            continue
        try:
            yield _piece(dict(zip(columns, words, strict=True)))
        except DamagedRecord as damage:
            skipped[damage.reason] += 1
        except ValueError:
            skipped["damaged_line"] += 1


def read(path: Path, timeouts: Timeouts = UNTIMED, layout: str | None = None) -> Records:
    """One log's flows; raises InvalidCapture and ValueError as pieces does."""
    skipped: Counter[str] = Counter()
    found = list(pieces(path, skipped, layout))
    return records(stitched(found, timeouts), len(found), skipped, (NAME,))


def _from_header(path: Path, number: int, line: str) -> tuple[str, ...]:
    try:
        return columns_of(line)
    except ValueError as error:
        raise InvalidCapture(path, str(error), f"a VPC flow log header with {', '.join(NEEDED)}", number) from None


def _first_line(head: bytes) -> str:
    return head.lstrip().split(b"\n", 1)[0].decode("utf-8", "replace")


def _words(line: str) -> list[str]:
    """The fields of a line; CloudWatch's own time stamp before them is no field."""
    words = line.split()
    return words[1:] if words and _STAMP.fullmatch(words[0]) else words


def _is_header(words: Sequence[str]) -> bool:
    names = {word.replace("_", "-") for word in words}
    return bool(names & {"srcaddr", "pkt-srcaddr"}) and bool(names & {"dstaddr", "pkt-dstaddr"})


def _piece(row: dict[str, str]) -> Piece:
    status = row.get("log-status", "OK")
    if status in {"NODATA", "SKIPDATA"}:
        raise DamagedRecord(status.lower())
    action = row.get("action", "ACCEPT")
    if status != "OK" or action not in _REFUSED:
        raise DamagedRecord("damaged_line")
    if any(row.get(name, "") == "-" for name in ("protocol", "packets", "bytes", "start", "end")):
        raise DamagedRecord("missing_field")
    protocol = whole(row["protocol"], 255)
    source, interface_source = _address(row, "srcaddr")
    destination, interface_destination = _address(row, "dstaddr")
    start_ns, end_ns = seconds_ns(row["start"]), seconds_ns(row["end"])
    if end_ns < start_ns:
        raise DamagedRecord("impossible_time")
    portless = protocol in {ICMP, ICMPV6}
    return Piece(
        start_ns=start_ns,
        end_ns=end_ns,
        protocol=protocol,
        source_address=source,
        source_port=0 if portless else _port(row["srcport"]),
        destination_address=destination,
        destination_port=0 if portless else _port(row["dstport"]),
        forward_packets=whole(row["packets"]),
        forward_octets=whole(row["bytes"]),
        forward_flags=whole(row["tcp-flags"], 255) if protocol == TCP and row.get("tcp-flags", "-") != "-" else 0,
        refused=_REFUSED[action],
        details=_details(
            _told(row, "interface-id"),
            _told(row, "reject-reason"),
            _told(row, "flow-direction"),
            interface_source,
            interface_destination,
        ),
    )


@lru_cache(maxsize=1 << 12)
def _details(observer: str, reason: str, direction: str, source: str, destination: str) -> Details:
    """One object for all the records of an interface, of which there are millions."""
    return Details(observer, "", reason, "", direction, source, destination)


def _address(row: dict[str, str], name: str) -> tuple[str, str]:
    """The packet's own address, and the interface's when it is another one."""
    seen, own = row.get(name, "-"), row.get(f"pkt-{name}", "-")
    if own == "-":
        return address(seen), ""
    return address(own), "" if seen in {own, "-"} else address(seen)


def _port(written: str) -> int:
    return 0 if written == "-" else port(written)


def _told(row: dict[str, str], name: str) -> str:
    word = row.get(name, "-")
    return "" if word == "-" else text(word)
