"""A verdict as Markdown, for the comment on a merge request: the cause first, then what it did.

A hidden marker lets the pipeline find its own comment again and update it. Whatever stems from a capture or a config
goes through `markup`. May not know who posts it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from analysis.words import percent, plural, quantity
from testbed.gate.cases import is_valid
from testbed.gate.markup import code, fenced, folded, prose
from testbed.gate.places import Layout, culprits
from testbed.verdict_file import ClassEntry, ExpectationEntry, FindingEntry, VerdictFile, number
from testbed.visible import one_line

MOST_CHARACTERS = 60_000
"""GitHub takes 65,536 of them."""
CAUSES, FINDINGS, FLOWS, EVIDENCE = 10, 25, 200, 6
_SIGN = {"PASS": "✅", "INCONCLUSIVE": "❔", "FAIL": "❌"}
_OF_STATE = {
    "not_met": "❌ not so",
    "not_tested": "❔ not tested",
    "expired": "❗ expired",
    "met": "✅ met",
    "absent": "absent",
}
STATES = tuple(_OF_STATE)
_SHOWN_KPIS = ("response_ns", "goodput_bps")
_NOT_IN_AN_ID = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Around:
    """What the pipeline knows of the run beside its verdict."""

    comment_id: str = ""
    """Tells the comments of several gates on one merge request apart; "": the lab's name."""
    report: str = ""
    """Where a person finds the whole report; "" when nobody can."""
    rollback: bool = False
    """Whether the run directory has the inverse change as files."""
    note: str = ""
    """A sentence on how the verdict was used, such as that it was only observed."""
    hooks: tuple[str, ...] = ()
    """What was run on the verdict, and what came of it."""


def markdown(
    verdict: VerdictFile, layout: Layout, around: Around | None = None, most_characters: int = MOST_CHARACTERS
) -> str:
    """The comment, at most so many characters long; a part that does not fit is left out as a whole, and that is said.

    ValueError for less than 1,000 characters.
    """
    if most_characters < 1000:
        raise ValueError(f"found {most_characters} characters, expected at least 1,000")
    around = around or Around()
    parts = [part for part in _parts(verdict, layout, around) if part]
    text = f"<!-- {marker(verdict, around)} -->"
    left = 0
    for part in parts:
        # room for the sentence that tells the cut
        if len(text) + len(part) + 2 > most_characters - 200:
            left += 1
        else:
            text += f"\n\n{part}"
    if left:
        text += f"\n\n_Cut to {most_characters:,} characters: {plural(left, 'part')} left out. The report has all._"
    return text + "\n"


def marker(verdict: VerdictFile, around: Around) -> str:
    """What finds this comment again: it names the gate and not the run."""
    name = _NOT_IN_AN_ID.sub("-", around.comment_id or verdict.lab).strip("-") or "gate"
    # two hyphens would end the comment it stands in
    return "shadow-testbed:" + re.sub("-{2,}", "-", name)[:100]


def _parts(verdict: VerdictFile, layout: Layout, around: Around) -> Iterator[str]:
    yield f"## {_SIGN[verdict.verdict]} {verdict.verdict}: {prose(verdict.change.name)} on {prose(verdict.lab)}"
    yield f"**{prose(verdict.reason)}**" if verdict.reason.strip() else ""
    yield f"_{prose(around.note)}_" if around.note else ""
    yield "\n".join(_facts(verdict, around))
    blamed = list(culprits(verdict).values())
    for findings in blamed[:CAUSES]:
        yield _cause(findings, verdict, layout)
    if len(blamed) > CAUSES:
        yield f"and {plural(len(blamed) - CAUSES, 'more cause')}"
    yield _expectations(verdict)
    yield _classes(verdict)
    yield _findings(verdict)
    yield from _flows(verdict)


def _cause(findings: Sequence[FindingEntry], verdict: VerdictFile, layout: Layout) -> str:
    blame = findings[0].blame
    assert blame is not None
    lines = [f"**Cause: {prose(blame.node)}**, {prose(blame.object)}"]
    place = layout.place(blame, verdict.change.lines)
    if place is not None:
        lines[0] += f", {code(f'{place.path}:{place.line}')}"
    elif blame.file is not None:
        lines[0] += f", {code(blame.file + (f':{blame.line}' if blame.line is not None else ''))}"
    signs = {x.sign for x in verdict.change.lines if (x.file, x.line, x.text) == (blame.file, blame.line, blame.text)}
    if blame.text.strip():
        sign = "-" if signs == {"-"} else "+" if "+" in signs else " "
        text = blame.text.strip().replace("\n", " ")
        lines += ["", fenced(f"{sign}{text}", "diff")]
        lines += [] if signs else ["", "Not a line of this change: it lay in wait there."]
    said = list(dict.fromkeys(line for finding in findings for line in _evidence(finding)))
    lines += ["", *(f"- {prose(line)}" for line in said[:EVIDENCE])] if said else []
    return "\n".join(lines)


