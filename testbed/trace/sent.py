"""One flow sent on a running shadow with every interface tapped: first to learn its names, then with rules traced.

Thin doing: it plays, taps and asks nodes; what it gathers is followed and judged by pure functions.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from replay.columns import TCP
from replay.kpis import kpis
from replay.schedule import FlowScript
from replay.session import Patience, Player, PlayResult
from replay.tap import Tap, Taps
from testbed.devices.loadbalancer import FILE as PROXY_FILE
from testbed.devices.rule_trace import Step
from testbed.network.link import kernel_name
from testbed.shadow import Shadow
from testbed.trace.decided import filters, first_packet, route_taken, rules_met, rules_traced
from testbed.trace.ended import Witness, ended
from testbed.trace.follow import FORWARD, REVERSE, Connection, Followed, connection, followed
from testbed.trace.journey import Decision, End, Ended, Hop, Journey, Leg, Tuple
from testbed.trace.proxied import Chosen, chosen, decision, logs_heard, proxies, server_addresses, statistics
from testbed.trace.seen import Place, Sighting, Wiring, read_sightings

WAIT_SECONDS = 30.0
QUIET_SECONDS = 0.1
"""How long the traces of rules must have been silent to be complete."""

BUDGET_OCTETS = 256 << 20
LEAST_BLOCKS, MOST_BLOCKS, BLOCK_OCTETS = 4, 64, 65_536
_KPIS = (
    "completed",
    "error",
    "connect_ns",
    "first_response_ns",
    "response_ns",
    "one_way_delay_forward_ns",
    "one_way_delay_reverse_ns",
    "retransmits",
    "delivered_octets",
    "goodput_bps",
    "duration_ns",
)
_SYN, _ACK = 0x02, 0x10
_MASK = re.compile(r"[^A-Za-z0-9]")


def capture_points(shadow: Shadow, end_points: Sequence[str]) -> Taps:
    """Taps on both ends of every link, and one on each end point as KPIs are measured with."""
    spaces = shadow.namespaces()
    places = _places(shadow)
    taps = [Tap(_named(place), spaces[place[0]], kernel_name(place[1])) for place in places]
    taps += [Tap(node, spaces[node]) for node in end_points]
    blocks = BUDGET_OCTETS // (BLOCK_OCTETS * max(len(taps), 1))
    return Taps(taps, min(max(blocks, LEAST_BLOCKS), MOST_BLOCKS), BLOCK_OCTETS)


@dataclass(slots=True)
class Sender:
    """Sends the script, again and again, on a shadow that somebody else changes meanwhile."""

    shadow: Shadow
    player: Player
    taps: Taps
    end_points: Sequence[str]
    script: FlowScript
    sent: int = 0
    patience: Patience | None = None

    def journey(self) -> Journey:
        """Send it twice and tell the journey of the second; raises Unsupported where rules cannot be traced."""
        wanted: Mapping[str, Sequence[Tuple]] = {}
        if any(filters(configs) for configs in self.shadow.configs.values()):
            wanted = self._names(self._once({}))
        told = self._once(wanted)
        return self._told(told)

    def _once(self, wanted: Mapping[str, Sequence[Tuple]]) -> _Sending:
        shadow, number = self.shadow, self.sent
        self.sent += 1
        shadow.forget()
        drops = {name: dict(box.kernel.queue_drops()) for name, box in shadow.boxes.items()}
        balancers = proxies(shadow)
        before = {node: statistics(shadow.boxes[node]) for node in balancers}
        with TemporaryDirectory(prefix="testbed-trace-", dir="/run/testbed") as folder:
            paths = {_named(place): Path(folder) / f"{n}.pcap" for n, place in enumerate(_places(shadow))}
            ends = {node: Path(folder) / f"end-{n}.pcap" for n, node in enumerate(self.end_points)}
            with rules_traced(shadow, wanted) as traces, logs_heard(shadow, balancers) as logs:
                self.taps.start_window()
                seconds = self.script.busy_ns / 1e9 + WAIT_SECONDS
                result = self.player.play(number, [self.script.flow_id], self.patience).wait(seconds + WAIT_SECONDS)
                captures = self.taps.end_window({**paths, **ends})
                steps = _complete({node: trace.steps for node, trace in traces.items()})
            after = {node: statistics(shadow.boxes[node]) for node in balancers}
            wiring = Wiring.of(shadow.topology, _macs(shadow))
            sightings = read_sightings({place: paths[_named(place)] for place in _places(shadow)}, wiring)
            measured = kpis(result, {node: ends[node] for node in self.end_points}, "", number, "trace")
        full = {
            (name, interface): count - drops[name].get(interface, 0)
            for name, box in shadow.boxes.items()
            for interface, count in box.kernel.queue_drops().items()
        }
        choices = {node: chosen(before[node], after[node], logs[node]) for node in balancers}
        return _Sending(result, sightings, steps, choices, full, _kpi_row(measured), captures.dropped)

    def _names(self, sending: _Sending) -> dict[str, list[Tuple]]:
        """Under which names each node meets the flow; to a proxy's servers from any port, as it may choose anew."""
        wanted: dict[str, list[Tuple]] = {node: [] for node in self.shadow.boxes}
        own = self._connections(sending)
        for one in own[:1]:
            makers = {self.script.source_node, *(answer.node for answer in one.reverse[:1])}
            for sighting in (*one.forward, *one.reverse):
                if not sighting.out or sighting.node in makers:
                    wanted[sighting.node].append(sighting.packet)
        end = own[0].forward[-1].node if own and own[0].forward else ""
        if PROXY_FILE in self.shadow.configs.get(end, {}):
            beyond = self._to_servers(end)
            wanted = {node: [*named, *beyond] for node, named in wanted.items()}
        return {node: list(dict.fromkeys(named)) for node, named in wanted.items()}

    def _to_servers(self, node: str) -> list[Tuple]:
        addresses = [a.ip for i in self.shadow.topology.node(node).interfaces for a in i.addresses]
        text = self.shadow.configs[node][PROXY_FILE].decode(errors="replace")
        return [
            Tuple(TCP, str(own), 0, address, port)
            for address, port in dict.fromkeys(server_addresses(text).values())
            for own in addresses
            if (":" in address) == (own.version == 6)
        ]

    def _connections(self, sending: _Sending) -> list[Connection]:
        """The client's connection and, where a proxy made one for it, the one to the server."""
        attempts = sending.result.attempts
        if not len(attempts):
            return []
        row = attempts.iloc[0]
        start = Tuple(
            int(row["protocol"]),
            str(row["source_address"]),
            int(row["source_port"]),
            str(row["target_address"]),
            int(row["target_port"]),
        )
        first = connection(sending.sightings, start, str(row["node"]))
        beyond = self._beyond(sending, first)
        return [first] if beyond is None else [first, beyond]

    def _beyond(self, sending: _Sending, first: Connection) -> Connection | None:
        """The connection from a proxy to a server: the one that a server accepted, or else the one that was tried."""
        known = {one.packet for one in first.forward}
        for row in sending.result.accepted.to_dict("records"):
            theirs = Tuple(
                int(row["protocol"]),
                str(row["peer_address"]),
                int(row["peer_port"]),
                str(row["local_address"]),
                int(row["local_port"]),
            )
            came = [s for s in sending.sightings if s.packet == theirs]
            if row["flow_id"] != self.script.flow_id or theirs in known or not came:
                continue
            origin = next(s for s in sending.sightings if s.mark == came[0].mark and s.time_ns <= came[0].time_ns)
            return connection(sending.sightings, origin.packet, origin.node)
        return self._tried(sending, first)

    def _tried(self, sending: _Sending, first: Connection) -> Connection | None:
        """The proxy's own try at the server it chose, where nobody accepted it."""
        for node, choice in sending.choices.items():
            text = self.shadow.configs[node][PROXY_FILE].decode(errors="replace")
            target = server_addresses(text).get((choice.backend, choice.server))
            came = [s for s in first.forward if s.node == node and not s.out]
            if target is None or not came:
                continue
            for one in sending.sightings:
                syn = one.flags & (_SYN | _ACK) == _SYN
                to = (one.packet.destination, one.packet.destination_port) == target
                if syn and to and one.out and one.node == node and one.time_ns >= came[0].time_ns:
                    return connection(sending.sightings, one.packet, node)
        return None

    def _told(self, sending: _Sending) -> Journey:
        own = self._connections(sending)
        start_ns = own[0].forward[0].time_ns if own and own[0].forward else 0
        order = [(n, FORWARD) for n in range(len(own))] + [(n, REVERSE) for n in reversed(range(len(own)))]
        legs = [
            leg
            for n, direction in order
            if (leg := followed(own[n].way(direction), n, direction, self.shadow.topology, start_ns)) is not None
        ]
        routes = {
            (n, h): route
            for n, one in enumerate(legs)
            for h, hop in enumerate(one.leg.hops)
            if (route := route_taken(self.shadow, hop)) is not None
        }
        proxied = {
            node: decision(node, choice, self.shadow.configs[node][PROXY_FILE].decode(errors="replace"))
            for node, choice in sending.choices.items()
            if choice.frontend or choice.backend
        }
        row = sending.kpis
        completed, error = bool(row.get("completed")), str(row.get("error") or "")
        witness = Witness(
            self.shadow.topology,
            sending.steps,
            routes,
            self.shadow.mtu,
            sending.queue_drops,
            proxied,
            completed,
            "" if error == "none" else error,
        )
        end = ended(legs, own, witness)
        told = tuple(_decided(n, one, witness, end) for n, one in enumerate(legs))
        return Journey(told, end, row, _notes(sending), sending.capture_drops)


