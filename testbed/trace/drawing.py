"""Two journeys side by side on a terminal, hop beside hop, with the point where they part marked.

It knows the document only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from analysis.words import quantity
from testbed.trace.journey import FORWARD, Culprit, Ended, Hop, Journey, Leg, Trace, end_text
from testbed.visible import one_line

PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6", 132: "sctp"}
KPI_WORDS = {
    "connect_ns": "connect",
    "response_ns": "response",
    "duration_ns": "duration",
    "retransmits": "retransmits",
}
_PARTING, _BAD, _DIM = "bold yellow", "bold red", "dim"


@dataclass(frozen=True, slots=True)
class Row:
    """Hops that stand beside each other; None where a journey has none there."""

    title: str
    before: tuple[int, int] | None
    after: tuple[int, int] | None


def print_trace(trace: Trace, console: Console) -> None:
    """Draw the document."""
    for part in drawn(trace):
        console.print(part)


def drawn(trace: Trace) -> Iterator[RenderableType]:
    """The parts of the drawing from top to bottom."""
    flow = trace.flow
    name = PROTOCOLS.get(flow.protocol, f"protocol {flow.protocol}")
    ends = (end_text(flow.source, flow.source_port), end_text(flow.destination, flow.destination_port))
    yield Text.assemble(
        ("flow ", _DIM),
        (flow.flow_id, "bold"),
        f"  {name} {ends[0]} → {ends[1]}  ",
        (one_line(f"class {flow.flow_class}, {flow.priority}; captured: {flow.captured}"), _DIM),
    )
    yield Text(one_line(f"run {trace.run}, change {trace.change}"), style=_DIM)
    table = Table(box=SIMPLE_HEAD, expand=True, padding=(0, 1, 0, 0), show_edge=False)
    for head in ("before the change", "after the change"):
        table.add_column(head, ratio=1, overflow="fold")
    last = ""
    for row in rows(trace):
        if row.title != last:
            table.add_row(Text(row.title, style="bold cyan"), Text(row.title, style="bold cyan"))
            last = row.title
        table.add_row(_cell(trace, trace.before, row.before, False), _cell(trace, trace.after, row.after, True))
    table.add_section()
    table.add_row(_end(trace.before), _end(trace.after))
    table.add_row(_kpis(trace.before), _kpis(trace.after))
    yield table
    yield from _conclusion(trace)


def rows(trace: Trace) -> list[Row]:
    """The hops of both journeys aligned leg by leg; answers that mirror the way there are left out."""
    found = []
    legs = [(leg.connection, leg.direction) for j in (trace.before, trace.after) for leg in j.legs]
    keys = sorted(dict.fromkeys(legs), key=lambda k: (k[1] != FORWARD, k[0] if k[1] == FORWARD else -k[0]))
    for key in keys:
        one, other = (_leg(journey, key) for journey in (trace.before, trace.after))
        if key[1] != FORWARD and _mirrors(trace, key):
            continue
        title = _title(key, max(connection for connection, _ in keys))
        names = [[hop.node for hop in leg.hops] if leg else [] for _, leg in (one, other)]
        for kind, a, b, c, d in SequenceMatcher(None, names[0], names[1], autojunk=False).get_opcodes():
            for n in range(max(b - a, d - c)):
                left = (one[0], a + n) if a + n < b else None
                right = (other[0], c + n) if c + n < d else None
                if kind == "replace" or left or right:
                    found.append(Row(title, left, right))
    return found


def _title(key: tuple[int, str], most: int) -> str:
    way = "the way there" if key[1] == FORWARD else "answers"
    if not most:
        return way
    return f"{way}: {'client to proxy' if not key[0] else 'proxy to server'}"


def _leg(journey: Journey, key: tuple[int, str]) -> tuple[int, Leg | None]:
    return next(((n, leg) for n, leg in enumerate(journey.legs) if (leg.connection, leg.direction) == key), (-1, None))


def _mirrors(trace: Trace, key: tuple[int, str]) -> bool:
    """Whether answers come back the way that the packets went, in both journeys, with nothing to tell of them."""
    for journey in (trace.before, trace.after):
        number, leg = _leg(journey, key)
        _, there = _leg(journey, (key[0], FORWARD))
        if leg is None:
            continue
        part = trace.parting
        marked = part is not None and number in ((part.leg,) if journey is trace.after else (part.before_leg,))
        ends = journey.end.leg == number and journey.end.how is not Ended.DELIVERED
        if marked or ends or there is None or [h.node for h in leg.hops] != [h.node for h in reversed(there.hops)]:
            return False
    return True


def _cell(trace: Trace, journey: Journey, at: tuple[int, int] | None, after: bool) -> RenderableType:
    if at is None:
        return Text("·", style=_DIM)
    hop = journey.legs[at[0]].hops[at[1]]
    part = trace.parting
    marked = part is not None and at == ((part.leg, part.hop) if after else (part.before_leg, part.before_hop))
    ends = journey.end.how is not Ended.DELIVERED and (journey.end.leg, journey.end.hop) == at
    mark = "▶ " if marked else "  "
    style = _BAD if ends else _PARTING if marked else "bold"
    head = Text.assemble((mark, _PARTING), (hop.node, style), f" {hop.kind}  {_ways(hop)}", (f"  {_time(hop)}", _DIM))
    lines: list[RenderableType] = [head]
    if hop.translation:
        lines.append(_indented(Text(hop.translation, style="magenta")))
    for one in hop.decisions:
        place = f" {one.place}" if one.place else ""
        bad = one.verdict.lower().startswith(("drop", "reject"))
        lines.append(_indented(Text(one_line(f"{one.what}{place}  {one.text}"), style="red" if bad else "")))
    if ends:
        lines.append(_indented(Text(one_line(_how(journey, hop)), style=_BAD)))
    return Group(*lines)


def _how(journey: Journey, hop: Hop) -> str:
    """How it ended, and why where no decision above says it already."""
    end = journey.end
    said = any(one == end.decision and one.text in end.reason for one in hop.decisions)
    return f"✗ {end.how.value}" if said or not end.reason else f"✗ {end.how.value}: {end.reason}"


def _indented(text: Text) -> Padding:
    return Padding(text, (0, 0, 0, 4))


def _ways(hop: Hop) -> str:
    if hop.entered and hop.left:
        return f"{hop.entered} → {hop.left}"
    return f"→ {hop.left}" if hop.left else f"{hop.entered} →"


def _time(hop: Hop) -> str:
    at = hop.entered_ns if hop.entered_ns is not None else hop.left_ns
    counts = [n for n, way in ((hop.packets_in, hop.entered), (hop.packets_out, hop.left)) if way]
    return f"{(at or 0) / 1e6:+.3f} ms, {'/'.join(map(str, counts))} packet{'' if max(counts) == 1 else 's'}"


def _end(journey: Journey) -> Text:
    good = journey.end.how is Ended.DELIVERED
    where = journey.end.node + (f":{journey.end.interface}" if journey.end.interface else "")
    told = f"{'✓' if good else '✗'} {journey.end.how.value} {'to' if good else 'at'} {where}"
    if journey.end.reason and good:
        told += f" ({journey.end.reason})"
    lost = sum(leg.lost_packets for leg in journey.legs)
    if lost and good:
        told += f"; {lost} packets lost on the way and sent again"
    return Text(one_line(told), style="bold green" if good else _BAD)


def _kpis(journey: Journey) -> Text:
    told = []
    for name, word in KPI_WORDS.items():
        value = journey.kpis.get(name)
        if isinstance(value, float) and value == value:  # noqa: PLR0124  NaN: not defined for this flow
            told.append(f"{word} {quantity(value, 'ns') if name.endswith('_ns') else f'{value:g}'}")
    error = journey.kpis.get("error")
    if error and error != "none":
        told.insert(0, f"client: {error}")
    return Text(", ".join(told), style=_DIM)


def _conclusion(trace: Trace) -> Iterator[Text]:
    part = trace.parting
    if part is None:
        yield Text("The journeys are alike.", style="bold green")
    else:
        yield Text.assemble(
            ("▶ they part at ", _PARTING),
            (part.node, _PARTING),
            one_line(f": {part.what}: {part.before} → {part.after}"),
        )
    yield from _told(trace.culprits, parted=part is not None)
    for note in (*trace.notes, *trace.before.notes, *trace.after.notes):
        yield Text(one_line(f"note: {note}"), style="yellow")


def _told(culprits: Sequence[Culprit], *, parted: bool) -> Iterator[Text]:
    for one in culprits:
        place = f"{one.file}:{one.line}" if one.line else one.file
        word = "culprit, a line of the change" if one.in_change else "latent fault, not in the change"
        yield Text.assemble(
            (f"{word}: ", _BAD), one_line(f"{one.node} {one.object} {place}"), ("\n    " + one_line(one.text), "bold")
        )
    if parted and not culprits:
        yield Text("no rule, route or line can be told to be the cause", style="yellow")
