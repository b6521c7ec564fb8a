"""The one meter: packets to flows, messages and segments, of production captures and the shadow's taps alike.

Knows no file format (replay.packets reads), no topology and no policy. A packet captured twice (two points of a
mirror) is metered twice: in TCP the second copy shows as a retransmission; removing such copies is not this
issue's.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pandas as pd

from replay.biflow import Timeouts
from replay.columns import SYN, TCP, Int64, Packets, UInt8
from replay.compiled import numbering
from replay.first_words import COLLECTED, HEARD
from replay.flow_table import Ended, FlowTable
from replay.message import Messages, messages
from replay.outcome import closes, end_reasons, grades, outcomes, turned
from replay.packets import PacketStream
from replay.payload import PayloadStore, Recognition, agreed, port_application
from replay.rows import Biflows, Rows, Waiting
from replay.spool import Spool
from replay.stream import Positions, positions

__all__ = ["PAUSE_NS", "Metered", "PayloadStore", "StreamMeter", "Timeouts", "meter", "metered", "read_traffic"]

PAUSE_NS = 200_000_000
UNTIMED = Timeouts()
CHUNK_OCTETS = 16 << 20
"""Large enough that a chunk's own work is lost in its packets', small enough that its columns stay in the cache."""


@dataclass(frozen=True)
class Metered:
    """What the meter made of packets: the tables of design section 5, the payloads, and what was left out and why.

    `segments` has a row per packet of a flow, by flow and time: flow_id, direction (0 forward, 1 reverse),
    time_ns, stream_offset, octets (payload), tcp_flags, retransmission (no new byte, or a SYN or FIN again),
    hop_limit. `packets` counts the decoded packets, ICMP errors included. `flow_id` is a categorical in
    messages and segments. `numbers` are the flows' places in the stream, by first packet.
    """

    flows: pd.DataFrame
    messages: pd.DataFrame
    segments: pd.DataFrame
    payloads: PayloadStore
    packets: int
    skipped: Counter[str]
    numbers: Int64


def read_traffic(
    paths: Sequence[Path], timeouts: Timeouts = UNTIMED, *, flows_only: bool = False, inner: bool = False
) -> Metered:
    """Read and meter captures in bounded memory, but for the tables that come out.

    With flows_only there are no messages, segments and payloads; with inner, the flows are those inside of tunnels.
    Raises InvalidCapture as PacketStream does.
    """
    stream = PacketStream(paths, chunk_octets=CHUNK_OCTETS, inner=inner)
    whole = _at_once(stream, StreamMeter(timeouts, flows_only=flows_only))
    return replace(whole, skipped=stream.skipped + whole.skipped)


def meter(packets: Packets, timeouts: Timeouts = UNTIMED, pause_ns: int = PAUSE_NS) -> Metered:
    """Meter packets into biflows, their messages and segments; a side's silence above pause_ns begins a new message.

    Priority is `normal` and class `other`: what needs policy is added by others.
    """
    return _at_once([packets], StreamMeter(timeouts, pause_ns))


def _at_once(chunks: Iterable[Packets], stream: StreamMeter) -> Metered:
    """All flows of a stream, which are put into tables when it has ended."""
    packets, ended = 0, []
    for chunk in chunks:
        packets += len(chunk)
        ended.append(stream.add(chunk))
    return stream.told(Ended.joined([*ended, stream.end()]), packets)


def metered(
    chunks: Iterable[Packets], timeouts: Timeouts = UNTIMED, pause_ns: int = PAUSE_NS, *, flows_only: bool = False
) -> Iterator[Metered]:
    """The flows of a stream as they end, a piece for every chunk and one for the rest."""
    stream = StreamMeter(timeouts, pause_ns, flows_only=flows_only)
    for packets in chunks:
        yield stream.feed(packets)
    yield stream.finish()


class StreamMeter:
    """Chunks of packets in, tables of the flows that have ended out.

    It remembers open flows (by timeouts, see there) and, unless flows_only, their packets without payload. All
    pieces joined are the same for any cutting into chunks, as long as no packet comes in a later chunk than an
    earlier time asks for.
    """

    def __init__(self, timeouts: Timeouts = UNTIMED, pause_ns: int = PAUSE_NS, *, flows_only: bool = False) -> None:
        self._table = FlowTable(numbering(), timeouts)
        self._pause_ns, self._flows_only = pause_ns, flows_only
        self._waiting, self._spool, self._packets = Waiting(), Spool(), 0
        self._nothing: Metered | None = None

    def feed(self, packets: Packets) -> Metered:
        """Add the next chunk, in the order of time; returns the flows that ended."""
        return self._piece(self.add(packets), len(packets))

    def finish(self) -> Metered:
        """The flows that are open still; the stream has ended."""
        return self._piece(self.end(), 0)

    def add(self, packets: Packets) -> Ended:
        """Add the next chunk without making tables of the flows that ended; `told` does that."""
        assigned, ended = self._table.feed(packets)
        if not self._flows_only and len(assigned.row):
            begin = int(packets.payload_offset.min())
            until = int((packets.payload_offset + packets.captured_octets).max())
            at = self._spool.add(packets.data[begin:until]) - begin
            self._waiting.add(Rows.of(packets, assigned, self._packets, at))
        self._packets += len(packets)
        return ended

    def end(self) -> Ended:
        """The flows that are open still, without making tables of them."""
        return self._table.finish()

    def _piece(self, ended: Ended, packets: int) -> Metered:
        if not len(ended) and self._nothing is not None:
            skipped, self._table.skipped = self._table.skipped, Counter()
            return replace(self._nothing, packets=packets, skipped=skipped)
        piece = self.told(ended, packets)
        if not len(ended):
            self._nothing = piece
        return piece

    def told(self, ended: Ended, packets: int) -> Metered:
        """The tables of flows that ended, of this many packets; their packets are let go."""
        flows = _flows(ended, self._table.timeouts)
        names = flows["flow_id"].tolist()
        numbers = ended.records["number"]
        grouped = Biflows.of(self._waiting.pop(numbers), numbers, ended.records["forward"])
        placed, pieces = positions(grouped)
        said, payloads = messages(grouped, pieces, self._pause_ns, self._spool)
        self._spool.trim(self._waiting.first_at(self._spool.end()))
        skipped, self._table.skipped = self._table.skipped, Counter()
        return Metered(
            flows=flows,
            messages=_messages(said, names),
            segments=_segments(grouped, placed, names),
            payloads=payloads,
            packets=packets,
            skipped=skipped,
            numbers=numbers,
        )


def joined(pieces: Sequence[Metered]) -> Metered:
    """The pieces of one stream as one, its flows in the order of their first packets."""
    full = [piece for piece in pieces if len(piece.flows)] or list(pieces[-1:])
    packets, skipped = sum(piece.packets for piece in pieces), Counter[str]()
    for piece in pieces:
        skipped.update(piece.skipped)
    if len(full) == 1:
        return replace(full[0], packets=packets, skipped=skipped)
    numbers = np.concatenate([piece.numbers for piece in full])
    order = np.argsort(numbers, kind="stable")
    flows = pd.concat([piece.flows for piece in full], ignore_index=True).iloc[order].reset_index(drop=True)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    names = pd.Index(flows["flow_id"].tolist(), dtype="str")
    begins = np.cumsum([0] + [len(piece.flows) for piece in full])
    refs = np.cumsum([0] + [len(piece.payloads) for piece in full])

    def table(name: str) -> pd.DataFrame:
        parts = []
        for piece, begin, ref in zip(full, begins.tolist(), refs.tolist(), strict=False):
            part: pd.DataFrame = getattr(piece, name)
            codes = rank[begin + part["flow_id"].cat.codes.to_numpy().astype(np.int64)]
            changed = {"flow_id": codes}
            if name == "messages":
                changed["payload_ref"] = np.where(part["payload_ref"] < 0, -1, part["payload_ref"] + ref)
            parts.append(part.assign(**changed))
        whole = pd.concat(parts, ignore_index=True).sort_values("flow_id", kind="stable", ignore_index=True)
        return whole.assign(flow_id=pd.Categorical.from_codes(whole["flow_id"], categories=names))

    payloads = PayloadStore.joined([piece.payloads for piece in full])
    return Metered(flows, table("messages"), table("segments"), payloads, packets, skipped, numbers[order])


def _flows(ended: Ended, timeouts: Timeouts) -> pd.DataFrame:
    records, ends, count = ended.records, ended.ends, len(ended)
    forward = records["forward"].astype(np.intp)
    place = np.arange(count)
    packets, octets, facts = (turned(ended, name) for name in ("packets", "octets", "facts"))
    application, label = _applications(ended)
    columns = {
        "start_ns": records["start_ns"],
        "end_ns": records["end_ns"],
        "protocol": ends.protocol.astype(np.int64),
        "source_address": _texts(ends.address[place, forward], ends.version),
        "source_port": ends.port[place, forward].astype(np.int64),
        "destination_address": _texts(ends.address[place, 1 - forward], ends.version),
        "destination_port": ends.port[place, 1 - forward].astype(np.int64),
        "forward_packets": packets[0],
        "reverse_packets": packets[1],
        "forward_octets": octets[0],
        "reverse_octets": octets[1],
        "tcp_flags_forward": (facts[0] & 0xFF).astype(np.int64),
        "tcp_flags_reverse": (facts[1] & 0xFF).astype(np.int64),
        "end_reason": end_reasons(ended),
        "application": pd.array(application, dtype="str"),
        "label": pd.array(label, dtype="str"),
        "outcome": outcomes(ended),
        "close": closes(ended),
        "grade": grades(ended),
        "priority": pd.array(["normal"], dtype="str").take(np.zeros(count, np.int64)),
        "flow_class": pd.array(["other"], dtype="str").take(np.zeros(count, np.int64)),
    }
    table = pd.DataFrame(columns)
    since = None if timeouts.forget_ns is None else records["start_ns"]
    table.insert(0, "flow_id", pd.Series(_names(table, records["ordinal"], since), dtype="str"))
    return table


def _applications(ended: Ended) -> tuple[list[str], list[str]]:
    """What each flow speaks and whom it asks for, from the first words of both ends; a port is the last resort."""
    records, ends = ended.records, ended.ends
    forward = records["forward"].tolist()
    opened = (((records["facts"][:, 0] | records["facts"][:, 1]) & SYN) != 0) | (ends.protocol != TCP)
    silent = ~opened | (turned(ended, "words")[0] == 0)
    ports = ends.port[np.arange(len(ended)), 1 - records["forward"].astype(np.intp)]
    known: dict[tuple[int, int], str] = {}
    application, label = [""] * len(ended), [""] * len(ended)
    for place in np.flatnonzero(silent).tolist():
        key = (int(ends.protocol[place]), int(ports[place]))
        if key not in known:
            known[key] = port_application(*key)
        application[place] = known[key]
    for place in np.flatnonzero(opened & (records["words"] == COLLECTED).any(axis=1)).tolist():
        lane = int(records["number"][place]) * 2
        asked, answered = ended.said.get(lane + forward[place]), ended.said.get(lane + 1 - forward[place])
        heard = asked is not None or records["words"][place, forward[place]] == HEARD
        found: Recognition = agreed(
            int(ends.protocol[place]),
            int(ports[place]),
            asked[0] if asked else None,
            answered[1] if answered else None,
            heard=heard,
        )
        application[place], label[place] = found.application, found.label
    return application, label


def _texts(addresses: UInt8, version: UInt8) -> pd.api.extensions.ExtensionArray:
    known: dict[tuple[bytes, int], int] = {}
    raw = np.ascontiguousarray(addresses).tobytes()
    keys = zip((raw[at : at + 16] for at in range(0, len(raw), 16)), version.tolist(), strict=True)
    which = [known.setdefault(key, len(known)) for key in keys]
    texts = pd.array([_text(*key) for key in known], dtype="str")
    return texts.take(np.array(which, np.int64))


def _text(address: bytes, version: int) -> str:
    if version == 4:
        return socket.inet_ntop(socket.AF_INET, address[12:])
    return socket.inet_ntop(socket.AF_INET6, address)


def _names(table: pd.DataFrame, ordinal: Int64, since: Int64 | None) -> list[str]:
    """12 hexadecimal digits from the five-tuple and its ordinal: the same capture gives the same names.

    A meter that forgets five-tuples counts their flows anew, so there `since` goes into the name.
    """
    columns = [table[name].tolist() for name in _TUPLE] + [ordinal.tolist()]
    said = [f"{a}|{b}|{c}|{d}|{e}|{n}" for a, b, c, d, e, n in zip(*columns, strict=True)]
    if since is not None:
        said = [f"{text}|{at}" for text, at in zip(said, since.tolist(), strict=True)]
    return [blake2b(text.encode(), digest_size=6).hexdigest() for text in said]


_TUPLE = ("protocol", "source_address", "source_port", "destination_address", "destination_port")


def _messages(said: Messages, names: list[str]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "flow_id": pd.Categorical.from_codes(said.flow, categories=pd.Index(names, dtype="str")),
            "sequence": said.sequence,
            "offset_ns": said.offset_ns,
            "gap_ns": said.gap_ns,
            "direction": said.direction.astype(np.int64),
            "octets": said.octets,
            "payload_ref": said.payload_ref,
        }
    )


def _segments(grouped: Biflows, placed: Positions, names: list[str]) -> pd.DataFrame:
    rows = grouped.rows
    return pd.DataFrame(
        {
            "flow_id": pd.Categorical.from_codes(grouped.flow, categories=pd.Index(names, dtype="str")),
            "direction": grouped.direction,
            "time_ns": rows.time_ns,
            "stream_offset": placed.stream_offset,
            "octets": rows.payload_octets.astype(np.int64),
            "tcp_flags": rows.tcp_flags,
            "retransmission": placed.retransmission,
            "hop_limit": rows.hop_limit,
        }
    )
