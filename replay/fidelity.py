"""Is what was replayed what was captured?  Two metered captures are compared flow by flow, message by message.

Pure: tables in, a report out. It knows no file, no socket and no lab. Equal means: the same five-tuple opened by the
same end, met with the same outcome, the same messages (direction, octets, payload) in the same order, closed the same
way. What the player changes on purpose is undone exactly here and counted, never overlooked: the shadow header of an
HTTP request, and the reset that ends a flow which had no end in the capture, when its window is over or its five-tuple
is opened again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

import numpy as np
import pandas as pd

from replay.columns import RST, TCP
from replay.schedule import ECHO, FORWARD, FlowScript, Payloads

PATH_NS = 1_000_000
"""What the network and the wake-up for an arrival may add to a gap, beyond the player's own lateness."""

_SHADOW_HEADER = b"X-Shadow-Flow: "


class Kind(Enum):
    """What differs; a flow is told by the first of these that applies."""

    MISSING = "missing flow"
    EXTRA = "extra flow"
    TURNED = "opened by the other end"
    OUTCOME = "outcome"
    ORDER = "order of messages"
    DIRECTION = "direction of a message"
    SIZE = "size of a message"
    FEWER = "missing message"
    MORE = "extra message"
    PAYLOAD = "payload of a message"
    CLOSE = "close"


@dataclass(frozen=True, slots=True)
class Difference:
    """The first thing in which a flow differs; `sequence` is the message's, -1 where none is meant."""

    flow_id: str
    flow: str
    grade: str
    kind: Kind
    sequence: int
    expected: str
    found: str


@dataclass(frozen=True, slots=True)
class Recording:
    """A metered capture: the meter's tables and payload store."""

    flows: pd.DataFrame
    messages: pd.DataFrame
    segments: pd.DataFrame
    payloads: Payloads


@dataclass(frozen=True, slots=True)
class Replayed:
    """What the player was to do: the scripts, how fast, when it began and when its window was to be over (ns).

    `lateness_ns` is by flow what the player itself says of its worst event: the error that it states for the gaps.
    """

    scripts: Mapping[str, FlowScript]
    speed: float
    began_ns: int
    over_ns: int
    lateness_ns: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Fidelity:
    """The report.

    `flows`: flow_id, grade, outcome, equal, messages, octets, start_error_ns (of each flow that was to be replayed).
    `gaps`: flow_id, sequence, direction, captured_ns (think time, divided by the speed), replayed_ns, error_ns,
    stated_ns (what the player owned to, and PATH_NS), of the flows that are equal. `explained` counts what the player
    changes on purpose and was undone here, `remarks` what the network did that no message shows.
    """

    flows: pd.DataFrame
    gaps: pd.DataFrame
    differences: tuple[Difference, ...]
    explained: Mapping[str, int] = field(default_factory=dict)
    remarks: Mapping[str, int] = field(default_factory=dict)

    def of_grade(self, grade: str) -> tuple[int, int]:
        """How many flows of a grade are equal, and how many there are."""
        rows = self.flows[self.flows["grade"] == grade]
        return int(rows["equal"].sum()), len(rows)

    @property
    def gaps_as_stated(self) -> float:
        """The share of gaps that stray no further than was stated; 1 where there is none."""
        if not len(self.gaps):
            return 1.0
        return float((self.gaps["error_ns"].abs() <= self.gaps["stated_ns"]).mean())

    @property
    def faithful(self) -> bool:
        """Whether there are flows, every one of grade `payload` is equal, and none is there that was not captured."""
        equal, there = self.of_grade("payload")
        extra = any(difference.kind is Kind.EXTRA for difference in self.differences)
        return bool(len(self.flows)) and equal == there and not extra


