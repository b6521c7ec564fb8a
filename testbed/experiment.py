"""The what-if: build, converge, preflight, baseline, change under traffic, treatment, verdict, rollback, restored.

Pairs of windows, where they are asked for, stand in the place of the treatment windows.

The one composition point.  The reading order of `run` is the experiment's order; leaving its
`ExitStack` is the clean-up.  It runs inside a sandbox and writes the run directory as it goes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pandas as pd

from analysis.judge import Judgement, judge_restored
from analysis.verdict import Verdict
from analysis.window import Role
from replay.packet_mode.plan import PacketPlan
from replay.session import Patience, Player
from replay.tap import Tap, Taps
from testbed.beside import Beside
from testbed.beside_load import beside_load
from testbed.beside_packets import beside_packets
from testbed.change.apply import apply, refusals, revert
from testbed.conclusion import Played, Rollback, blamed_on, document, judged, not_applied, refused, tolerances
from testbed.devices.base import Device
from testbed.errors import CommandFailed, NotReady, RevertFailed, Unsupported
from testbed.link_instrument import calibration, needs_engine
from testbed.measure import NO_PAIR, Gauge, Slot
from testbed.measured_record import write_measured
from testbed.pairs.course import Course
from testbed.pairs.judged import AS_IS_ARMS
from testbed.pairs.judged import restored as restored_by_pairs
from testbed.pairs.play import Alternation, Stopwatch
from testbed.placement import END_POINTS, listeners
from testbed.plan import Plan
from testbed.preflight.judged import Preflown, alone, joined, preflown
from testbed.preflight.judged import restored as answered_as_before
from testbed.preflight.passes import Preflight
from testbed.preflight.probe import Survey
from testbed.preflight.survey import surveyed
from testbed.prepare import Case
from testbed.shadow import Shadow, built
from testbed.store import RunDirectory
from testbed.tls_trust import trusted
from testbed.trace.of_run import FlowTrace, chosen, failed_with_change
from testbed.trace.witnessed import NAME as TRACED
from testbed.trace.witnessed import testimony, witnessed
from topologies.model import Impairment

READY_SECONDS = 120.0
SETTLE_SECONDS = 15.0
RESTORED_TRIES = 2
"""A restored window that does not look like the baseline is measured once more before anyone is alarmed."""

STAND_IN = "stand_in"
"""The kind of a reading that tells of a file made in the place of production's own."""

CHANGE_AT = 0.25
"""Where in the transition window the change is made: a quarter of the traffic has not seen it coming."""

FORESEEN = "foresee"
"""The step in which a run in pairs tells what it would find; worth keeping on the screen."""

Tell = Callable[[str, str], None]
"""(step, what is going on), for whoever watches."""


