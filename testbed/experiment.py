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
from functools import partial

import pandas as pd

from analysis.judge import Judgement, judge_restored
from analysis.verdict import Verdict
from analysis.window import Role
from replay.packet_mode.plan import PacketPlan
from replay.shards import processors
from testbed.beside import Beside
from testbed.beside_load import beside_load
from testbed.beside_packets import beside_packets
from testbed.change.apply import apply, refusals, revert
from testbed.conclusion import (
    Played,
    Rollback,
    blamed_on,
    document,
    judged,
    not_applied,
    refused,
    tolerances,
    weighed,
)
from testbed.devices.base import Device
from testbed.errors import CommandFailed, NotReady, RevertFailed, Unsupported
from testbed.expectations.weighed import Weighed
from testbed.instruments import end_points, player_of, taps_of
from testbed.link_instrument import calibration, needs_engine
from testbed.measure import NO_PAIR, Gauge, Slot, together
from testbed.measured_record import Ending, Planned, write_measured
from testbed.pairs.course import Course
from testbed.pairs.designs import Decision, beforehand, by_pilot, duet_unfit, measured_variance
from testbed.pairs.duet import Duet, Place
from testbed.pairs.judged import AS_IS_ARMS
from testbed.pairs.judged import restored as restored_by_pairs
from testbed.pairs.play import Alternation, Stopwatch
from testbed.pairs.switch import Switch
from testbed.pairs.twin import twin_of
from testbed.plan import Design, Plan
from testbed.preflight.judged import Preflown, alone, joined, preflown
from testbed.preflight.judged import restored as answered_as_before
from testbed.preflight.passes import Preflight
from testbed.preflight.survey import surveyed
from testbed.prepare import Case
from testbed.shadow import Shadow, built
from testbed.store import RunDirectory
from testbed.trace.of_run import FlowTrace, chosen, failed_with_change, in_force
from testbed.trace.witnessed import NAME as TRACED
from testbed.trace.witnessed import testimony, witnessed
from testbed.tried_record import write_tried
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
    restored: bool | None
    rollback_detail: str