@dataclass(frozen=True, slots=True)
class _Sending:
    """What one sending left behind."""

    result: PlayResult
    sightings: list[Sighting]
    steps: Mapping[str, Sequence[Step]]
    choices: Mapping[str, Chosen]
    queue_drops: Mapping[Place, int]
    kpis: Mapping[str, float | bool | str | None]
    capture_drops: int


def _decided(number: int, one: Followed, witness: Witness, end: End) -> Leg:
    """The leg with its decisions: rules where a node has any, routes, and a proxy's choice where it was made."""
    first = number == 0
    hops = []
    for place, hop in enumerate(one.leg.hops):
        here = (end.leg, end.hop) == (number, place) and end.how is not Ended.DELIVERED
        made: list[Decision] = []
        if here and end.decision is not None and end.decision.what == "rule":
            made.append(end.decision)
        elif first and hop.node in witness.steps:
            made += [d for d in rules_met(hop.node, _passing(witness.steps[hop.node])) if hop.entered is not None]
        route = witness.routes.get((number, place))
        # a packet that a rule dropped met no route
        if route is not None and not (here and made):
            made.append(route)
        if hop.node in witness.proxied and one.leg.connection == 0 and one.leg.direction == FORWARD:
            made.append(witness.proxied[hop.node])
        hops.append(_with(hop, tuple(made)))
    return replace(one.leg, hops=tuple(hops))


