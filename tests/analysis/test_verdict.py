import json
import math

import pytest

from analysis.verdict import Blame, Finding, Scope, Severity, Verdict, finding_id, json_number, priority_rank


def test_nothing_measured_is_inconclusive():
    assert Verdict.worst([]) is Verdict.INCONCLUSIVE


def test_the_worst_verdict_wins():
    assert Verdict.worst([Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE]) is Verdict.FAIL
    assert Verdict.worst([Verdict.PASS, Verdict.INCONCLUSIVE]) is Verdict.INCONCLUSIVE
    assert Verdict.worst([Verdict.PASS]) is Verdict.PASS


@pytest.mark.parametrize(
    ("value", "carried"), [(math.inf, "Infinity"), (-math.inf, "-Infinity"), (math.nan, None), (None, None), (1.5, 1.5)]
)
def test_every_number_survives_strict_json(value, carried):
    assert json_number(value) == carried
    json.dumps(json_number(value), allow_nan=False)


def test_blame_is_attached_without_changing_the_finding():
    finding = Finding(
        finding_id("a"),
        Scope.CLASS,
        "https",
        "response_ns",
        1.0,
        math.inf,
        "ns",
        math.inf,
        "gone",
        "high",
        Severity.FAIL,
    )
    blamed = finding.with_blame(
        Blame("fw1", "FORWARD 7", "configs/fw1/iptables.rules", 12, "-j DROP", ("0 → 118 hits",))
    )
    assert finding.blame is None
    assert blamed.to_json() | {"blame": None} == finding.to_json()
    assert json.loads(json.dumps(blamed.to_json(), allow_nan=False))["blame"]["line"] == 12


def test_an_unknown_priority_counts_as_normal():
    assert [priority_rank(word) for word in ("critical", "high", "normal", "low", "urgent")] == [0, 1, 2, 3, 2]
