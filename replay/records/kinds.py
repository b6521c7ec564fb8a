"""Which formats of flow records there are, which one a file is, and many files' flows as one table.

Knows each format by its four names (NAME, recognises, pieces, whether its records are whole flows), nothing inside.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from replay.biflow import Timeouts
from replay.errors import InvalidCapture
from replay.records import hubble, nfdump, suricata, vpc, zeek
from replay.records.content import head
from replay.records.piece import Piece
from replay.records.stitch import UNTIMED, stitched
from replay.records.table import Records, records


class Pieces(Protocol):
    """The records of one file; `layout` is a format string, for a format whose columns are not fixed."""

    def __call__(self, path: Path, skipped: Counter[str], layout: str | None = None) -> Iterator[Piece]: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Kind:
    """A format: `whole` says that one record is one flow, so that nothing is to be stitched."""

    name: str
    title: str
    whole: bool
    recognises: Callable[[bytes], bool]
    pieces: Pieces


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(nfdump.NAME, "NetFlow or IPFIX stored by nfcapd", False, nfdump.recognises, nfdump.pieces),
        Kind(zeek.NAME, "Zeek conn.log", True, zeek.recognises, zeek.pieces),
        Kind(suricata.NAME, "Suricata EVE", True, suricata.recognises, suricata.pieces),
        Kind(hubble.NAME, "Hubble JSON", False, hubble.recognises, hubble.pieces),
        Kind(vpc.NAME, "AWS VPC Flow Logs", False, vpc.recognises, vpc.pieces),
    )
}
EXPECTED = "flow records: " + ", ".join(f"{kind.title} ({kind.name})" for kind in KINDS.values())
_CAPTURE_MAGICS = (
    b"\xa1\xb2\xc3\xd4", b"\xd4\xc3\xb2\xa1", b"\xa1\xb2\x3c\x4d", b"\x4d\x3c\xb2\xa1", b"\xa1\xb2\xcd\x34",
    b"\x34\xcd\xb2\xa1", b"\x0a\x0d\x0d\x0a",
)  # fmt: skip


def is_capture(path: Path) -> bool:
    """Whether a file begins as pcap or pcapng does; raises InvalidCapture when it is empty or cannot be read."""
    return head(path).startswith(_CAPTURE_MAGICS)


def kind_named(name: str) -> Kind:
    """The format of that name; raises ValueError that lists the choices."""
    if name not in KINDS:
        raise ValueError(f"no record format {name!r}; have: {', '.join(KINDS)}")
    return KINDS[name]


def kind_of(path: Path) -> Kind:
    """The format of a file by its content; raises InvalidCapture, listing the choices, when it is none of them."""
    begin = head(path)
    for kind in KINDS.values():
        if kind.recognises(begin):
            return kind
    raise InvalidCapture(path, f"a file that begins with {begin[:40]!r}", EXPECTED)


def read_flow_records(
    paths: Sequence[Path], timeouts: Timeouts = UNTIMED, layout: str | None = None, kind: str | None = None
) -> Records:
    """Read files of flow records, each by its content unless `kind` names the format; flows may span the files.

    `layout` is the format string of VPC flow logs without a header, and makes a file that nothing else recognises one.
    Raises InvalidCapture for a file that is none, ValueError for a kind or layout that does not exist.
    """
    skipped: Counter[str] = Counter()
    by_kind: dict[str, list[Piece]] = {}
    for path in paths:
        chosen = kind_named(kind) if kind else _by_content(path, layout)
        by_kind.setdefault(chosen.name, []).extend(
            chosen.pieces(path, skipped, layout if chosen.name == "vpc" else None)
        )
    flows: list[Piece] = []
    for name, found in by_kind.items():
        flows += found if KINDS[name].whole else stitched(found, timeouts)
    return records(flows, sum(map(len, by_kind.values())), skipped, tuple(by_kind))


def _by_content(path: Path, layout: str | None) -> Kind:
    try:
        return kind_of(path)
    except InvalidCapture:
        if layout is None:
            raise
        head(path)
        return KINDS[vpc.NAME]