def compared(captured: Recording, again: Recording, replayed: Replayed, addresses: Iterable[str]) -> Fidelity:
    """Compare the flows that were replayed from `addresses` with what was captured of them at that end.

    Flows in `again` that others began are not looked at. Only flows that have a script are expected.
    """
    ours = frozenset(addresses)
    expected = _Told.of(captured, replayed.scripts)
    found = _Told.of(again, {})
    until_ns = _ends(replayed)
    rows, gaps, differences = [], list[_Gap](), list[Difference]()
    explained, remarks = Counter[str](), Counter[str]()
    for flow_id, script in replayed.scripts.items():
        if script.source[0] not in ours or flow_id not in expected.flows:
            continue
        one = _Comparison(
            expected.flows[flow_id], found.flows.get(flow_id), script, replayed, until_ns[flow_id], found.turned
        )
        difference = one.difference()
        explained.update(one.explained)
        if difference is not None:
            differences.append(difference)
        else:
            gaps += one.gaps()
        rows.append(one.row(equal=difference is None))
        remarks.update(one.remarks())
    for flow_id, flow in found.flows.items():
        if flow.source[0] in ours and flow_id not in replayed.scripts:
            what = f"{len(flow.said)} messages, {flow.outcome}"
            differences.append(Difference(flow_id, flow.name, flow.grade, Kind.EXTRA, -1, "no such flow", what))
    return Fidelity(_frame(rows, _FLOW_COLUMNS), _frame(gaps, _GAP_COLUMNS), tuple(differences), explained, remarks)


def together(parts: Sequence[Fidelity]) -> Fidelity:
    """The reports of several ends as one."""
    explained, remarks = Counter[str](), Counter[str]()
    for part in parts:
        explained.update(part.explained)
        remarks.update(part.remarks)
    return Fidelity(
        pd.concat([part.flows for part in parts], ignore_index=True),
        pd.concat([part.gaps for part in parts], ignore_index=True),
        tuple(difference for part in parts for difference in part.differences),
        explained,
        remarks,
    )


_FLOW_COLUMNS = ("flow_id", "grade", "outcome", "equal", "messages", "octets", "start_error_ns")
_GAP_COLUMNS = ("flow_id", "sequence", "direction", "captured_ns", "replayed_ns", "error_ns", "stated_ns")
_Gap = tuple[str, int, int, int, int, int, int]


def _frame(rows: Sequence[tuple[object, ...]], columns: Sequence[str]) -> pd.DataFrame:
    table = pd.DataFrame.from_records(list(rows), columns=list(columns))
    numbers = [name for name in columns if name.endswith("_ns") or name in {"sequence", "direction", "octets"}]
    return table.astype(dict.fromkeys(numbers, "int64"))


@dataclass(frozen=True, slots=True)
class _Said:
    direction: int
    octets: int
    gap_ns: int
    payload: bytes | None

    def __str__(self) -> str:
        return f"{'forward' if self.direction == FORWARD else 'reverse'} {self.octets}"


@dataclass(frozen=True, slots=True)
class _Flow:
    flow_id: str
    protocol: int
    source: tuple[str, int]
    target: tuple[str, int]
    start_ns: int
    outcome: str
    close: str
    grade: str
    said: tuple[_Said, ...]
    reset_ns: int
    retransmissions: int

    @property
    def name(self) -> str:
        protocol = {6: "tcp", 17: "udp"}.get(self.protocol, str(self.protocol))
        return f"{protocol} {_end(*self.source)} → {_end(*self.target)}"


