"""One pass: every probe through the shadow at once, and what became of each.

First the classes, as their flows are; then the exposures, with somebody listening wherever they may arrive.  What
differs from what was expected is tried once more and more patiently, so that one lost packet is no finding.  It knows
no change and no verdict.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from analysis.reach import ACCEPTED, BROKEN, UNMEASURED, as_production
from replay.schedule import UDP
from replay.session import Patience, Player, PlayResult
from testbed.counters import Readings, counter_rows
from testbed.measure import flow_paths
from testbed.paths import Atlas
from testbed.preflight.probe import Kind, Probe, Survey
from testbed.preflight.stand_ins import stood_in
from testbed.shadow import Shadow

CONNECT_NS, MESSAGE_NS = 500_000_000, 1_000_000_000
AGAIN_NS = 1_300_000_000
"""Where links lose packets a second try outlasts the kernel's own second SYN, which is sent after a second."""

WAIT_SECONDS = 60.0
_WORDS = {
    "refused": "reset",
    "reset": "reset",
    "unreachable": "denied",
    "timeout": "unanswered",
    "not_started": UNMEASURED,
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a probe, and the player's own word for it."""

    disposition: str
    error: str


@dataclass(frozen=True, slots=True)
class Pass:
    """A pass over all probes; `unsteady` ones answered differently when they were asked again.

    The first pass has none: what it has to ask again found the network cold.
    """

    answers: Mapping[str, Answer]
    unsteady: frozenset[str]
    paths: Mapping[str, str]
    counters: pd.DataFrame
    seconds: float


@dataclass(slots=True)
class Preflight:
    """The probes of a run on its shadow; `longest_s` bounds how long any of them waits."""

    survey: Survey
    shadow: Shadow
    player: Player
    longest_s: float
    passes: dict[str, Pass] = field(default_factory=dict)

    def go(self, role: str) -> Pass:
        """Make a pass under a role ("baseline", "treatment", "restored") and keep it; raises TimeoutError."""
        started = time.monotonic()
        # a firewall lets through what it has seen before, whatever its new rules say of it
        self.shadow.forget()
        before: Readings = self.shadow.readings()
        first = self.passes.get("baseline")
        answers: dict[str, Answer] = {}
        paths: dict[str, str] = {}
        results = self._round(self.survey.classes, self._patience(CONNECT_NS), answers)
        results += self._round(self.survey.exposures, self._patience(CONNECT_NS), answers)
        doubtful = [p for p in self.survey.probes if self._doubtful(p, answers[p.probe_id], first)]
        unsteady = set[str]()
        if doubtful:
            again: dict[str, Answer] = {}
            patience = self._patience(AGAIN_NS if self._lossy else CONNECT_NS)
            results += self._round([p for p in doubtful if p.kind is Kind.CLASS], patience, again)
            results += self._round([p for p in doubtful if p.kind is not Kind.CLASS], patience, again)
            if first is not None:
                unsteady = {p for p, answer in again.items() if answer.disposition != answers[p].disposition}
            answers |= again
        after: Readings = self.shadow.readings()
        atlas = Atlas.of(self.shadow.topology, after)
        for result in results:
            ways = flow_paths(result, atlas, self.shadow.configs)
            paths |= dict(zip(result.attempts["flow_id"].tolist(), ways, strict=True))
        counted = counter_rows(0, role, before, after)
        made = Pass(answers, frozenset(unsteady), paths, counted, time.monotonic() - started)
        self.passes[role] = made
        return made

    def _doubtful(self, probe: Probe, answer: Answer, first: Pass | None) -> bool:
        """Whether to ask once more: what is news after the change, and what is not as in production before it."""
        observed = probe.kind in (Kind.CLASS, Kind.REFUSED)
        if first is not None:
            changed = answer.disposition != first.answers[probe.probe_id].disposition
            return changed and (observed or self._lossy or answer.disposition == ACCEPTED)
        if probe.kind is Kind.CLASS and probe.expected is not None:
            return not as_production(probe.expected, answer.disposition)
        return self._lossy and answer.disposition == "unanswered"

    @property
    def _lossy(self) -> bool:
        return any(end.egress.loss_ratio for link in self.shadow.topology.links for end in (link.a, link.b))

    def _patience(self, connect_ns: int) -> Patience:
        """Longer where links are slow, never longer than the policy lets a flow wait."""
        ends = [end.egress for link in self.shadow.topology.links for end in (link.a, link.b)]
        slow_ns = sum(egress.delay_ns + egress.pdv_ns for egress in ends)
        most_ns = int(self.longest_s * 1e9)
        connect_ns = min(connect_ns + slow_ns, max(most_ns, connect_ns))
        return Patience(connect_ns, connect_ns, min(MESSAGE_NS + connect_ns, max(most_ns, MESSAGE_NS)))

    def _round(self, probes: Sequence[Probe], patience: Patience, into: dict[str, Answer]) -> list[PlayResult]:
        """Play these probes; a round of none is no round."""
        if not probes:
            return []
        namespaces = {name: box.namespace for name, box in self.shadow.boxes.items()}
        with stood_in(namespaces, (stand for probe in probes for stand in probe.stands)) as ins:
            result = self.player.play(0, [p.probe_id for p in probes], patience).wait(WAIT_SECONDS)
            arrived = ins.arrived()
        into |= answered(probes, result.attempts, arrived)
        return [result]


def answered(probes: Sequence[Probe], attempts: pd.DataFrame, arrived: frozenset[str]) -> dict[str, Answer]:
    """Every probe's answer, by the player's attempts and by the datagrams that came to stand-ins."""
    wanted = {probe.probe_id: probe for probe in probes}
    columns = ("flow_id", "protocol", "connected", "completed", "error", "server_octets", "exchanges")
    found = {probe: Answer(UNMEASURED, "not_started") for probe in wanted}
    rows = zip(*(attempts[c].tolist() for c in columns), strict=True)
    for flow, protocol, connected, completed, error, octets, exchanges in rows:
        if flow not in wanted:
            continue
        # a class is what its clients felt; whether a lone datagram of it arrives is an exposure's question
        lone = protocol == UDP and not exchanges and wanted[flow].kind is not Kind.CLASS
        reached = flow in arrived or (lone and octets > 0)
        if completed or reached:
            found[flow] = Answer(ACCEPTED, "none")
        elif connected or error not in _WORDS:
            found[flow] = Answer(BROKEN, str(error))
        else:
            found[flow] = Answer(_WORDS[str(error)], str(error))
    return found
