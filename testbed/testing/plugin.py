"""A pytest plugin: the fixture `shadow` tries a change on a shadow of a lab, and asserts that it does no harm.

    def test_the_new_rule_is_harmless(shadow):
        shadow.assert_no_regression("labs/shop", "changes/new-rule")

Hard by default: FAIL and INCONCLUSIVE fail the test, with the blamed line. `soft=True` warns. May not know how a
what-if is run; nothing of the testbed is imported before a test asks for it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from testbed.verdict_file import VerdictFile

WIDTH = 120


class ShadowWarning(UserWarning):
    """What a soft assertion found."""


@dataclass(frozen=True, slots=True)
class Tried:
    """A what-if that came to its end: its verdict document, and its run directory."""

    verdict: VerdictFile
    run: Path
    restored: bool | None

    @property
    def summary(self) -> str:
        """The verdict as the command line tells it."""
        from rich.console import Console  # noqa: PLC0415

        from testbed.summary import print_summary  # noqa: PLC0415

        page = StringIO()
        print_summary(self.verdict, self.run / "report.html", Console(file=page, width=WIDTH, highlight=False))
        return page.getvalue()


class ShadowTester:
    """What the fixture gives: what-ifs of labs and changes, kept below `runs`."""

    def __init__(self, runs: Path, keep: Callable[[Tried], None]) -> None:
        self._runs = runs
        self._keep = keep

    def whatif(
        self,
        lab: str | Path,
        change: str | Path,
        *,
        captures: Sequence[str | Path] = (),
        policy: str | Path | None = None,
        expect: str | Path | None = None,
        baseline: int | None = None,
        treatment: int | None = None,
        preflight_only: bool = False,
    ) -> Tried:
        """Try a change on a shadow of a lab; raises what `testbed whatif` ends with 2 or 4 for, such as InvalidInput.

        `baseline` and `treatment` are numbers of windows; what is None is as lab, policy and change have it.
        """
        from rich.console import Console  # noqa: PLC0415

        from testbed.whatif import Question, answered  # noqa: PLC0415

        question = Question(
            str(lab),
            Path(change),
            self._runs,
            tuple(map(Path, captures)),
            None if policy is None else Path(policy),
            baseline=baseline,
            treatment=treatment,
            preflight_only=preflight_only,
            expect=None if expect is None else Path(expect),
        )
        answer = answered(question, Console(quiet=True))
        tried = Tried(answer.verdict, answer.run.path, answer.outcome.restored)
        self._keep(tried)
        return tried

    def assert_no_regression(  # noqa: PLR0913  what `whatif` takes, and how hard it is
        self,
        lab: str | Path | Tried,
        change: str | Path | None = None,
        *,
        soft: bool = False,
        inconclusive: bool = False,
        captures: Sequence[str | Path] = (),
        policy: str | Path | None = None,
        expect: str | Path | None = None,
        baseline: int | None = None,
        treatment: int | None = None,
        preflight_only: bool = False,
    ) -> Tried:
        """Fail the test unless the verdict is PASS and the rollback restored the network; returns what was tried.

        The first argument may be the answer of `whatif`, then nothing is run. `soft` makes a ShadowWarning of a FAIL,
        `inconclusive` accepts that it could not be told.
        """
        __tracebackhide__ = True
        if isinstance(lab, Tried):
            tried = lab
        elif change is None:
            raise TypeError("found a lab and no change, expected both, or the answer of whatif")
        else:
            tried = self.whatif(
                lab,
                change,
                captures=captures,
                policy=policy,
                expect=expect,
                baseline=baseline,
                treatment=treatment,
                preflight_only=preflight_only,
            )
        word = tried.verdict.verdict
        if tried.restored is False:
            pytest.fail(f"the rollback did not restore the network\n{tried.summary}", pytrace=False)
        untold = word == "INCONCLUSIVE" or tried.restored is None
        if word == "FAIL" or (untold and not inconclusive):
            if not soft:
                pytest.fail(tried.summary, pytrace=False)
            warnings.warn(ShadowWarning(f"{word}: {tried.verdict.reason} ({tried.run})"), stacklevel=2)
        return tried


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--shadow-runs DIR` keeps the runs, and their reports, where a pipeline finds them."""
    group = parser.getgroup("shadow testbed")
    group.addoption(
        "--shadow-runs", metavar="DIR", default=None, help="Keep what-ifs' runs here, not in a temp folder."
    )


@pytest.fixture
def shadow(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ShadowTester:
    """Try changes on shadows of labs: `shadow.whatif(lab, change)`, `shadow.assert_no_regression(lab, change)`."""
    named = request.config.getoption("--shadow-runs")
    runs = Path(named).absolute() if named else tmp_path_factory.mktemp("shadow-runs")

    def keep(tried: Tried) -> None:
        # for reports of other plugins, and JUnit's
        request.node.user_properties.append(("shadow-testbed", f"{tried.verdict.verdict} {tried.run}"))

    return ShadowTester(runs, keep)
