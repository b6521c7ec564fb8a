"""A verdict as SARIF 2.1.0, for code scanning: a result for each finding whose culprit is a line of the repository.

Its fingerprints hold the text of the line and not its number, so that a finding stays the same one while lines move.
May not know how the verdict was reached.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.parse import quote

from testbed import __version__
from testbed.gate.cases import explained, label
from testbed.gate.places import EXPECTATION, Layout, Place, fingerprint, place_of, rule_id
from testbed.verdict_file import BlameEntry, FindingEntry, VerdictFile
from testbed.visible import visible

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
MOST_RESULTS = 5000
"""GitHub shows no more of one run."""
ROOT = "%SRCROOT%"
_LEVEL = {"FAIL": "error", "WARN": "warning"}


def sarif(verdict: VerdictFile, layout: Layout) -> str:
    """The document; a verdict that blames no line has no results."""
    found = list(_placed(verdict, layout))[:MOST_RESULTS]
    kinds = {rule_id(finding): finding for finding, _place in reversed(found)}
    rules = sorted(kinds)
    document = {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "shadow-testbed",
                        "version": __version__,
                        "rules": [_rule(name, kinds[name]) for name in rules],
                    }
                },
                "automationDetails": {"id": visible(f"shadow-testbed/{verdict.lab}/")},
                "columnKind": "unicodeCodePoints",
                "results": [_result(finding, place, rules) for finding, place in found],
            }
        ],
    }
    return json.dumps(document, indent=2) + "\n"


def _placed(verdict: VerdictFile, layout: Layout) -> Iterator[tuple[FindingEntry, Place]]:
    """Failures first: what is cut off is the least of them."""
    for wanted in _LEVEL:
        for finding in verdict.findings:
            place = place_of(finding, verdict, layout)
            if finding.verdict == wanted and place is not None:
                yield finding, place


def _rule(name: str, finding: FindingEntry) -> dict[str, object]:
    return {
        "id": name,
        "name": "".join(word.capitalize() for word in name.rsplit("/", maxsplit=1)[-1].split("-")),
        "shortDescription": {"text": _about(finding)},
        "defaultConfiguration": {"level": "error"},
    }


def _about(finding: FindingEntry) -> str:
    if finding.kpi == EXPECTATION:
        return "What was declared of the change is not so, or was not tested"
    return f"Flows through the shadow: {label(finding.kpi)} is worse with the change"


def _result(finding: FindingEntry, place: Place, rules: list[str]) -> dict[str, object]:
    blame = finding.blame
    gone = "The line that was here is to blame.\n" if place.removed else ""
    region: dict[str, object] = {"startLine": place.line}
    if blame is not None and blame.text and not place.removed and finding.kpi != EXPECTATION:
        region["snippet"] = {"text": visible(blame.text)}
    named = [] if blame is None else [{"name": visible(blame.object), "fullyQualifiedName": _full(blame)}]
    return {
        "ruleId": rule_id(finding),
        "ruleIndex": rules.index(rule_id(finding)),
        "level": _LEVEL[finding.verdict],
        "message": {"text": visible(gone + explained(finding))},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": quote(place.path), "uriBaseId": ROOT},
                    "region": region,
                },
                **({"logicalLocations": named} if named else {}),
            }
        ],
        "partialFingerprints": {"shadowTestbed/v1": fingerprint(finding)},
        "properties": {"scope": finding.scope, "subject": visible(finding.subject), "priority": finding.priority},
    }


def _full(blame: BlameEntry) -> str:
    return visible(f"{blame.node}/{blame.object}")
