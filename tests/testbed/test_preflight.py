"""Preflight on a real shadow: what a change closes, what it opens, and on which line, in seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from analysis.verdict import Verdict
from replay.session import Player
from testbed.change.apply import apply, revert
from testbed.devices.registry import known_devices
from testbed.placement import listeners
from testbed.preflight.judged import Preflown, preflown, restored
from testbed.preflight.passes import Preflight
from testbed.preflight.survey import surveyed
from testbed.prepare import prepared
from testbed.sandbox import Sandbox
from testbed.shadow import built
from tests.testbed.preflight_lab import ALLOWED, APP, APP6, HEAD, LOG, RULES6, SILENT, SYSLOG, gate_lab
from topologies.load import load_lab

DROP = "-A FORWARD -i ens3 -p tcp -m tcp --dport 8080 -j DROP\n"
RANGE = "-A FORWARD -i ens3 -d 10.0.1.12/32 -p tcp -m tcp --dport 9000:9010 -j ACCEPT\n"
SSH = "-A FORWARD -i ens3 -p tcp -m tcp --dport 22 -j ACCEPT\n"
DATAGRAMS = "-A FORWARD -i ens3 -p udp -m multiport --dports 5000,6000 -j ACCEPT\n"
EXPECTED = "-A FORWARD -i ens3 -d 10.0.1.11/32 -p tcp -m tcp --dport 9443 -j ACCEPT\n"
SSH6 = "-A FORWARD -i ens3 -d 2001:db8:1:1::/64 -p tcp -m tcp --dport 22 -j ACCEPT\n"
MIXED = {
    "iptables.rules": HEAD + DROP + ALLOWED + SILENT + RANGE + SSH + DATAGRAMS + EXPECTED + "COMMIT\n",
    "ip6tables.rules": RULES6.replace(ALLOWED, ALLOWED + SSH6),
}


def flown(folder: Path, change: str) -> tuple[Preflown, dict[str, float], tuple[bool, str]]:
    """The preflight of a change on the real shadow, the seconds of each pass, and whether all was as before."""
    devices = known_devices()
    lab = load_lab(folder, frozenset(devices))
    case = prepared(lab, folder / "changes" / change, devices)
    survey = surveyed(case)

    def job() -> tuple[Preflown, dict[str, float], tuple[bool, str]]:
        with built(lab.topology, devices, folder / "logs") as shadow:
            spaces = {n: fd for n, fd in shadow.namespaces().items() if n in ("outside", "app1", "log1")}
            schedule = replace(case.schedule, probes=survey.scripts)
            with Player(schedule, spaces, listeners(lab, case.flows, case.configs)) as player:
                shadow.wait_ready(30, lambda reason: None)
                preflight = Preflight(survey, shadow, player, 3.0)
                preflight.go("baseline")
                apply(shadow, case.change)
                preflight.go("treatment")
                revert(shadow, case.change)
                preflight.go("restored")
                told = preflown(case, survey, preflight.passes)
                return told, {r: p.seconds for r, p in preflight.passes.items()}, restored(preflight.passes)

    return Sandbox(lab.name, (folder,)).call(job)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """One change that closes one class of two, opens ranges, lists, datagrams and IPv6, and stops syslog."""
    return flown(gate_lab(tmp_path_factory.mktemp("gate"), {"mixed": MIXED}), "mixed")


def finding(told: Preflown, word: str):
    found = [f for f in told.findings if word in f.effect]
    assert len(found) == 1, [f.effect for f in told.findings]
    return found[0]


def test_every_class_is_treated_before_the_change_as_production_treats_it(mixed):
    told, seconds, _ = mixed
    classes = told.table[told.table["kind"] == "class"].set_index("destination_port")
    assert classes.loc[[8080], "before"].tolist() == ["accepted", "accepted"]
    assert classes.loc[2323, "before"] == classes.loc[2323, "expected"] == "reset"
    assert classes.loc[22, "before"] == classes.loc[22, "expected"] == "unanswered"
    assert told.entry().as_production == len(classes) == 5
    assert all(took < 4 for took in seconds.values()), seconds


def test_a_class_closed_by_a_rule_fails_with_its_line_and_its_flows(mixed):
    told, _, _ = mixed
    closed = finding(told, "no longer accepted")
    assert (closed.verdict.name, closed.priority, len(closed.flows)) == ("FAIL", "critical", 2)
    assert (closed.blame.file, closed.blame.line) == ("configs/fw1/iptables.rules", 6)
    assert closed.blame.text == DROP.strip()
    assert told.reach.verdict is Verdict.FAIL
    # the other IP version is as before
    rows = told.table[(told.table["kind"] == "class") & (told.table["destination_address"] == APP6)]
    assert rows["after"].tolist() == ["accepted"]


def test_a_range_is_tried_at_its_ends_at_a_host_where_nobody_listens(mixed):
    told, _, _ = mixed
    opened = told.table[(told.table["after"] == "accepted") & told.table["destination_port"].between(9000, 9010)]
    assert set(opened["destination_port"]) == {9000, 9005, 9010}
    assert set(opened["destination_address"]) == {LOG}
    assert set(opened["before"]) == {"unanswered"}
    blames = [f.blame for f in told.findings if "tcp/90" in f.effect]
    assert {blame.text for blame in blames} == {RANGE.strip()}
    assert {f.verdict.name for f in told.findings if "tcp/90" in f.effect} == {"FAIL"}


def test_a_refused_flow_that_is_let_in_fails_and_datagrams_are_seen_to_arrive(mixed):
    told, _, _ = mixed
    ssh = finding(told, f"{APP} tcp/22")
    assert "now accepted" in ssh.effect
    assert (ssh.verdict.name, ssh.priority, ssh.blame.text) == ("FAIL", "high", SSH.strip())
    for port in (5000, 6000):
        assert finding(told, f"udp/{port}").blame.text == DATAGRAMS.strip()


def test_an_expected_opening_is_a_note_and_ipv6_has_its_own_line(mixed):
    told, _, _ = mixed
    expected = finding(told, "tcp/9443")
    assert expected.verdict.name == "INFO"
    assert "as expected" in expected.effect
    six = [f for f in told.findings if "2001:db8:1:1::" in f.effect and "tcp/22" in f.effect]
    assert [f.blame.file for f in six] == ["configs/fw1/ip6tables.rules"]
    assert six[0].blame.text == SSH6.strip()


def test_datagrams_that_nobody_answers_are_missed_when_they_no_longer_arrive(mixed):
    told, _, _ = mixed
    syslog = finding(told, "no longer arrives")
    assert syslog.verdict.name == "FAIL"
    assert "udp/514" in syslog.effect
    assert syslog.blame.text == SYSLOG.strip()


def test_after_the_rollback_all_answers_are_as_before(mixed):
    assert mixed[2] == (True, f"all {len(mixed[0].table)} probes answered as before the change")


def test_preflight_only_gives_a_verdict_by_its_exit_code_and_keeps_the_table(tmp_path):
    lab = gate_lab(
        tmp_path / "gate", {"same": {"iptables.rules": HEAD + "# reviewed\n" + ALLOWED + SYSLOG + SILENT + "COMMIT\n"}}
    )
    argv = [sys.executable, "-m", "testbed", "whatif", str(lab), "--change", str(lab / "changes" / "same")]
    done = subprocess.run(
        [*argv, "--preflight-only", "--runs", str(tmp_path / "runs"), "--json"],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    verdict = json.loads(done.stdout)
    assert (done.returncode, verdict["verdict"]) == (0, "PASS"), verdict
    assert verdict["preflight"]["classes"] == verdict["preflight"]["as_production"] == 5
    assert verdict["preflight"]["changed"] == []
    assert verdict["rollback"] == {"done": True, "restored": True, "detail": verdict["rollback"]["detail"]}
    table = pd.read_parquet(tmp_path / "runs" / verdict["run_id"] / "disposition.parquet")
    assert set(table["kind"]) >= {"class", "service", "refused"}
    assert (table["before"] == table["restored"]).all()
    assert verdict["windows"] == []
