"""A what-if from end to end, for whoever asks one: read, sandbox, run, rollback files, report, verdict.

The command line, the gate and the pytest plugin ask it; what happens inside the sandbox is `experiment`'s. May not know
how the answer is shown.
"""

from __future__ import annotations

import json
import resource
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path

from rich.console import Console

from analysis.verdict import Verdict
from testbed.beside_load import unreached
from testbed.capacity import fitted, thinner, told
from testbed.devices.registry import known_devices
from testbed.errors import RevertFailed
from testbed.experiment import FORESEEN, Clock, Outcome, run
from testbed.gate.places import Layout
from testbed.gate.rollback import write_rollback
from testbed.packet_flows import Manner
from testbed.pairs.budget import fit
from testbed.pairs.designs import duet_unfit
from testbed.plan import USUAL_PAIRS, Design, DuetUnfit, Plan
from testbed.policy import Policy
from testbed.prepare import Case, declaring, open_lab, prepared
from testbed.record_of_run import change_diff, run_record
from testbed.report import write_report
from testbed.sandbox import Sandbox
from testbed.store import Catalogue, RunDirectory
from testbed.verdict_file import VerdictFile, read_verdict

EXIT_CODES = {Verdict.PASS: 0, Verdict.FAIL: 1, Verdict.INCONCLUSIVE: 3}
NOT_RESTORED = 4


@dataclass(frozen=True, slots=True)
class Question:
    """What would become of the flows of `lab` with `change`; what is None is as lab and policy have it.

    `pairs` or `budget_s` ask for pairs of windows, `treatment` for so many with the change all in a row; where the
    policy does not tell either, pairs are played.  `window_s` is the speed at which a window lasts so long.
    `expect` is used in the place of the change's own expect.yaml, and `intents` is False where only its waivers hold;
    they are held against `today`, the day in UTC where it is None.  `layout` tells where the lab's files lie in a
    config repository, for the inverse change.
    """

    lab: str
    change: Path
    runs: Path
    captures: tuple[Path, ...] = ()
    policy: Path | None = None
    speed: float | None = None
    baseline: int | None = None
    treatment: int | None = None
    pairs: int | None = None
    budget_s: float | None = None
    window_s: float | None = None
    max_flows: int | None = None
    model: Path | None = None
    preflight_only: bool = False
    manner: Manner = field(default_factory=Manner)
    layout: Layout = field(default_factory=Layout)
    expect: Path | None = None
    intents: bool = True
    today: date | None = None
    design: Design = Design.AUTO


@dataclass(frozen=True, slots=True)
class Answer:
    """A run that came to its end, on disk; `shortfalls` tell which load beside the flows was not reached."""

    run: RunDirectory
    outcome: Outcome
    shortfalls: tuple[str, ...]

    @property
    def verdict(self) -> VerdictFile:
        """The verdict document."""
        return read_verdict(self.run.path)

    @property
    def report(self) -> Path:
        """The report's page."""
        return self.run.path / "report.html"

    @property
    def exit_code(self) -> int:
        """As `exit_code`."""
        return exit_code(self.outcome.verdict, self.outcome.restored)


def exit_code(verdict: Verdict, restored: bool | None) -> int:
    """0 pass, 1 fail, 3 inconclusive or a pass of which nobody can tell whether it was taken back, 4 not restored."""
    if restored is False:
        return NOT_RESTORED
    untold = restored is None and verdict is Verdict.PASS
    return EXIT_CODES[Verdict.INCONCLUSIVE if untold else verdict]