def _evidence(finding: FindingEntry) -> Sequence[str]:
    return finding.blame.evidence if finding.blame else ()


def _findings(verdict: VerdictFile) -> str:
    told = [f for f in verdict.findings if f.verdict == "FAIL"] + [f for f in verdict.findings if f.verdict == "WARN"]
    if not told:
        return ""
    rows = [f"| {f.verdict} | {prose(f.effect)} | {f.priority} |" for f in told[:FINDINGS]]
    more = f"\n\nand {plural(len(told) - FINDINGS, 'more finding')}" if len(told) > FINDINGS else ""
    return "\n".join(["| | Finding | Priority |", "|---|---|---|", *rows]) + more


def _expectations(verdict: VerdictFile) -> str:
    """What was declared and what came of it; what is not so comes first."""
    if not verdict.expectations:
        return ""
    told = sorted(verdict.expectations, key=lambda one: STATES.index(one.state))
    rows = [
        f"| {_OF_STATE[one.state]} | {one.kind} | {prose(one.name)}: {prose(one.declared)} | "
        f"{prose('; '.join(one.evidence))}{_until(one)} |"
        for one in told[:FINDINGS]
    ]
    more = f"\n\nand {len(told) - FINDINGS} more expectations" if len(told) > FINDINGS else ""
    return "\n".join(["| | | Declared | Seen |", "|---|---|---|---|", *rows]) + more


def _until(one: ExpectationEntry) -> str:
    return "" if one.expires is None else f" ({prose(one.owner or '')}, until {one.expires})"


def _classes(verdict: VerdictFile) -> str:
    affected = [one for one in verdict.classes if one.verdict != "PASS"]
    unhurt = len(verdict.classes) - len(affected)
    if not affected:
        return f"{plural(unhurt, 'class')} of flows, all unchanged." if unhurt else ""
    shown = [name for name in _SHOWN_KPIS if any(name in one.kpis for one in affected)]
    heads = {"response_ns": "Response time", "goodput_bps": "Goodput"}
    head = "| | Class | Priority | As captured |" + "".join(f" {heads[name]} |" for name in shown)
    rows = [head, "|---" * (4 + len(shown)) + "|"]
    for one in affected[: FINDINGS * 2]:
        cells = [_SIGN[one.verdict], prose(one.flow_class), one.priority, _kept(one), *(_move(one, n) for n in shown)]
        rows.append("| " + " | ".join(cells) + " |")
    if unhurt:
        rows += ["", f"{plural(unhurt, 'other class')} unchanged."]
    return "\n".join(rows)


def _kept(one: ClassEntry) -> str:
    entry = one.kpis.get("as_expected_ratio")
    before, after = (math.nan, math.nan) if entry is None else (number(entry.before), number(entry.after))
    if math.isnan(before) or math.isnan(after):
        return plural(one.flows, "flow")
    return f"{round(before * one.flows)} → {round(after * one.flows)} of {one.flows}"


def _move(one: ClassEntry, kpi: str) -> str:
    entry = one.kpis.get(kpi)
    if entry is None:
        return "-"
    before, after = number(entry.before), number(entry.after)
    share = percent(before, after, number(entry.deviation_percent))
    moved = f"{quantity(before, entry.unit)} → {quantity(after, entry.unit)}"
    return f"{moved} ({share})" if share else moved


def _facts(verdict: VerdictFile, around: Around) -> Iterator[str]:
    rollback = verdict.rollback
    if rollback.restored:
        yield "- Rollback: " + ("done, network as before" if rollback.done else prose(rollback.detail or "not needed"))
    else:
        state = "done, but NOT confirmed to be as before" if rollback.done else "NOT DONE"
        yield f"- Rollback: **{state}** {prose(rollback.detail)}"
    if not is_valid(verdict):
        yield f"- Instrument: **not valid**: {prose(verdict.instrument.reason)}"
    if around.rollback:
        yield "- The inverse change is in the run directory, as files that production can apply: `rollback/`"
    yield from (f"- {prose(said)}" for said in around.hooks)
    if verdict.timings.total_s is not None:
        yield f"- Took {verdict.timings.total_s:.0f} s"
    if verdict.run_id:
        yield f"- Run {code(verdict.run_id)}" + (f", report: {code(around.report)}" if around.report else "")


def _flows(verdict: VerdictFile) -> Iterator[str]:
    for finding in verdict.findings:
        if finding.verdict == "INFO" or not finding.flows:
            continue
        shown = [one_line(flow) for flow in finding.flows[:FLOWS]]
        if len(finding.flows) > FLOWS:
            shown.append(f"… {len(finding.flows) - FLOWS} more")
        yield folded(f"{plural(len(finding.flows), 'flow')}: {finding.effect[:200]}", fenced("\n".join(shown)))
