"""One affected flow of a run, traced on the run's own shadow: with the change in force, and when it was taken back.

Which flow is a pure choice; sending it is `sent`'s.  What two journeys say of a blame is `told_by`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from analysis.verdict import Finding, Severity
from analysis.window import Role
from replay.schedule import FlowScript
from replay.session import Patience, Player
from replay.tap import TapFailed
from testbed.change.model import Change
from testbed.errors import CommandFailed, NotReady, Unsupported
from testbed.placement import END_POINTS
from testbed.preflight.passes import Pass
from testbed.preflight.probe import Probe, Survey
from testbed.shadow import Shadow
from testbed.trace.journey import Journey, Trace, TracedFlow
from testbed.trace.parted import culprits, parting
from testbed.trace.sent import Sender, capture_points
from topologies.model import Topology

LONGEST_SECONDS = 8.0
"""A flow that would need longer from the beginning of a window to its end is not sent again for a verdict."""

MOST_LINKS = 400
PATIENCE_NS = 400_000_000
"""How long a flow that never came through with the change is waited for; links that delay add to it."""

UNSURE = frozenset({"", "diff"})


@dataclass(frozen=True, slots=True)
class Chosen:
    """The flow to send: a captured one, or its class's probe; `lost` when it never came through with the change."""

    script: FlowScript
    flow_id: str
    row: Mapping[str, object]
    lost: bool

    @property
    def seconds(self) -> float:
        """From the beginning of a window to the flow's end."""
        return (self.script.start_ns + self.script.busy_ns) / 1e9


def chosen(
    findings: Sequence[Finding],
    flows: pd.DataFrame,
    scripts: Sequence[FlowScript],
    survey: Survey,
    passes: Mapping[str, Pass],
    failed: frozenset[str],
) -> Chosen | None:
    """The flow that speaks for the worst finding that needs it; None where none does, or none is short enough.

    A finding needs it when nobody is blamed, when the change alone suggests whom, and when it is no line of the change:
    where counters show a changed line at work they are witness enough.  `failed` has the flows that never came through
    with the change, by flow_id.  Findings come the worst first.
    """
    rows = {str(row["flow_id"]): {str(k): v for k, v in row.items()} for row in flows.to_dict("records")}
    by_id = {script.flow_id: script for script in scripts}
    for finding in findings:
        own = [flow for flow in finding.flows if flow in rows]
        lost = [flow for flow in own if flow in failed]
        if finding.verdict is not Severity.FAIL or not own or not _unsure(finding):
            continue
        wanted = lost or own
        found = [Chosen(by_id[flow], flow, rows[flow], bool(lost)) for flow in wanted if flow in by_id]
        for probe in survey.classes:
            member = next((flow for flow in wanted if flow in probe.members), None)
            if member is not None and (not lost or _changed(probe, passes)):
                found.append(Chosen(probe.script, member, rows[member], bool(lost)))
        short = [one for one in found if one.seconds <= LONGEST_SECONDS]
        if short:
            return min(short, key=lambda one: (one.seconds, one.flow_id))
    return None


def in_force(shadow: Shadow, change: Change) -> bool:
    """Whether a shadow is as the change makes it."""
    files = {*change.before, *change.after}
    links = [(end, egress) for one in change.links for end, egress in ((one.a, one.a_to_b), (one.b, one.b_to_a))]
    return (
        all(shadow.configs[node].get(file) == change.after.get((node, file)) for node, file in files)
        and all(shadow.egress[end] == egress for end, egress in links)
        and all(shadow.mtu[one.a] == one.mtu for one in change.links)
        and all((command.node, command.rollback) in shadow.owed for command in change.commands)
    )


def failed_with_change(kpis: pd.DataFrame) -> frozenset[str]:
    """Flows that came through in a window as things were and in none with the change."""
    came = {
        role: set(part[part["completed"].astype(bool)]["flow_id"].astype(str)) for role, part in kpis.groupby("role")
    }
    tried = set(kpis[kpis["role"] == Role.TREATMENT.value]["flow_id"].astype(str))
    return frozenset(tried & came.get(Role.BASELINE.value, set()) - came.get(Role.TREATMENT.value, set()))


def _unsure(finding: Finding) -> bool:
    blame = finding.blame
    return blame is None or blame.decided_by in UNSURE or not blame.in_change


def _changed(probe: Probe, passes: Mapping[str, Pass]) -> bool:
    """Whether the preflight saw it end otherwise with the change."""
    answers = [passes[role].answers.get(probe.probe_id) for role in ("baseline", "treatment") if role in passes]
    return len(answers) == 2 and answers[0] != answers[1]


@dataclass(slots=True)
class FlowTrace:
    """The chosen flow's two journeys on a running shadow; `problem` says why there is none."""

    shadow: Shadow
    player: Player
    flow: Chosen
    after: Journey | None = None
    before: Journey | None = None
    problem: str = ""
    _sent: int = field(default=0)

    def with_change(self) -> None:
        """Send it while the change is in force."""
        self.after = self._journey()

    def taken_back(self) -> None:
        """Send it when the change was taken back."""
        self.before = None if self.problem else self._journey()

    def trace(self, run: str, change: Change, topology: Topology) -> Trace | None:
        """Both journeys compared; None where one is lacking."""
        if self.before is None or self.after is None:
            return None
        part = parting(self.before, self.after, change)
        who = culprits(part, self.before, self.after, change, topology, None)
        return Trace(run, change.name, _identity(self.flow), self.before, self.after, part, who)

    @property
    def _patience(self) -> Patience | None:
        """What never came through need not be waited for as long as in a window."""
        if not self.flow.lost:
            return None
        ends = [end.egress for link in self.shadow.topology.links for end in (link.a, link.b)]
        wait_ns = PATIENCE_NS + sum(egress.delay_ns + egress.pdv_ns for egress in ends)
        return Patience(wait_ns, wait_ns, wait_ns)

    def _journey(self) -> Journey | None:
        if len(self.shadow.topology.links) > MOST_LINKS:
            self.problem = f"{len(self.shadow.topology.links)} links are too many to listen at: testbed trace does it"
            return None
        ends = [node.name for node in self.shadow.topology.nodes if node.kind in END_POINTS]
        try:
            with capture_points(self.shadow, ends) as taps:
                sender = Sender(self.shadow, self.player, taps, ends, self.flow.script, patience=self._patience)
                return sender.journey()
        except (TapFailed, Unsupported, NotReady, CommandFailed, TimeoutError) as failure:
            self.problem = str(failure)
            return None


def _identity(flow: Chosen) -> TracedFlow:
    row, script = flow.row, flow.script
    (source, source_port), (target, target_port) = script.source, script.target
    names = str(row.get("flow_class", "")), str(row.get("priority", "normal"))
    return TracedFlow(
        flow.flow_id, *names, script.protocol, source, source_port, target, target_port, str(row.get("outcome", ""))
    )
