"""The verdict on a terminal, in about twenty lines that a tired person understands at once; plain in a pipe.

May not know how a run is made or judged: it reads the verdict document only. Text of others is never markup here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from analysis.kpi import KPIS
from analysis.pairs.design import FLOOR
from analysis.words import percent, plural, quantity
from testbed.advice import next_steps, telling
from testbed.report.effect_rows import effect_row, gravest_first
from testbed.report.paired import certain, headline, is_flaky, reach
from testbed.verdict_file import ClassEntry, ExpectationEntry, FindingEntry, PairedEntry, VerdictFile, number
from testbed.visible import one_line

CAUSES, FINDINGS, CLASSES, REASONS, EFFECTS, STEPS = 3, 5, 8, 3, 6, 4
_TONE = {"PASS": "green", "INCONCLUSIVE": "yellow", "FAIL": "red", "WARN": "yellow", "INFO": "dim"}
_SIGN = {"PASS": "✓", "INCONCLUSIVE": "?", "FAIL": "✗"}
_SHOWN_KPIS = ("response_ns",)
_PIPE_WIDTH = 400


def print_summary(verdict: VerdictFile, report: Path | None, console: Console | None = None) -> None:
    """Print the summary; without a console, to standard output: coloured on a terminal unless NO_COLOR is set."""
    console = console or Console(highlight=False)
    if not console.is_terminal:
        console = Console(file=console.file, width=max(console.width, _PIPE_WIDTH), color_system=None, highlight=False)
    console.print(summary(verdict, report))


def summary(verdict: VerdictFile, report: Path | None) -> RenderableType:
    """The summary as something that rich can print."""
    parts: list[RenderableType] = [_headline(verdict), Text(one_line(headline(verdict)), style="bold"), Text("")]
    parts += _next(verdict)
    parts += _causes(verdict)
    told = [_findings(verdict), _effects(verdict)]
    if verdict.paired is not None and not any(one.verdict == "FAIL" for one in certain(verdict.findings)):
        told.reverse()
    parts += [part for block in told for part in block]
    parts += _classes(verdict)
    parts += list(_facts(verdict))
    if report is not None:
        parts.append(Text(f"{'Report':<11}", style="dim") + Text(str(report), style="default"))
    return Group(*parts)


def _headline(verdict: VerdictFile) -> Text:
    tone = _TONE[verdict.verdict]
    line = Text()
    line.append(f"{_SIGN[verdict.verdict]} {verdict.verdict}", style=f"bold {tone}")
    line.append(f"   {one_line(verdict.change.name)} on {one_line(verdict.lab)}", style="dim")
    if verdict.expected is not None:
        same = verdict.expected == verdict.verdict
        line.append(f"   expected {verdict.expected}: {'as expected' if same else 'NOT as expected'}")
    return line


def _causes(verdict: VerdictFile) -> list[RenderableType]:
    lines: list[RenderableType] = []
    for finding in verdict.blamed[:CAUSES]:
        blame = finding.blame
        assert blame is not None
        place = Text("Cause  ", style="bold")
        place.append(one_line(blame.node), style="bold")
        place.append(f"  {one_line(blame.object)}")
        if blame.file is not None:
            spot = one_line(blame.file) + (f":{blame.line}" if blame.line is not None else "")
            place.append("  ")
            place.append(spot, style="cyan")
        lines.append(place)
        if blame.text:
            lines.append(Text(f"       {one_line(blame.text)}", style=_TONE["FAIL"]))
        if blame.evidence:
            lines.append(_under(Text(one_line(blame.evidence[0]), style="dim")))
        if blame.known_by:
            lines.append(_under(Text(blame.known_by, style="dim")))
    if len(verdict.blamed) > CAUSES:
        lines.append(Text(f"       and {plural(len(verdict.blamed) - CAUSES, 'more cause')}", style="dim"))
    return [*lines, Text("")] if lines else []


def _next(verdict: VerdictFile) -> list[RenderableType]:
    steps = next_steps(verdict)
    lines: list[RenderableType] = []
    for index, step in enumerate(steps[:STEPS]):
        lines.append(_under(Text(one_line(step)), Text("Next" if index == 0 else "", style="bold")))
    return [*lines, Text("")] if lines else []


def _findings(verdict: VerdictFile) -> list[RenderableType]:
    told = [finding for finding in verdict.findings if finding.verdict != "INFO"]
    if verdict.paired is not None:
        told = list(certain(told))
    if not told or (len(told) == 1 and told[0].effect == verdict.reason):
        return []
    lines: list[RenderableType] = [_finding(finding) for finding in told[:FINDINGS]]
    if len(told) > FINDINGS:
        lines.append(Text(f"       and {plural(len(told) - FINDINGS, 'more finding')}", style="dim"))
    return [*lines, Text("")]


def _effects(verdict: VerdictFile) -> list[RenderableType]:
    """The KPIs that are worse or in doubt, a line each: on average, the interval, and how far it was allowed to go."""
    told = gravest_first(telling(verdict))
    if not told:
        return []
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for name in ("KPI", "On average", "Interval", "Limit"):
        table.add_column(name, no_wrap=name != "KPI")
    for one in told[:EFFECTS]:
        row = effect_row(one, lambda flow: f"flow {flow}")
        tone = "FAIL" if one.answer == "inferior" else "INCONCLUSIVE"
        who = Text(f"{_SIGN[tone]} ", style=_TONE[tone]) + Text(one_line(f"{row.subject} {row.kpi}"), style="default")
        table.add_row(who, row.means, row.interval, row.limit)
    parts: list[RenderableType] = [table]
    if len(told) > EFFECTS:
        parts.append(Text(f"and {plural(len(told) - EFFECTS, 'more KPI')}", style="dim"))
    return [*parts, Text("")]


def _finding(finding: FindingEntry) -> Text:
    line = Text(f"{finding.verdict:<6} ", style=_TONE[finding.verdict])
    line.append(one_line(finding.effect), style="default")
    return line


def _classes(verdict: VerdictFile) -> list[RenderableType]:
    affected = [one for one in verdict.classes if one.verdict != "PASS"]
    if not affected or verdict.paired is not None:
        return []
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for name in ("Class", "Priority", "As captured"):
        table.add_column(name, no_wrap=True)
    shown = [name for name in _SHOWN_KPIS if any(name in one.kpis for one in affected)]
    for name in shown:
        table.add_column(KPIS[name].label.capitalize(), no_wrap=True)
    for one in affected[:CLASSES]:
        sign = Text(f"{_SIGN[one.verdict]} ", style=_TONE[one.verdict]) + Text(
            one_line(one.flow_class), style="default"
        )
        table.add_row(sign, one.priority, _flows(one), *(_move(one, name) for name in shown))
    parts: list[RenderableType] = [table]
    if len(affected) > CLASSES:
        parts.append(Text(f"and {plural(len(affected) - CLASSES, 'more class')}", style="dim"))
    unhurt = len(verdict.classes) - len(affected)
    if unhurt:
        parts.append(Text(f"{plural(unhurt, 'other class')} unchanged", style="dim"))
    return [*parts, Text("")]


def _flows(one: ClassEntry) -> Text:
    entry = one.kpis.get("as_expected_ratio")
    if entry is None:
        return Text(plural(one.flows, "flow"))
    before, after = (number(value) for value in (entry.before, entry.after))
    if math.isnan(before) or math.isnan(after):
        return Text(plural(one.flows, "flow"))
    was, now = round(before * one.flows), round(after * one.flows)
    return Text(f"{was} → {now} of {one.flows}", style=_TONE["FAIL"] if now < was else "")


def _move(one: ClassEntry, name: str) -> Text:
    entry = one.kpis.get(name)
    if entry is None:
        return Text("-", style="dim")
    before, after = number(entry.before), number(entry.after)
    share = percent(before, after, number(entry.deviation_percent))
    text = f"{quantity(before, entry.unit)} → {quantity(after, entry.unit)}"
    return Text(f"{text} ({share})" if share else text)


def _facts(verdict: VerdictFile) -> Iterator[RenderableType]:
    rollback, instrument = verdict.rollback, verdict.instrument
    if rollback.restored and not rollback.done:
        yield _fact("Rollback", "not needed", rollback.detail, bad=False)
    elif not rollback.done:
        yield _fact("Rollback", "NOT DONE", rollback.detail, bad=True)
    elif not rollback.restored:
        yield _fact("Rollback", "done, but NOT confirmed to be as before", rollback.detail, bad=True)
    else:
        yield _fact("Rollback", "done, network as before", "", bad=False)
    if not instrument.valid and verdict.windows:
        yield _fact("Instrument", "not valid", instrument.reason, bad=True)
    if verdict.paired is not None:
        yield from _paired(verdict, verdict.paired)
    if verdict.expectations:
        yield _expected(verdict.expectations)
    if verdict.preflight is not None:
        flown = verdict.preflight
        tried = (
            f"{plural(flown.classes, 'class')} and {plural(flown.exposures, 'access')} in {flown.seconds or 0:.1f} s"
        )
        changed = f"{len(flown.changed)} answered otherwise" if flown.changed else "all answered as before"
        yield _fact("Preflight", tried, changed, bad=False)
    if verdict.sampled:
        offered, replayed = (sum(getattr(one, name) for one in verdict.sampled) for name in ("offered", "replayed"))
        cut = [
            f"{one.flow_class} {one.replayed} of {one.offered}" for one in verdict.sampled if one.replayed < one.offered
        ]
        more = f" and {plural(len(cut) - CLASSES, 'more class')}" if len(cut) > CLASSES else ""
        yield _fact("Sampled", f"{replayed} of {offered} flows replayed", ", ".join(cut[:CLASSES]) + more, bad=False)
    if verdict.left_out:
        reasons = ", ".join(f"{count} {reason}" for reason, count in list(verdict.left_out.items())[:REASONS])
        more = f", {len(verdict.left_out) - REASONS} more reasons" if len(verdict.left_out) > REASONS else ""
        yield _fact("Left out", plural(sum(verdict.left_out.values()), "captured flow"), reasons + more, bad=False)
    if verdict.timings.total_s is not None:
        yield _fact("Took", f"{verdict.timings.total_s:.0f} s", "", bad=False)


def _paired(verdict: VerdictFile, paired: PairedEntry) -> Iterator[RenderableType]:
    yield from _paired_classes(verdict.classes if paired.pairs else ())
    lost = f"{plural(len(paired.lost), 'window')} not counted, {paired.lost[0].reason}" if paired.lost else ""
    yield _fact("Pairs", f"{paired.pairs} judged", lost, bad=False)
    for reason in paired.invalid[:REASONS]:
        yield _fact("Invalid", reason, "", bad=True)
    told = reach(paired)
    if told and paired.pairs >= FLOOR:
        yield _fact("Smallest", told, "found four times of five", bad=False)
    flaky = {flow for finding in verdict.findings if is_flaky(finding) for flow in finding.flows}
    if flaky:
        names = ", ".join(sorted(flaky)[:REASONS])
        more = f" and {len(flaky) - REASONS} more" if len(flaky) > REASONS else ""
        yield _fact("Flaky", plural(len(flaky), "flow"), f"{names}{more}, not judged one by one", bad=False)
    flows = {one.flow_id for one in paired.suspects} | {one.flow_id for one in paired.odd}
    if flows:
        yield _fact("Suspects", plural(len(flows), "flow"), "triage, does not gate", bad=False)


def _paired_classes(classes: Sequence[ClassEntry]) -> Iterator[RenderableType]:
    """Which classes are worse and which undecided; how their flows end and their KPIs stand above."""
    for word, verdict in (("worse", "FAIL"), ("undecided", "INCONCLUSIVE")):
        hit = [f"{one.flow_class} ({one.priority})" for one in classes if one.verdict == verdict]
        more = f" and {len(hit) - CLASSES} more" if len(hit) > CLASSES else ""
        if hit:
            state = f"{len(hit)} of {len(classes)} {word}"
            yield _fact("Classes", state, ", ".join(hit[:CLASSES]) + more, bad=False)


def _expected(told: Sequence[ExpectationEntry]) -> RenderableType:
    """How many of the declared changes are so, and what became of waivers."""
    declared = [one for one in told if one.kind != "waiver"]
    met = sum(one.state == "met" for one in declared)
    words = {"not_met": "not so", "not_tested": "not tested", "absent": "absent", "expired": "expired", "met": "in use"}
    others = [f"{one.name} {words[one.state]}" for one in told if one.state != "met" or one.kind == "waiver"]
    more = f" and {len(others) - CLASSES} more" if len(others) > CLASSES else ""
    state = f"{met} of {len(declared)} as declared" if declared else plural(len(told), "waiver")
    bad = any(one.state == "not_met" and one.kind == "must" for one in told)
    return _fact("Expected", state, ", ".join(others[:CLASSES]) + more, bad=bad)


def _fact(name: str, state: str, detail: str, *, bad: bool) -> RenderableType:
    line = Text(one_line(state), style="bold red" if bad else "default")
    if detail:
        line.append(f": {one_line(detail)}", style="default")
    return _under(line, Text(name, style="dim"), 11)


def _under(line: Text, name: Text | None = None, width: int = 7) -> Table:
    """A line whose continuations stand below its beginning, behind a name or behind nothing."""
    row = Table.grid()
    row.add_column(width=width)
    row.add_column(overflow="fold")
    row.add_row(name or Text(""), line)
    return row