@dataclass(slots=True)
class Clock:
    """Wall time by step; `stretch` adds to a step's sum."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stretch(self, step: str) -> Iterator[None]:
        """Time what happens inside."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[step] = self.seconds.get(step, 0.0) + time.monotonic() - started


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to, for the exit code and whoever goes on."""

    verdict: Verdict
    restored: bool
    rollback_detail: str


def run(
    case: Case, devices: Mapping[str, Device], plan: Plan, directory: RunDirectory, clock: Clock, tell: Tell
) -> Outcome:
    """Run a what-if and write its verdict; raises NotReady, Unsupported, InvalidInput or RevertFailed."""
    experiment = _Experiment(case, directory, plan, clock, tell)
    with clock.stretch("validate_s"):
        survey = surveyed(case)
    with ExitStack() as world:
        with clock.stretch("build_s"):
            experiment.say("build", f"{len(case.lab.topology.nodes)} nodes, {len(case.lab.topology.links)} links")
            shadow = world.enter_context(built(case.lab.topology, devices, directory.path / "logs", seed=plan.seed))
            player = world.enter_context(_player(case, shadow, survey))
            taps = world.enter_context(_taps(shadow))
            packets = [
                world.enter_context(beside_packets(shadow, sent, directory, case.manner.sender))
                for sent in _packet_plans(case)
            ]
            load = world.enter_context(beside_load(shadow, case.background, directory))
        with clock.stretch("converge_s"):
            shadow.wait_ready(READY_SECONDS, lambda reason: experiment.say("converge", f"waiting for {reason}"))
        stand_ins = _stand_ins(shadow)
        if stand_ins:
            directory.amend_json("run.json", {"stand_ins": stand_ins})
        if any(map(needs_engine, _impairments(case))):
            with clock.stretch("calibrate_s"):
                experiment.say("calibrate", "the engine that impairs links, on a link of its own")
                directory.amend_json("run.json", {"links": calibration(plan.seed)})
        if load.loads:
            with clock.stretch("calibrate_s"):
                experiment.say("calibrate", "; ".join(load.calibrate()))
        seconds = case.duration_ns / 1e9
        beside: list[Beside] = [*packets, *([load] if load.loads else [])]
        gauge = Gauge(shadow, player, taps, tuple(_end_points(shadow)), directory, seconds, beside, alike=plan.in_pairs)
        rejected = refusals(shadow, case.change)
        if rejected:
            return experiment.conclude(
                gauge, refused(case, rejected), Rollback(done=False, restored=True, detail="nothing was changed")
            )
        preflight = Preflight(survey, shadow, player, case.policy.connect_timeout_s)
        outcome = experiment.judge_change(gauge, preflight)
        experiment.say("teardown", "")
        started = time.monotonic()
    clock.seconds["teardown_s"] = time.monotonic() - started
    return outcome


@dataclass(slots=True)
class _Experiment:
    case: Case
    directory: RunDirectory
    plan: Plan
    clock: Clock
    tell: Tell
    flown: Preflown | None = None
    course: Course = field(init=False)
    made_again: bool = False
    """Whether the change was made once more after the last window, to trace a flow."""

    def __post_init__(self) -> None:
        """Begin the watch that a budget is held against."""
        watch = Stopwatch(sum(self.clock.seconds.values()))
        self.course = Course(self.case.flows, tolerances(self.case), self.plan, watch)

    def say(self, step: str, what: str) -> None:
        """Tell whoever watches, and the event log."""
        self.directory.append_event(_now(), step, {"what": what})
        self.tell(step, what)

    def judge_change(self, gauge: Gauge, preflight: Preflight) -> Outcome:
        """Preflight, baseline, change, preflight again, treatment or pairs, verdict, rollback, restored."""
        flown = self._fly(preflight, "baseline")
        self._windows(gauge, self.plan.before)
        problem = self._change(gauge)
        if problem is None:
            self._settle(gauge.shadow)
            flown = self._fly(preflight, "treatment")
            self._windows(gauge, self.plan.after)
            problem = self._pairs(gauge) if self.plan.in_pairs else None
        if problem is None:
            with self.clock.stretch("judge_s"):
                self.say("judge", "")
                judgement = alone(flown) if self.plan.preflight_only else joined(self._judged(gauge), flown)
        else:
            judgement = not_applied(self.case, problem)
        # the verdict is on disk before anything is taken back: a failed revert cannot lose it
        self.conclude(gauge, judgement, Rollback(done=False, restored=False, detail="not yet rolled back"))
        traced = None if problem is not None else self._trace(gauge, preflight, judgement)
        return self._roll_back(gauge, preflight, judgement, traced)

    def conclude(self, gauge: Gauge, judgement: Judgement, rollback: Rollback) -> Outcome:
        """Write verdict.json as things stand."""
        text = document(
            self.case,
            self.directory.run_id,
            _now(),
            judgement,
            rollback,
            Played(
                gauge.table() if gauge.measured else pd.DataFrame(),
                gauge.records(),
                self.course.paired if self.plan.in_pairs and gauge.measured else None,
                [share.to_json() for share in self.case.sampled],
                self.case.placed.reasons,
            ),
            self.clock.seconds,
        )
        write_measured(self.directory, gauge.records(), self.plan, self.flown.findings if self.flown else ())
        if self.flown is not None:
            text = text.model_copy(update={"preflight": self.flown.entry()})
        self.directory.write_json("verdict.json", text.document())
        return Outcome(judgement.verdict, rollback.restored, rollback.detail)

    def _windows(self, gauge: Gauge, roles: tuple[Role, ...]) -> None:
        for number, role in enumerate(roles, start=1):
            self.say(
                "replay", f"{role.value} window {number} of {len(roles)}" if len(roles) > 1 else f"{role.value} window"
            )
            self._window(gauge, role)

    def _window(
        self, gauge: Gauge, role: Role, slot: Slot = NO_PAIR, during: Callable[[], None] = lambda: None
    ) -> None:
        started = time.monotonic()
        with self.clock.stretch("replay_s"):
            gauge.window(role, during, slot)
        self.course.windows_s.append(time.monotonic() - started)

    def _pairs(self, gauge: Gauge) -> str | None:
        """Tell what pairs would find, then play them; what went wrong when the change could not be made again."""
        shadow = gauge.shadow

        def ready() -> None:
            with self.clock.stretch("converge_s"):
                shadow.wait_ready(READY_SECONDS, lambda reason: self.say("settle", f"waiting for {reason}"))

        with self.clock.stretch("judge_s"):
            self.say(FORESEEN, self.course.planned(gauge))
        alternation = Alternation(
            shadow,
            self.case.change,
            lambda role, slot: self._window(gauge, role, slot),
            lambda: self._settle(shadow),
            ready,
            lambda what: self.say("replay", what),
        )
        try:
            return self.course.play(gauge, alternation)
        except RevertFailed as failure:
            self.conclude(gauge, self._judged(gauge), Rollback(done=False, restored=False, detail=str(failure)))
            raise

    def _fly(self, preflight: Preflight, role: str) -> Preflown:
        """One flow of every class through the shadow, and all that the change may have opened."""
        survey = preflight.survey
        self.say("preflight", f"{len(survey.classes)} classes, {len(survey.exposures)} accesses")
        with self.clock.stretch("preflight_s"):
            preflight.go(role)
        self.flown = preflown(self.case, survey, preflight.passes)
        self.directory.write_table("disposition", self.flown.table)
        return self.flown

    def _judged(self, gauge: Gauge) -> Judgement:
        if not self.plan.in_pairs:
            return judged(self.case, gauge.table(), self._counters(), gauge.records())
        paired = self.course.judge(gauge)
        self.directory.write_table("effects", paired.effects())
        return blamed_on(self.case, paired.judgement, gauge.table(), self._counters())

    def _change(self, gauge: Gauge) -> str | None:
        """Make the change, while traffic runs if there is any; what went wrong, if it could not be."""
        problems: list[str] = []

        def change() -> None:
            started = time.monotonic()
            try:
                apply(gauge.shadow, self.case.change)
            except (CommandFailed, NotReady, Unsupported) as failure:
                problems.append(str(failure))
            self.course.change_s = time.monotonic() - started

        def change_amid() -> None:
            time.sleep(gauge.window_seconds * CHANGE_AT)
            change()

        if self.plan.preflight_only:
            self.say("change", self.case.change.name)
            change()
        else:
            self.say("change", f"{self.case.change.name}, while traffic runs")
            self._window(gauge, Role.TRANSITION, during=change_amid)
        return problems[0] if problems else None

    def _settle(self, shadow: Shadow) -> None:
        """Let protocols and health checks come to rest; what does not is the change's doing, not an error."""
        started = time.monotonic()
        with self.clock.stretch("converge_s"):
            try:
                shadow.wait_ready(SETTLE_SECONDS, lambda reason: self.say("settle", f"waiting for {reason}"))
            except NotReady as unsettled:
                self.say("settle", f"goes on all the same: {unsettled}")
        self.course.settle_s = time.monotonic() - started

    def _trace(self, gauge: Gauge, preflight: Preflight, judgement: Judgement) -> FlowTrace | None:
        """Send one affected flow with captures on every hop, where a failure needs that witness."""
        if judgement.verdict is not Verdict.FAIL or self.plan.preflight_only:
            return None
        failed = failed_with_change(gauge.table())
        flows, scripts = self.case.flows, self.case.schedule.scripts
        flow = chosen(judgement.findings, flows, scripts, preflight.survey, preflight.passes, failed)
        if flow is None:
            return None
        self.say("trace", f"flow {flow.flow_id}")
        traced = FlowTrace(gauge.shadow, gauge.player, flow)
        with self.clock.stretch("trace_s"):
            if gauge.measured[-1].slot.arm in AS_IS_ARMS:
                self.made_again = True
                try:
                    apply(gauge.shadow, self.case.change)
                except (CommandFailed, NotReady, Unsupported) as failure:
                    traced.problem = str(failure)
                    return traced
                self._settle(gauge.shadow)
            traced.with_change()
        return traced

    def _traced(self, traced: FlowTrace, judgement: Judgement) -> Judgement:
        """Send it once more as things were; the judgement with what both journeys tell, which is kept."""
        with self.clock.stretch("trace_s"):
            traced.taken_back()
        trace = traced.trace(self.directory.run_id, self.case.change, self.case.lab.topology)
        if trace is None:
            self.say("trace", f"none: {traced.problem}")
            return judgement
        told = testimony(trace)
        self.directory.write_json(TRACED, {"told": told.model_dump(mode="json"), "trace": trace.document()})
        return replace(judgement, findings=witnessed(judgement.findings, told))

    def _roll_back(self, gauge: Gauge, preflight: Preflight, judgement: Judgement, traced: FlowTrace | None) -> Outcome:
        self.say("rollback", self.case.change.name)
        try:
            revert(gauge.shadow, self.case.change)
            with self.clock.stretch("converge_s"):
                gauge.shadow.wait_ready(READY_SECONDS, lambda reason: self.say("rollback", f"waiting for {reason}"))
        except (RevertFailed, NotReady) as failure:
            self.conclude(gauge, judgement, Rollback(done=False, restored=False, detail=str(failure)))
            if isinstance(failure, RevertFailed):
                raise
            raise RevertFailed(self.case.change.name, str(failure)) from failure
        if traced is not None:
            judgement = self._traced(traced, judgement)
        restored, detail = False, ""
        for attempt in range(RESTORED_TRIES):
            if self.plan.preflight_only:
                self._fly(preflight, "restored")
                restored, detail = answered_as_before(preflight.passes)
            else:
                # where the last window of the pairs came after a rollback, it is a restored one already
                if attempt or self.made_again or gauge.measured[-1].slot.arm not in AS_IS_ARMS:
                    self._windows(gauge, self.plan.restoration)
                with self.clock.stretch("judge_s"):
                    restored, detail = self._restored(gauge, last_only=attempt > 0)
            if restored:
                break
        return self.conclude(gauge, judgement, Rollback(done=True, restored=restored, detail=detail))

    def _restored(self, gauge: Gauge, *, last_only: bool) -> tuple[bool, str]:
        asked = gauge.table(), self.case.flows, tolerances(self.case), gauge.records()
        return restored_by_pairs(*asked, last_only=last_only) if self.plan.in_pairs else judge_restored(*asked)

    def _counters(self) -> pd.DataFrame:
        return self.directory.read_table("counters")