def run(
    case: Case, devices: Mapping[str, Device], plan: Plan, directory: RunDirectory, clock: Clock, tell: Tell
) -> Outcome:
    """Run a what-if and write its verdict; raises NotReady, Unsupported, InvalidInput or RevertFailed."""
    experiment = _Experiment(case, directory, plan, clock, tell)
    write_tried(directory, case)
    with clock.stretch("validate_s"):
        survey = surveyed(case)
    with ExitStack() as world:
        with clock.stretch("build_s"):
            experiment.say("build", f"{len(case.lab.topology.nodes)} nodes, {len(case.lab.topology.links)} links")
            shadow = world.enter_context(built(case.lab.topology, devices, directory.path / "logs", seed=plan.seed))
            player = world.enter_context(player_of(case, shadow, survey))
            taps = world.enter_context(taps_of(shadow))
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
        gauge = Gauge(shadow, player, taps, tuple(end_points(shadow)), directory, seconds, beside, alike=plan.in_pairs)
        rejected = refusals(shadow, case.change)
        if rejected:
            judgement = refused(case, rejected)
            experiment.ending = Ending(judgement.findings)
            unchanged = Rollback(done=False, restored=True, detail="nothing was changed")
            return experiment.conclude(gauge, experiment.as_expected(gauge, judgement), unchanged)
        preflight = Preflight(survey, shadow, player, case.policy.connect_timeout_s)
        with ExitStack() as second:
            if experiment.design is None or experiment.design.used is Design.DUET:
                experiment.say("build", "a second shadow, to measure with and without the change at the same moments")
                ready = READY_SECONDS, lambda reason: experiment.say("converge", f"second shadow: {reason}")
                with clock.stretch("converge_s"):
                    made = twin_of(gauge, case, devices, survey, plan.seed, ready)
                    experiment.twin = second.enter_context(made)
            outcome = experiment.judge_change(gauge, preflight, second)
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
    expected: tuple[Mapping[str, object], ...] = ()
    course: Course = field(init=False)
    design: Decision | None = field(init=False)
    """How pairs are played, None where a pilot is to tell."""
    twin: Gauge | None = None
    """The measuring side of a second shadow, where there is one."""
    ending: Ending = field(default_factory=Ending)
    made_again: bool = False
    """Whether the change was made once more after the last window, to trace a flow."""

    def __post_init__(self) -> None:
        """Begin the watch that a budget is held against."""
        watch = Stopwatch(sum(self.clock.seconds.values()))
        self.course = Course(self.case.flows, tolerances(self.case), self.plan, watch)
        asked = self.plan.design if self.plan.in_pairs else Design.ALTERNATE
        self.design = beforehand(asked, processors(), duet_unfit(self.case), self.plan.budget_s)

    def say(self, step: str, what: str) -> None:
        """Tell whoever watches, and the event log."""
        self.directory.append_event(_now(), step, {"what": what})
        self.tell(step, what)

    def judge_change(self, gauge: Gauge, preflight: Preflight, second: ExitStack) -> Outcome:
        """Preflight, baseline, change, preflight again, treatment or pairs, verdict, rollback, restored.

        `second` holds the second shadow, which goes where a pilot decides against it.
        """
        flown = self._fly(preflight, "baseline")
        self._baseline(gauge, second)
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
            self.ending = Ending(judgement.findings)
        judgement = self.as_expected(gauge, judgement)
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
                self.expected,
            ),
            self.clock.seconds,
        )
        seen = None if self.flown is None else self.flown.seen
        planned = Planned.of(self.course.paired) if self.plan.in_pairs and gauge.measured else None
        write_measured(self.directory, gauge.records(), self.plan, planned, self.ending, seen)
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

    def _baseline(self, gauge: Gauge, second: ExitStack) -> None:
        """The windows as is; where the design is open, on one shadow and on two, and then it is decided."""
        alone: list[float] = []
        if self.design is None:
            twin, self.twin = self.twin, None
            self._windows(gauge, self.plan.before)
            alone, self.course.windows_s, self.twin = self.course.windows_s, [], twin
        self._windows(gauge, self.plan.before)
        if not self.plan.in_pairs:
            return
        asked = gauge.table(), self.case.flows, self.course.tolerances, gauge.records()
        if self.design is None:
            self.design = by_pilot(*asked)
            if self.design.used is Design.ALTERNATE:
                self.twin, self.course.windows_s = None, alone
                second.close()
        else:
            self.design = replace(self.design, variance=measured_variance(*asked))
        self.say("design", f"{self.design.used.value}: {self.design.why}")
        self.directory.amend_json("run.json", {"design": self.design.to_json()})

    def _window(
        self, gauge: Gauge, role: Role, slot: Slot = NO_PAIR, during: Callable[[], None] = lambda: None
    ) -> None:
        started = time.monotonic()
        with self.clock.stretch("replay_s"):
            if self.twin is None:
                gauge.window(role, during, slot)
            else:
                self._together(gauge, (role, slot), (Role.WARMUP, Slot(shadow=1)), during)
        self.course.windows_s.append(time.monotonic() - started)

    def _moment(self, gauge: Gauge, own: Place, other: Place) -> None:
        started = time.monotonic()
        with self.clock.stretch("replay_s"):
            self._together(gauge, own, other)
        self.course.windows_s.append(time.monotonic() - started)

    def _together(self, gauge: Gauge, own: Place, other: Place, during: Callable[[], None] = lambda: None) -> None:
        """A window on either shadow; the first shadow's is the last that was measured, as where it is alone."""
        if self.twin is None:
            raise ValueError("found one shadow, expected two")
        together([(self.twin, *other), (gauge, *own)], during)

    def _pairs(self, gauge: Gauge) -> str | None:
        """Tell what pairs would find, then play them; what went wrong when the change could not be made again."""

        def ready(shadow: Shadow) -> None:
            with self.clock.stretch("converge_s"):
                shadow.wait_ready(READY_SECONDS, lambda reason: self.say("settle", f"waiting for {reason}"))

        own = Switch(gauge.shadow, self.case.change, self._settle, ready, in_force=True)
        way: Alternation | Duet
        if self.twin is None:
            way = Alternation(own, partial(self._window, gauge), partial(self.say, "replay"))
        else:
            other = Switch(self.twin.shadow, self.case.change, self._settle, ready)
            way = Duet((own, other), partial(self._moment, gauge), partial(self.say, "replay"))
        with self.clock.stretch("judge_s"):
            self.say(FORESEEN, self.course.planned(gauge, way))
        try:
            return self.course.play(gauge, way)
        except RevertFailed as failure:
            judgement = self._judged(gauge)
            judgement = judgement if self.flown is None else joined(judgement, self.flown)
            judgement = self.as_expected(gauge, judgement)
            self.conclude(gauge, judgement, Rollback(done=False, restored=False, detail=str(failure)))
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

    def as_expected(self, gauge: Gauge, judgement: Judgement) -> Judgement:
        """The judgement with what was declared of the change, and its waivers."""
        judgement, self.expected = self._weighed(gauge).applied(judgement)
        return judgement

    def _weighed(self, gauge: Gauge) -> Weighed:
        kpis = gauge.table() if gauge.measured else pd.DataFrame()
        return weighed(self.case, kpis, gauge.records(), self.flown.table if self.flown else pd.DataFrame())

    def _judged(self, gauge: Gauge) -> Judgement:
        rest = self._weighed(gauge).rest
        if not self.plan.in_pairs:
            return judged(self.case, gauge.table(), self._counters(), gauge.records(), rest)
        paired = self.course.judge(gauge, rest)
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
            if not in_force(gauge.shadow, self.case.change):
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
        restored: bool | None = None
        detail = ""
        for attempt in range(RESTORED_TRIES):
            self.ending = replace(self.ending, restored_tries=attempt + 1)
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

    def _restored(self, gauge: Gauge, *, last_only: bool) -> tuple[bool | None, str]:
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


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