def _passing(steps: Sequence[Step]) -> list[Step]:
    """The steps of the first packet, if it passed."""
    first = first_packet(steps)
    return [] if any(step.verdict.lower().startswith("drop") for step in first) else first


def _with(hop: Hop, made: tuple[Decision, ...]) -> Hop:
    return replace(hop, decisions=made)


def _notes(sending: _Sending) -> tuple[str, ...]:
    notes = [f"{node} said: {line}" for node, choice in sending.choices.items() for line in choice.log]
    if sending.capture_drops:
        notes.append(f"the captures lost {sending.capture_drops} packets: counts are too low")
    return tuple(notes)


def _complete(asked: Mapping[str, object]) -> dict[str, list[Step]]:
    """The steps of every trace once none has told anything new for a moment."""
    known: dict[str, list[Step]] = {}
    deadline = time.monotonic() + 2.0
    while time.monotonic() < deadline:
        now = {node: list(steps()) for node, steps in asked.items()}  # type: ignore[operator]
        if known and all(len(now[node]) == len(known[node]) for node in now):
            break
        known = now
        if not known:
            break
        time.sleep(QUIET_SECONDS)
    return known


def _kpi_row(measured: pd.DataFrame) -> dict[str, float | bool | str | None]:
    if not len(measured):
        return {}
    row = measured.iloc[0]
    told: dict[str, float | bool | str | None] = {}
    for name in _KPIS:
        value = row[name]
        told[name] = bool(value) if name == "completed" else str(value) if name == "error" else float(value)
    return told


def _places(shadow: Shadow) -> list[Place]:
    return [(end.node, end.interface) for link in shadow.topology.links for end in (link.a, link.b)]


def _named(place: Place) -> str:
    """A tap's name; no node has a slash in its own."""
    return f"{place[0]}/{place[1]}"


def _macs(shadow: Shadow) -> dict[Place, bytes]:
    """The MAC of both ends of every link, as the nodes' kernels have them."""
    found: dict[Place, bytes] = {}
    places = _places(shadow)
    for node in dict.fromkeys(node for node, _ in places):
        said = json.loads(shadow.boxes[node].run(["ip", "-j", "link", "show"]))
        macs = {link["ifname"]: bytes.fromhex(_MASK.sub("", link.get("address", ""))) for link in said}
        found |= {(n, i): macs[kernel_name(i)] for n, i in places if n == node and kernel_name(i) in macs}
    return found
