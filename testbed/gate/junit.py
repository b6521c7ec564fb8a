"""A verdict as JUnit XML, as Jenkins and GitLab read it: a case for each KPI of each class.

FAIL is a failure, an instrument that was not fit is an error, what could not be told is skipped. May not know how the
verdict was reached.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from xml.etree import ElementTree as ET

from testbed.gate.cases import State, TestCase, cases, label
from testbed.verdict_file import VerdictFile
from testbed.visible import visible

_CHILD = {State.FAILED: "failure", State.INVALID: "error", State.UNDECIDED: "skipped"}
SECONDS = len("2026-11-25T04:35:34")
"""JUnit's time stamps end there: no fractions and no zone."""
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(verdict: VerdictFile) -> str:
    """The document; every text in it is what XML can carry."""
    told = cases(verdict)
    states = Counter(case.state for case in told)
    counts = {
        "tests": str(len(told)),
        "failures": str(states[State.FAILED]),
        "errors": str(states[State.INVALID]),
        # a missing time is told by its absence: 0 would be a lie
        **({} if verdict.timings.total_s is None else {"time": f"{verdict.timings.total_s:.3f}"}),
    }
    name = f"{verdict.lab}: {verdict.change.name}"
    suites = ET.Element("testsuites", _texts({"name": "shadow testbed", **counts}))
    about = {"skipped": str(states[State.UNDECIDED]), "timestamp": verdict.created[:SECONDS]}
    suite = ET.SubElement(suites, "testsuite", _texts({"name": name, **counts, **about}))
    _properties(
        suite,
        {
            "verdict": verdict.verdict,
            "reason": verdict.reason,
            "run_id": verdict.run_id,
            "lab": verdict.lab,
            "change": verdict.change.name,
        },
    )
    for case in told:
        _append(suite, verdict.lab, case)
    ET.indent(suites)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(suites, encoding="unicode") + "\n"


def _append(suite: ET.Element, lab: str, case: TestCase) -> None:
    element = ET.SubElement(
        suite, "testcase", _texts({"classname": f"{lab}.{case.subject}", "name": label(case.kpi), "time": "0"})
    )
    if case.properties:
        _properties(element, case.properties)
    if case.state is not State.PASSED:
        kind = _CHILD[case.state]
        attributes = {"message": case.message}
        if case.state is not State.UNDECIDED:
            attributes["type"] = case.kpi
        child = ET.SubElement(element, kind, _texts(attributes))
        child.text = _text(case.details) or None
    if case.notes:
        ET.SubElement(element, "system-out").text = _text("\n".join(case.notes))


def _properties(element: ET.Element, values: Mapping[str, str]) -> None:
    among = ET.SubElement(element, "properties")
    for name, value in values.items():
        ET.SubElement(among, "property", _texts({"name": name, "value": value}))


def _texts(attributes: Mapping[str, str]) -> dict[str, str]:
    return {name: _text(value) for name, value in attributes.items()}


def _text(text: str) -> str:
    return _NOT_XML.sub("\ufffd", visible(text))
