"""NetFlow v5, v9 and IPFIX as nfcapd stores them, read by the program nfdump. Knows no packet of those protocols.

nfdump is started without a shell, told that the zone is UTC, and ended when it has not finished in time. Biflows keep
their directions (RFC 5103); the rest are halves and stretches to be stitched. Times have ms grain.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from replay.biflow import Timeouts
from replay.columns import ACK, FIN, ICMP, ICMPV6, RST, SYN, TCP
from replay.errors import InvalidCapture
from replay.records.content import is_packed, octets
from replay.records.fields import DamagedRecord, address, port, stamp_ns, text, whole
from replay.records.piece import Details, Initiator, Piece
from replay.records.protocols import icmp_initiator, protocol_number
from replay.records.stitch import UNTIMED, stitched
from replay.records.table import Records, records

NAME = "nfdump"
MAGICS = (b"\x0c\xa5", b"\xa5\x0c")
LIMIT_S = 600.0
EXPECTED = "a file of nfcapd that nfdump can read"
_LARGEST_OBJECT = 1 << 16
_FLAGS = {"F": FIN, "S": SYN, "R": RST, "P": 0x08, "A": ACK, "U": 0x20, "E": 0x40, "C": 0x80}
_DIRECTIONS = {1: Initiator.SOURCE, 2: Initiator.DESTINATION}
_END_REASONS = {1: "idle", 2: "active", 3: "end_of_flow", 4: "forced", 5: "forced"}
_REFUSED_STATUSES = range(128, 192)


def recognises(head: bytes) -> bool:
    """Whether a file begins as nfcapd's do."""
    return head.startswith(MAGICS)


def pieces(
    path: Path,
    skipped: Counter[str],
    layout: str | None = None,  # noqa: ARG001  a port
    limit_s: float = LIMIT_S,
) -> Iterator[Piece]:
    """The records of an nfcapd file; damaged ones are counted.

    Raises InvalidCapture when nfdump is not installed, cannot read the file or takes longer than `limit_s`.
    """
    for row in _rows(path, skipped, limit_s):
        try:
            yield _piece(row)
        except DamagedRecord as damage:
            skipped[damage.reason] += 1


def read(path: Path, timeouts: Timeouts = UNTIMED, limit_s: float = LIMIT_S) -> Records:
    """One file's flows; raises InvalidCapture as pieces does."""
    skipped: Counter[str] = Counter()
    found = list(pieces(path, skipped, limit_s=limit_s))
    return records(stitched(found, timeouts), len(found), skipped, (NAME,))


def _rows(path: Path, skipped: Counter[str], limit_s: float) -> Iterator[dict[str, object]]:
    program = shutil.which("nfdump")
    if program is None:
        raise InvalidCapture(path, "a NetFlow file, and no program nfdump to read it", "the Debian package nfdump")
    with _plain(path, skipped) as file, tempfile.TemporaryFile() as said:
        argv = (program, "-r", str(file.absolute()), "-o", "json")
        environment = {**os.environ, "TZ": "UTC"}
        with subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=said, stdin=subprocess.DEVNULL, env=environment
        ) as process:
            assert process.stdout is not None
            overdue = threading.Event()

            def end() -> None:
                overdue.set()
                process.kill()

            timer = threading.Timer(limit_s, end)
            timer.start()
            count = 0
            try:
                for row in _objects(process.stdout, skipped):
                    count += 1
                    yield row
                status = process.wait()
            finally:
                timer.cancel()
                process.kill()
        if overdue.is_set():
            raise InvalidCapture(path, f"a NetFlow file that took nfdump longer than {limit_s:g} s", EXPECTED)
        if status and not count:
            said.seek(0)
            why = said.read(500).decode("utf-8", "replace").strip().split("\n")[0]
            raise InvalidCapture(path, f"a NetFlow file at which nfdump ended with status {status}: {why}", EXPECTED)
        if status:
            skipped["truncated_file"] += 1


@contextmanager
def _plain(path: Path, skipped: Counter[str]) -> Iterator[Path]:
    """The file itself, or an unpacked copy of it for as long as it is read."""
    if not is_packed(path):
        yield path
        return
    with tempfile.NamedTemporaryFile(prefix="testbed-nfcapd-") as copy:
        for step in octets(path, skipped):
            copy.write(step)
        copy.flush()
        yield Path(copy.name)


def _objects(output: IO[bytes], skipped: Counter[str]) -> Iterator[dict[str, object]]:
    """The objects of nfdump's JSON list one at a time, from `{` to a `}` that begins a line or ends this one."""
    held: list[bytes] = []
    size = 0
    for line in output:
        if line.startswith(b"{"):
            held, size = [], 0
        size += len(line)
        if size <= _LARGEST_OBJECT:
            held.append(line)
        on_one_line = line.startswith(b"{") and line.rstrip(b",] \r\n").endswith(b"}")
        if line.startswith(b"}") or on_one_line:
            try:
                document = json.loads(b"".join(held).rstrip(b",] \r\n"))
            except (ValueError, RecursionError):
                skipped["damaged_record"] += 1
            else:
                if isinstance(document, dict):
                    yield document
            held, size = [], 0


def _piece(row: dict[str, object]) -> Piece:
    if row.get("type", "FLOW") != "FLOW":
        raise DamagedRecord("other_event")
    protocol = protocol_number(row.get("proto"))
    initiator = _DIRECTIONS.get(_small(row, "biFlowDir"), Initiator.UNKNOWN)
    ports = (0, 0)
    if protocol in {ICMP, ICMPV6}:
        if "icmp_type" in row:
            asked = icmp_initiator(protocol, whole(row["icmp_type"], 255))
            initiator = asked if initiator is Initiator.UNKNOWN else initiator
    else:
        ports = port(row.get("src_port", 0)), port(row.get("dst_port", 0))
    start_ns, end_ns = stamp_ns(row.get("first")), stamp_ns(row.get("last"))
    return Piece(
        start_ns=start_ns,
        end_ns=max(start_ns, end_ns),
        protocol=protocol,
        source_address=address(row.get("src4_addr", row.get("src6_addr"))),
        source_port=ports[0],
        destination_address=address(row.get("dst4_addr", row.get("dst6_addr"))),
        destination_port=ports[1],
        forward_packets=whole(row.get("in_packets", 0)),
        forward_octets=whole(row.get("in_bytes", 0)),
        reverse_packets=whole(row.get("out_packets", 0)),
        reverse_octets=whole(row.get("out_bytes", 0)),
        forward_flags=_flags(row.get("tcp_flags")) if protocol == TCP else 0,
        initiator=initiator,
        refused=_small(row, "fwd_status") in _REFUSED_STATUSES,
        end_reason=_END_REASONS.get(_small(row, "flowEndReason"), ""),
        details=Details(
            observer=_exporter(row),
            interface_source_address=_translated(row, "src"),
            interface_destination_address=_translated(row, "dst"),
        ),
    )


def _small(row: dict[str, object], name: str) -> int:
    value = row.get(name, 0)
    return value if isinstance(value, int) and 0 <= value < 256 else 0


def _flags(written: object) -> int:
    return sum(bit for letter, bit in _FLAGS.items() if isinstance(written, str) and letter in written)


def _exporter(row: dict[str, object]) -> str:
    router = text(row.get("ip4_router", row.get("ip6_router", "")))
    return router or f"exporter {_small(row, 'export_sysid')}"


def _translated(row: dict[str, object], end: str) -> str:
    written = row.get(f"{end}4_xlt_ip", row.get(f"{end}6_xlt_ip"))
    return address(written) if written is not None else ""
