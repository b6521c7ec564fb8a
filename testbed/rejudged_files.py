"""What a run that was judged again leaves: a directory of its own beside the first verdict, and how the two differ.

It judges nothing and knows no tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from testbed import __version__
from testbed.errors import InvalidInput
from testbed.record_of_run import digest
from testbed.rejudge import Rejudged, StoredRun
from testbed.report import NAME as REPORT
from testbed.report import render
from testbed.store import RunDirectory
from testbed.verdict_file import NAME, FindingEntry, VerdictFile

FOLDER = "rejudged"
RECORD = "rejudged.json"
MOST_TOLD = 8
"""Findings of one kind that are told one by one."""
POLICY, EXPECT = "policy.yaml", "expect.yaml"


@dataclass(frozen=True, slots=True)
class Difference:
    """What another judgement changed: findings that are gone or new, and those that weigh otherwise, as (was, is)."""

    before: VerdictFile
    after: VerdictFile
    gone: tuple[FindingEntry, ...]
    new: tuple[FindingEntry, ...]
    moved: tuple[tuple[FindingEntry, FindingEntry], ...]

    @classmethod
    def of(cls, before: VerdictFile, after: VerdictFile) -> Difference:
        """By the findings' ids; in the order of the verdicts."""
        was, now = _by_id(before.findings), _by_id(after.findings)
        return cls(
            before,
            after,
            tuple(one for name, one in was.items() if name not in now),
            tuple(one for name, one in now.items() if name not in was),
            tuple((was[name], one) for name, one in now.items() if name in was and was[name].verdict != one.verdict),
        )

    @property
    def is_none(self) -> bool:
        """Whether both verdicts say the same, word for word."""
        return self.before.document() == self.after.document()

    def lines(self) -> list[str]:
        """What a person is told."""
        if self.is_none:
            return ["the same as the first verdict, to the octet"]
        moved = "" if self.before.verdict == self.after.verdict else f"{self.before.verdict} → "
        told = [f"against the first verdict: {moved}{self.after.verdict}"]
        told += _few(f"  gone: {one.verdict} {one.effect}" for one in self.gone)
        told += _few(f"  new: {one.verdict} {one.effect}" for one in self.new)
        told += _few(f"  {was.verdict} → {now.verdict}: {now.effect}" for was, now in self.moved)
        first, again = self.before.rollback, self.after.rollback
        if first.restored != again.restored:
            told.append(f"  restored: {_yes(first.restored)} → {_yes(again.restored)}: {again.detail}")
        if len(told) == 1:
            told.append("  no finding is gone, new or weighs otherwise; numbers or words differ")
        return told

    def to_json(self) -> dict[str, object]:
        """As in rejudged.json."""
        return {
            "same": self.is_none,
            "first": self.before.verdict,
            "verdict": self.after.verdict,
            "gone": [one.finding_id for one in self.gone],
            "new": [one.finding_id for one in self.new],
            "moved": [{"finding_id": now.finding_id, "was": was.verdict, "is": now.verdict} for was, now in self.moved],
        }


def write_rejudged(
    run: StoredRun, judged: Rejudged, policy: Path | None, expect: Path | None, output: Path | None
) -> tuple[Path, Difference]:
    """Write verdict.json, the page and what they were made with into a directory that was not there; and return it.

    The directory is `rejudged/<n>` of the run, or `output`.  InvalidInput when that has something in it, or cannot be
    made.
    """
    target = RunDirectory(_made(run.directory.path / FOLDER, output))
    difference = Difference.of(run.first, judged.verdict)
    given: Mapping[str, Path | None] = {POLICY: policy, EXPECT: expect}
    for name, path in given.items():
        if path is not None:
            target.write_bytes(name, path.read_bytes())
    target.write_json(NAME, judged.verdict.document())
    if judged.effects is not None:
        target.write_table("effects", judged.effects)
    record = {
        "version": 1,
        "run_id": run.first.run_id,
        "testbed": __version__,
        "given": {name: None if path is None else _told(path) for name, path in given.items()},
        "difference": difference.to_json(),
    }
    target.write_json(RECORD, record)
    target.write_text(REPORT, render(run.directory.path, judged.verdict))
    return target.path, difference


def _made(folder: Path, output: Path | None) -> Path:
    if output is None:
        for number in count(1):
            try:
                (folder / str(number)).mkdir(parents=True)
            except FileExistsError:
                continue
            except OSError as problem:
                raise _unwritable(folder, problem) from None
            return folder / str(number)
    assert output is not None
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InvalidInput(output, 1, 1, "a file or a folder with something in it", "a new or empty folder")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise _unwritable(output, problem) from None
    return output.absolute()


def _unwritable(path: Path, problem: OSError) -> InvalidInput:
    return InvalidInput(path, 1, 1, problem.strerror or str(problem), "a folder that can be made (or -o elsewhere)")


def _told(path: Path) -> dict[str, str]:
    return {"path": str(path.absolute()), "blake2b": digest(path)}


def _by_id(findings: Iterable[FindingEntry]) -> dict[str, FindingEntry]:
    return {one.finding_id: one for one in findings}


def _few(lines: Iterable[str]) -> list[str]:
    every = list(lines)
    more = len(every) - MOST_TOLD
    return [*every[:MOST_TOLD], *([f"  and {more} more"] if more > 0 else [])]


def _yes(answer: bool | None) -> str:
    return {True: "yes", False: "no", None: "not told"}[answer]