@dataclass(frozen=True, slots=True)
class _Told:
    """A recording by flow."""

    flows: Mapping[str, _Flow]
    turned: frozenset[tuple[int, tuple[str, int], tuple[str, int]]]

    @classmethod
    def of(cls, recording: Recording, wanted: Mapping[str, FlowScript]) -> _Told:
        """Everything said in it; with `wanted` only of those flows."""
        said: dict[str, list[_Said]] = {}
        for flow_id, direction, octets, gap_ns, ref in _rows(
            recording.messages, ("flow_id", "direction", "octets", "gap_ns", "payload_ref")
        ):
            if not wanted or flow_id in wanted:
                payload = recording.payloads[ref] if ref >= 0 else None
                said.setdefault(str(flow_id), []).append(_Said(direction, octets, gap_ns, payload))
        resets, again = _resets(recording.segments), _retransmissions(recording.segments)
        flows = {
            flow_id: _Flow(
                flow_id, protocol, (source, source_port), (target, target_port), start_ns, outcome, close, grade,
                tuple(said.get(flow_id, ())), resets.get(flow_id, 0), again.get(flow_id, 0),
            )
            for (
                flow_id, protocol, source, source_port, target, target_port, start_ns, outcome, close, grade,
            ) in _rows(recording.flows, _OF_A_FLOW)
            if not wanted or flow_id in wanted
        }  # fmt: skip
        return cls(flows, frozenset((f.protocol, f.target, f.source) for f in flows.values()))


_OF_A_FLOW = (
    "flow_id",
    "protocol",
    "source_address",
    "source_port",
    "destination_address",
    "destination_port",
    "start_ns",
    "outcome",
    "close",
    "grade",
)


def _rows(table: pd.DataFrame, columns: tuple[str, ...]) -> Iterator[tuple]:  # type: ignore[type-arg]
    return zip(*(table[name].tolist() for name in columns), strict=True)


def _resets(segments: pd.DataFrame) -> dict[str, int]:
    """When the first RST of each flow passed."""
    resets = segments[(segments["tcp_flags"].to_numpy(dtype=np.int64) & RST) != 0]
    return dict(_rows(resets.sort_values("time_ns").drop_duplicates("flow_id"), ("flow_id", "time_ns")))


def _retransmissions(segments: pd.DataFrame) -> dict[str, int]:
    """How many segments with payload each flow sent again."""
    again = segments[segments["retransmission"].astype(bool) & (segments["octets"] > 0)]
    return {str(flow_id): int(count) for flow_id, count in again["flow_id"].astype(str).value_counts().items()}


def _ends(replayed: Replayed) -> dict[str, int]:
    """Until when each flow may have stayed open: the window's end, or the next flow of its five-tuple."""
    ends: dict[str, int] = {}
    following: dict[tuple[int, tuple[str, int], tuple[str, int]], int] = {}
    for script in sorted(replayed.scripts.values(), key=lambda script: script.start_ns, reverse=True):
        five_tuple = (script.protocol, script.source, script.target)
        ends[script.flow_id] = following.get(five_tuple, replayed.over_ns)
        following[five_tuple] = replayed.began_ns + script.start_ns
    return ends


