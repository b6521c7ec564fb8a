"""A verdict as GitLab's merge-request widgets read it: code quality on blamed lines, metrics against the target branch.

May not know how the verdict was reached.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator

from testbed.gate.places import Layout, fingerprint, place_of, rule_id
from testbed.verdict_file import Number, VerdictFile, number
from testbed.visible import one_line

_SEVERITY = {"critical": "blocker", "high": "critical", "normal": "major", "low": "minor"}
_WORDS = ("PASS", "INCONCLUSIVE", "FAIL")
_NOT_IN_A_NAME = re.compile("[^a-zA-Z0-9_]")


def codequality(verdict: VerdictFile, layout: Layout) -> str:
    """A JSON list with an entry for each finding whose culprit is a line of the repository."""
    entries = []
    for finding in verdict.findings:
        place = place_of(finding, verdict, layout)
        if finding.verdict == "INFO" or place is None:
            continue
        entries.append(
            {
                "description": one_line(finding.effect),
                "check_name": rule_id(finding),
                "fingerprint": fingerprint(finding),
                "severity": _SEVERITY[finding.priority] if finding.verdict == "FAIL" else "info",
                "location": {"path": place.path, "lines": {"begin": place.line}},
            }
        )
    return json.dumps(entries, indent=2) + "\n"


def metrics(verdict: VerdictFile) -> str:
    """OpenMetrics text: the verdict, and every class's KPIs before and after, in the units that the names have."""
    told = [
        ("shadow_testbed_verdict", {"word": word}, float(verdict.verdict == word), "whether this is the verdict")
        for word in _WORDS
    ]
    told += [
        ("shadow_testbed_findings", {"severity": word}, float(sum(f.verdict == word for f in verdict.findings)), "")
        for word in ("FAIL", "WARN")
    ]
    told += _of_classes(verdict)
    lines: list[str] = []
    for family in dict.fromkeys(name for name, *_ in told):
        samples = [each for each in told if each[0] == family]
        lines.append(f"# TYPE {family} gauge")
        if samples[0][3]:
            lines.append(f"# HELP {family} {samples[0][3]}")
        lines += [f"{family}{_labels(verdict, labels)} {_value(value)}" for _family, labels, value, _help in samples]
    return "\n".join([*lines, "# EOF"]) + "\n"


def _of_classes(verdict: VerdictFile) -> Iterator[tuple[str, dict[str, str], float, str]]:
    for one in verdict.classes:
        for kpi, entry in one.kpis.items():
            name = f"shadow_testbed_{_NOT_IN_A_NAME.sub('_', kpi)}"
            sides: tuple[tuple[str, Number], ...] = (("before", entry.before), ("after", entry.after))
            for when, value in sides:
                if not math.isnan(number(value)):
                    yield name, {"class": one.flow_class, "when": when}, number(value), f"of a class, in {entry.unit}"


def _labels(verdict: VerdictFile, labels: dict[str, str]) -> str:
    told = {"lab": verdict.lab, **labels}
    return "{" + ",".join(f'{name}="{_label_text(value)}"' for name, value in told.items()) + "}"


def _label_text(text: str) -> str:
    return one_line(text).replace("\\", "\\\\").replace('"', '\\"')


def _value(value: float) -> str:
    return ("+Inf" if value > 0 else "-Inf") if math.isinf(value) else repr(value)
