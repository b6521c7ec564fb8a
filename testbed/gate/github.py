"""What a step of a GitHub workflow prints for the reviewer: annotations on the blamed lines, and the step's summary.

GitHub drops the eleventh error of a step without a word: the worst ten are told, and how many more there are. May not
know git, nor how the verdict was reached.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from testbed.gate.cases import explained
from testbed.gate.places import Layout, culprits, place_of
from testbed.verdict_file import FindingEntry, VerdictFile
from testbed.visible import visible

MOST = 10
SUMMARY_OCTETS = 1024 * 1024
"""GitHub refuses the summary of a step that is larger, all of it."""
LONGEST = 4000
_ESCAPES = {"%": "%25", "\r": "%0D", "\n": "%0A"}
_IN_PROPERTIES = {**_ESCAPES, ":": "%3A", ",": "%2C"}


def workflow_commands(verdict: VerdictFile, layout: Layout) -> tuple[str, ...]:
    """Workflow commands, the worst first: one a culprit with all it did, one a finding that has none."""
    if verdict.verdict == "PASS":
        return ()
    groups = [*culprits(verdict).values()]
    groups += [[f] for f in verdict.findings if f.blame is None and f.verdict != "INFO"]
    groups.sort(key=lambda group: (-max(f.verdict == "FAIL" for f in group), -len(group)))
    told = [_of_group(group, verdict, layout) for group in groups]
    if not told:
        told = [command("error" if verdict.verdict == "FAIL" else "warning", {}, verdict.reason)]
    if len(told) > MOST:
        more = command("notice", {}, f"{len(told) - MOST} more in the summary")
        told = [*told[:MOST], more]
    return tuple(told)


def quoted(text: str) -> str:
    """Text for the log in which no line is taken for a workflow command."""
    token = secrets.token_hex(16)
    return f"::stop-commands::{token}\n{text.rstrip()}\n::{token}::\n"


def append_summary(text: str, file: Path) -> None:
    """Add Markdown to a step's summary; what would make it too large is not written at all, and said instead."""
    there = file.stat().st_size if file.exists() else 0
    content = (text.rstrip() + "\n\n").encode("utf-8", "backslashreplace")
    if there + len(content) > SUMMARY_OCTETS:
        content = b"The verdict's summary does not fit in here: see the run's report.\n\n"
    with file.open("ab") as summary:
        summary.write(content)


def _of_group(group: list[FindingEntry], verdict: VerdictFile, layout: Layout) -> str:
    first = next((f for f in group if f.verdict == "FAIL"), group[0])
    place = place_of(first, verdict, layout)
    properties = {"title": f"{verdict.verdict}: {verdict.change.name} on {verdict.lab}"}
    if place is not None:
        properties = {"file": place.path, "line": str(place.line), **properties}
    message = explained(first, flows=0)
    if len(group) > 1:
        message += "\nand: " + "; ".join(f.effect for f in group if f is not first)
    return command("error" if first.verdict == "FAIL" else "warning", properties, message)


def command(kind: str, properties: dict[str, str], message: str) -> str:
    """One workflow command (error, warning, notice) in which nothing of the texts can end it or begin another."""
    said = ",".join(f"{name}={_escaped(visible(value), _IN_PROPERTIES)}" for name, value in properties.items())
    text = visible(message) if len(message) <= LONGEST else visible(message)[:LONGEST] + "…"
    return f"::{kind}{' ' + said if said else ''}::{_escaped(text, _ESCAPES)}"


def _escaped(text: str, escapes: dict[str, str]) -> str:
    return "".join(escapes.get(sign, sign) for sign in text)