class _Comparison:
    """One flow, as it was captured and as it was captured again."""

    def __init__(
        self,
        expected: _Flow,
        found: _Flow | None,
        script: FlowScript,
        replayed: Replayed,
        until_ns: int,
        turned: frozenset[tuple[int, tuple[str, int], tuple[str, int]]],
    ) -> None:
        self._expected = expected
        self._replayed = replayed
        self._script = script
        self._until_ns = until_ns
        self._turned = (expected.protocol, expected.source, expected.target) in turned
        self.explained = Counter[str]()
        self._found = None if found is None else replace(found, said=tuple(self._untagged(found)))

    def difference(self) -> Difference | None:
        """The first difference, or None when the flows are equal."""
        if self._found is None:
            if self._turned:
                return self._differs(Kind.TURNED, -1, self._expected.name, "a flow the other way round")
            return self._differs(Kind.MISSING, -1, f"{len(self._expected.said)} messages", "no packet")
        if self._found.outcome != self._expected.outcome:
            return self._differs(Kind.OUTCOME, -1, self._expected.outcome, self._found.outcome)
        return self._in_messages(self._found) or self._in_close(self._found)

    def gaps(self) -> Iterator[_Gap]:
        """Think times of both, for flows whose messages are equal; no echo has any, because kernels answer."""
        if self._found is None or self._expected.protocol in ECHO:
            return
        flow_id = self._expected.flow_id
        stated_ns = self._replayed.lateness_ns.get(flow_id, 0) + PATH_NS
        for sequence, (was, became) in enumerate(zip(self._expected.said, self._found.said, strict=True)):
            captured_ns = int(was.gap_ns / self._replayed.speed)
            error_ns = became.gap_ns - captured_ns
            yield flow_id, sequence, was.direction, captured_ns, became.gap_ns, error_ns, stated_ns

    def row(self, *, equal: bool) -> tuple[str, str, str, bool, int, int, int]:
        """The flow's row of the report."""
        flow = self._expected
        planned_ns = self._replayed.began_ns + self._script.start_ns
        late_ns = self._found.start_ns - planned_ns if self._found else 0
        octets = sum(said.octets for said in flow.said)
        return flow.flow_id, flow.grade, flow.outcome, equal, len(flow.said), octets, late_ns

    def remarks(self) -> Mapping[str, int]:
        """What the network did here that no message shows."""
        again = self._found.retransmissions if self._found else 0
        return {"retransmitted segments": again} if again else {}

    def _in_messages(self, found: _Flow) -> Difference | None:
        was, became = self._expected.said, found.said
        for sequence, (one, other) in enumerate(zip(was, became, strict=False)):
            if (one.direction, one.octets) != (other.direction, other.octets):
                return self._differs(self._shape(was, became, sequence), sequence, str(one), str(other))
            if one.payload is not None and one.payload != other.payload:
                return self._differs(Kind.PAYLOAD, sequence, *_unlike(one.payload, other.payload))
        if len(was) > len(became):
            return self._differs(Kind.FEWER, len(became), str(was[len(became)]), "nothing")
        if len(became) > len(was):
            return self._differs(Kind.MORE, len(was), "nothing", str(became[len(was)]))
        return None

    def _shape(self, was: tuple[_Said, ...], became: tuple[_Said, ...], sequence: int) -> Kind:
        if Counter(map(str, was)) == Counter(map(str, became)):
            return Kind.ORDER
        return Kind.DIRECTION if was[sequence].direction != became[sequence].direction else Kind.SIZE

    def _in_close(self, found: _Flow) -> Difference | None:
        if self._expected.protocol != TCP or found.close == self._expected.close:
            return None
        ended_by_us = found.close in {"rst_forward", "rst_reverse"} and found.reset_ns >= self._until_ns
        if self._expected.close == "none" and ended_by_us:
            self.explained["flows without an end in the capture, reset when nothing of them was left"] += 1
            return None
        return self._differs(Kind.CLOSE, -1, self._expected.close, found.close)

    def _untagged(self, found: _Flow) -> Iterator[_Said]:
        """The messages without the header that tells the server side whose request this is."""
        for sequence, said in enumerate(found.said):
            if not self._script.tagged or said.direction != FORWARD or said.payload is None:
                yield said
                continue
            header = _SHADOW_HEADER + f"{self._expected.flow_id}-{sequence}\r\n".encode()
            line, end, rest = said.payload.partition(b"\r\n")
            if rest.startswith(header):
                self.explained["requests with the shadow header, taken out"] += 1
                self.explained["octets of shadow headers"] += len(header)
                plain = line + end + rest[len(header) :]
                yield replace(said, octets=said.octets - len(header), payload=plain)
            else:
                yield said

    def _differs(self, kind: Kind, sequence: int, expected: str, found: str) -> Difference:
        flow = self._expected
        return Difference(flow.flow_id, flow.name, flow.grade, kind, sequence, expected, found)


def _unlike(one: bytes, other: bytes | None) -> tuple[str, str]:
    """Where two payloads of one length part, for people."""
    if other is None:
        return f"{len(one)} octets", "octets that the second capture did not keep"
    at = next(i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b)
    return f"{one[at : at + 8].hex()} at octet {at}", f"{other[at : at + 8].hex()}"


def _end(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