def answered(question: Question, progress: Console) -> Answer:
    """Run a what-if; raises InvalidInput, InvalidLoad, Unsupported, NotReady, RevertFailed or ChildProcessError."""
    clock, started = Clock(), time.monotonic()
    devices, manner = known_devices(), question.manner
    with clock.stretch("validate_s"), _imported(question.runs) as work:
        opened = open_lab(question.lab, work, devices)

        def at(speed: float | None) -> Case:
            return prepared(
                opened.lab,
                question.change,
                devices,
                question.captures,
                question.policy,
                speed,
                manner,
                model=question.model,
            )

        case = at(question.speed)
        if question.window_s is not None:
            case = at(case.schedule.speed * case.duration_ns / 1e9 / question.window_s)
        fits = None
        question = _designed(question, case.policy)
        if question.budget_s is not None and question.window_s is None and question.speed is None:
            fits = fit(question.budget_s, case.duration_ns / 1e9)
        if fits is not None:
            case = at(case.schedule.speed * case.duration_ns / 1e9 / fits.window_s)
            if question.max_flows is None:
                case = thinner(case, fits.share, manner.seed)
        case = fitted(case, question.max_flows, resource.getrlimit(resource.RLIMIT_NOFILE)[1], manner.seed)
        today = question.today or datetime.now(UTC).date()
        case = declaring(case, question.expect, today, intents=question.intents)
    plan = _planned(question, case)
    directory, created = _directory(question.runs, case)
    notes = (*opened.notes, *case.notes)
    for said in (*notes, *([fits.words] if fits else []), *([told(case.sampled)] if case.sampled else [])):
        progress.print(f"note: {said}", markup=False, style="yellow")
    record = run_record(case, plan, created, notes, question.captures, question.policy, question.model)
    record["expectations"] = {"file": case.expectations.file, "today": today.isoformat(), "intents": question.intents}
    directory.write_json("run.json", record)
    directory.write_table("flows", case.flows)
    directory.write_text("change.diff", change_diff(case.change))
    with Catalogue(question.runs) as catalogue:
        catalogue.begin(directory, case.lab.name, case.change.name, created)

    def job() -> tuple[Outcome, dict[str, float]]:
        # the sandbox is a fork: the progress must live in it, and its clock come back with its answer
        with progress.status("build") as status:

            def tell(step: str, what: str) -> None:
                if step == FORESEEN:
                    progress.print(what, markup=False)
                status.update(f"{step:9} {what}")

            outcome = run(case, devices, plan, directory, clock, tell)
        return outcome, clock.seconds

    try:
        outcome, clock.seconds = Sandbox(case.lab.name, (directory.path, case.lab.folder)).call(job)
    except RevertFailed as failure:
        kept = _kept(directory, question.runs)
        raise RevertFailed(failure.what, f"{failure.detail}; what was measured is in {kept}") from failure
    if outcome.verdict is Verdict.FAIL:
        write_rollback(directory, case.change, case.lab.topology, question.layout)
    with clock.stretch("report_s"):
        write_report(directory.path)
    clock.seconds["total_s"] = time.monotonic() - started
    _finish(directory, clock, question.runs, outcome)
    return Answer(directory, outcome, _shortfalls(directory))


def _designed(question: Question, policy: Policy) -> Question:
    """The question with the policy's design where it names none: pairs of windows, where the policy names none."""
    if question.preflight_only or any((question.pairs, question.budget_s, question.treatment)):
        return question
    if any((policy.pairs, policy.budget_s, policy.treatment_windows)):
        return replace(question, pairs=policy.pairs, budget_s=policy.budget_s, treatment=policy.treatment_windows)
    return replace(question, pairs=USUAL_PAIRS)


def _planned(question: Question, case: Case) -> Plan:
    """What is asked for, and by the policy otherwise; raises BudgetTooShort or DuetUnfit."""
    plan = Plan(
        question.baseline or case.policy.baseline_windows,
        question.treatment or 0,
        seed=question.manner.seed,
        preflight_only=question.preflight_only,
        pairs=question.pairs,
        budget_s=question.budget_s,
        design=question.design,
    )
    if plan.in_pairs and plan.design is Design.DUET and (unfit := duet_unfit(case)):
        raise DuetUnfit(f"duet: {unfit}")
    plan.refuse_budget(case.duration_ns / 1e9)
    return plan


def _kept(directory: RunDirectory, runs: Path) -> Path:
    """Finish a run that could not be rolled back: its verdict is on disk, if it got that far; returns where."""
    if (directory.path / "verdict.json").is_file():
        with Catalogue(runs) as catalogue:
            catalogue.conclude(directory.run_id, read_verdict(directory.path).verdict)
        # nothing may stand before what could not be taken back, not even a page that cannot be made
        with suppress(Exception):
            write_report(directory.path)
    return directory.path


def _shortfalls(directory: RunDirectory) -> tuple[str, ...]:
    found: Sequence[str] = unreached(json.loads((directory.path / "run.json").read_text()))
    return tuple(found)


@contextmanager
def _imported(runs: Path) -> Iterator[Path]:
    """Where a lab from elsewhere is written; it is kept like the run that is judged on it, and goes with bad input."""
    work = runs.absolute() / "imported" / stamped()
    try:
        yield work
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


def stamped() -> str:
    """A name that begins with the time and is nobody else's."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"


def _directory(runs: Path, case: Case) -> tuple[RunDirectory, str]:
    now = datetime.now(UTC)
    run_id = f"{now:%Y%m%dT%H%M%S}-{case.lab.name}-{case.change.name}-{secrets.token_hex(2)}"
    safe = "".join(c if c.isalnum() or c in "._-" else "-" for c in run_id)
    return RunDirectory.created(runs.absolute(), safe), now.isoformat(timespec="milliseconds")


def _finish(directory: RunDirectory, clock: Clock, runs: Path, outcome: Outcome) -> None:
    """Put the whole split of the wall time into run.json and verdict.json, and close the catalogue's entry."""
    timings = {name: round(value, 3) for name, value in clock.seconds.items()}
    verdict = read_verdict(directory.path)
    instrument = verdict.instrument.model_dump(mode="json")
    directory.amend_json("run.json", {"timings": timings, "instrument": instrument})
    directory.write_json("verdict.json", {**verdict.document(), "timings": {**verdict.timings.model_dump(), **timings}})
    with Catalogue(runs) as catalogue:
        catalogue.conclude(directory.run_id, outcome.verdict.name)