def _stand_ins(shadow: Shadow) -> dict[str, list[str]]:
    """What the shadow made because production's own was not given (certificates), by node."""
    told = {node: [r.object for r in readings if r.kind == STAND_IN] for node, readings in shadow.readings().items()}
    return {node: made for node, made in told.items() if made}


def _packet_plans(case: Case) -> Sequence[PacketPlan]:
    """The plan of packet mode, where there is one."""
    return () if case.packets is None else (case.packets,)


def _impairments(case: Case) -> Iterator[Impairment]:
    """What links do, as the lab has them and as the change makes them."""
    for link in case.lab.topology.links:
        yield from (link.a.egress, link.b.egress)
    for change in case.change.links:
        yield from (change.a_to_b, change.b_to_a)


def _player(case: Case, shadow: Shadow, survey: Survey) -> Player:
    patience = Patience(
        connect_timeout_ns=int(case.policy.connect_timeout_s * 1e9),
        message_timeout_ns=int(case.policy.response_timeout_s * 1e9),
    )
    spaces = {node: fd for node, fd in shadow.namespaces().items() if node in _end_points(shadow)}
    return Player(
        replace(case.schedule, probes=survey.scripts),
        spaces,
        listeners(case.lab, case.flows, case.configs),
        patience,
        trust=trusted(shadow),
    )


def _taps(shadow: Shadow) -> Taps:
    spaces = shadow.namespaces()
    return Taps([Tap(node, spaces[node]) for node in _end_points(shadow)])


def _end_points(shadow: Shadow) -> list[str]:
    return [n.name for n in shadow.topology.nodes if n.kind in END_POINTS]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
