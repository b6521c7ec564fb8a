"""Two passes of probes become findings, and a verdict that is never a pass of nothing."""

from __future__ import annotations

import pandas as pd

from analysis.reach import COLUMNS, Reach, judge_reach, with_twins
from analysis.verdict import Severity, Verdict


def row(probe: str, before: str, after: str, kind: str = "class", **more: object) -> dict[str, object]:
    """A probe of customers to the shop; of a class it stands for 10 flows and production accepted them."""
    own = {
        "probe_id": probe,
        "kind": kind,
        "subject": f"{probe} → shop tcp/443",
        "flow_class": "checkout",
        "priority": "high",
        "flows": 10 if kind == "class" else 0,
        "protocol": 6,
        "source_address": f"198.51.100.{len(probe)}",
        "source_port": 40_000,
        "destination_address": "203.0.113.10",
        "destination_port": 443,
        "source_node": "internet",
        "expected": "accepted" if kind == "class" else "",
        "restored": "",
        "error_before": "",
        "error_after": "timeout" if after == "unanswered" else "none",
        "unsteady": False,
        "origin": "",
        "wanted": False,
        "path": "",
    }
    return {**own, "before": before, "after": after, **more}


def judged(*rows: dict[str, object], opened: Severity = Severity.WARN) -> Reach:
    return judge_reach(pd.DataFrame(list(rows), columns=list(COLUMNS)).astype(dict(COLUMNS)), opened)


def only(reach: Reach):
    assert len(reach.findings) == 1, [f.effect for f, _ in reach.findings]
    return reach.findings[0][0]


def test_no_probe_is_no_pass():
    assert judged().verdict is Verdict.INCONCLUSIVE
    assert judged(row("s", "accepted", "accepted", "service")).verdict is Verdict.INCONCLUSIVE


def test_without_a_second_pass_nothing_is_judged():
    assert judged(row("a", "accepted", "")).verdict is Verdict.INCONCLUSIVE


def test_the_same_answers_pass():
    reach = judged(row("a", "accepted", "accepted"), row("b", "reset", "reset", expected="reset"))
    assert (reach.verdict, reach.findings) == (Verdict.PASS, ())
    assert reach.reason == "all of 2 classes of flows are treated as before"


def test_a_class_that_is_no_longer_accepted_fails_with_its_flows_and_priority():
    reach = judged(row("a", "accepted", "unanswered"), row("bb", "accepted", "unanswered", priority="critical"))
    finding = only(reach)
    assert (reach.verdict, finding.verdict, finding.priority) == (Verdict.FAIL, Severity.FAIL, "critical")
    assert finding.effect == "2 of 2 classes of checkout (20 checkout flows) no longer accepted: unanswered"
    assert (finding.before, finding.after) == (20.0, 0.0)
    assert reach.findings[0][1] == ("a", "bb")


def test_a_connection_on_which_nothing_comes_back_is_broken():
    finding = only(judged(row("a", "accepted", "broken", error_after="http_error")))
    assert finding.effect.endswith("no longer accepted: broken (http_error)")


def test_what_production_refuses_and_now_is_accepted_fails_whatever_the_policy_says_of_openings():
    reach = judged(row("a", "unanswered", "accepted", expected="unanswered"))
    assert only(reach).verdict is Severity.FAIL
    assert "unanswered by production, now accepted" in only(reach).effect


def test_what_becomes_as_in_production_is_a_note():
    assert only(judged(row("a", "unanswered", "accepted"))).verdict is Severity.INFO
    assert only(judged(row("a", "reset", "unanswered", expected="unanswered"))).verdict is Severity.INFO


def test_an_unused_access_that_opens_is_told_in_the_reason_of_a_pass_or_fails_by_policy():
    rows = [row("a", "accepted", "accepted"), row("r", "unanswered", "accepted", "rule", destination_port=22)]
    reach = judged(*rows)
    assert (reach.verdict, only(reach).verdict) == (Verdict.PASS, Severity.WARN)
    assert "but newly opened: tcp/22 to 203.0.113.10 from r" in reach.reason
    assert judged(*rows, opened=Severity.FAIL).verdict is Verdict.FAIL
    wanted = judged(rows[0], {**rows[1], "wanted": True}, opened=Severity.FAIL)
    assert (wanted.verdict, only(wanted).verdict) == (Verdict.PASS, Severity.INFO)


def test_openings_are_one_finding_a_changed_line_and_service():
    ways = [("1", "x"), ("22", "x"), ("333", "y")]
    rows = [row(n, "denied", "accepted", "rule", origin=origin, destination_port=22) for n, origin in ways]
    assert [len(probes) for _, probes in judged(*rows).findings] == [2, 1]


def test_the_ports_of_one_line_are_told_together():
    rows = [
        row(str(port), "denied", "accepted", "rule", origin="x", destination_port=port) for port in range(7000, 7005)
    ]
    assert "tcp/7000, tcp/7001, tcp/7002 and 2 more to 203.0.113.10" in only(judged(*rows)).effect
    loose = [row(str(port), "denied", "accepted", "service", destination_port=port) for port in (1, 2)]
    assert len(judged(*loose).findings) == 2


def test_the_way_of_a_class_is_not_told_twice():
    twin = row("a", "accepted", "unanswered", "service", probe_id="t")
    reach = judged(row("a", "accepted", "unanswered"), twin)
    assert only(reach).kpi == "disposition"


def test_a_refused_class_counts_as_let_in_when_its_twin_is():
    rows = [
        row("a", "unanswered", "reset", expected="unanswered"),
        row("a", "unanswered", "accepted", "refused", probe_id="t", expected="unanswered"),
    ]
    table = with_twins(pd.DataFrame(rows))
    assert table["after"].tolist() == ["accepted", "accepted"]
    assert only(judged(*table.to_dict("records"))).verdict is Severity.FAIL
    host = [rows[0] | {"before": "reset"}, rows[1] | {"before": "accepted"}]
    assert with_twins(pd.DataFrame(host))["after"].tolist() == ["reset", "accepted"]


def test_datagrams_that_no_longer_arrive_fail():
    silent = row("a", "accepted", "unanswered", "refused", protocol=17, destination_port=514, expected="unanswered")
    finding = only(judged(row("b", "unanswered", "unanswered", expected="unanswered"), silent))
    assert (finding.verdict, "udp/514 no longer arrives" in finding.effect) == (Severity.FAIL, True)


def test_what_was_not_measured_or_wavers_is_inconclusive():
    assert judged(row("a", "unmeasured", "accepted")).verdict is Verdict.INCONCLUSIVE
    assert judged(row("a", "accepted", "accepted", unsteady=True)).verdict is Verdict.INCONCLUSIVE
