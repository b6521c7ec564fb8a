"""The trace on real namespaces: a small forked lab, and the shop (slow)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from testbed.trace.journey import Ended, Journey, Trace
from tests.testbed.trace_lab import DROP6, REJECT, forked_lab
from tests.testbed.trace_runs import run_of, traced

SHOP = Path(__file__).parents[2] / "topologies" / "shop"


def trace_of(folder: Path, change: str, flow: str, lab: Path | None = None) -> Trace:
    source = lab or forked_lab(folder / "lab")
    return traced(run_of(folder, source, source / "changes" / change), flow)


def nodes(journey: Journey, connection: int = 0, direction: str = "forward") -> list[str]:
    legs = [leg for leg in journey.legs if (leg.connection, leg.direction) == (connection, direction)]
    return [hop.node for leg in legs for hop in leg.hops]


def hop(journey: Journey, node: str, leg: int = 0):
    return next(one for one in journey.legs[leg].hops if one.node == node)


def test_a_way_that_moved_parts_at_the_changed_route_and_ends_in_a_null_route_that_was_there_before(tmp_path):
    trace = trace_of(tmp_path, "moved", "feed")
    assert nodes(trace.before) == ["outside", "fw1", "r1", "r2", "sw1", "web1"]
    assert nodes(trace.before, direction="reverse") == ["web1", "sw1", "r2", "r1", "fw1", "outside"]
    assert nodes(trace.after) == ["outside", "fw1", "r1", "r3"]
    assert trace.before.end.how is Ended.DELIVERED
    assert (trace.after.end.how, trace.after.end.node) == (Ended.NO_ROUTE, "r3")
    assert hop(trace.before, "fw1").translation == "source 198.51.100.8:40001 → 10.0.0.1:40001"
    assert trace.parting is not None
    assert (trace.parting.node, trace.parting.what) == ("r1", "where it left")
    culprit, latent = trace.culprits
    assert (culprit.node, culprit.file, culprit.line, culprit.in_change) == ("r1", "configs/r1/frr.conf", 3, True)
    assert culprit.text == "ip route 10.1.0.0/24 10.0.13.2"
    assert (latent.node, latent.file, latent.line, latent.in_change) == ("r3", "configs/r3/frr.conf", 2, False)
    times = [one.entered_ns for one in trace.before.legs[0].hops if one.entered_ns is not None]
    assert times == sorted(times)
    assert 0 < times[0] < times[-1] < 1_000_000_000


def test_both_connections_of_a_proxy_are_told_and_a_rule_that_refuses_is_the_culprit(tmp_path):
    trace = trace_of(tmp_path, "reject", "web")
    assert nodes(trace.before) == ["outside", "fw1", "r1", "r2", "sw1", "lb1"]
    assert nodes(trace.before, 1) == ["lb1", "sw1", "web1"]
    assert hop(trace.before, "fw1").translation == "destination 192.0.2.10:80 → 10.1.0.10:80"
    rules = [one.line for one in hop(trace.before, "fw1").decisions if one.what == "rule"]
    assert rules == [4, 12]
    chosen = next(one for one in hop(trace.before, "lb1").decisions if one.what == "proxy")
    assert (chosen.object, chosen.line) == ("web/servers/web1", 14)
    assert "termination code ----" in chosen.text
    assert (trace.before.end.how, trace.before.end.node) == (Ended.DELIVERED, "web1")
    assert (trace.after.end.how, trace.after.end.node) == (Ended.REFUSED, "fw1")
    assert trace.after.kpis["error"] == "refused"
    (culprit,) = trace.culprits
    assert (culprit.text, culprit.line, culprit.in_change) == (REJECT, 11, True)


@pytest.mark.slow
def test_the_command_prints_a_document_of_a_flow_over_ipv6_and_refuses_what_is_not_there(tmp_path):
    lab = forked_lab(tmp_path / "lab")
    run = run_of(tmp_path, lab, lab / "changes" / "drop6")

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "testbed", "trace", *arguments]
        return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)

    done = command(str(run), "six", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["schema"] == 1
    assert told["flow"]["source"] == "2001:db8:100::9"
    assert told["before"]["end"] == {**told["before"]["end"], "how": "delivered", "node": "web1"}
    assert (told["after"]["end"]["how"], told["after"]["end"]["node"]) == ("dropped", "fw1")
    assert (told["culprits"][0]["text"], told["culprits"][0]["line"]) == (DROP6, 5)
    assert told["before"]["legs"][0]["hops"][1]["translation"] == ""
    assert command(str(run), "seven").returncode == 2
    assert command(str(tmp_path / "nowhere"), "six").returncode == 2
    (lab / "configs/r2/frr.conf").write_text("hostname r2\n")
    changed = command(str(run), "six")
    assert changed.returncode == 2
    assert "configs/r2/frr.conf:1:1" in changed.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "flow", "how", "node", "file", "line"),
    [
        ("moved", "web", Ended.DELIVERED, "web1", "configs/r1/frr.conf", 3),
        ("no-server", "web", Ended.NO_SERVER, "lb1", "configs/lb1/haproxy.cfg", 14),
        ("remark", "feed", Ended.DELIVERED, "web1", None, None),
    ],
)
def test_other_changes_of_the_forked_lab(tmp_path, change, flow, how, node, file, line):
    trace = trace_of(tmp_path, change, flow)
    assert (trace.after.end.how, trace.after.end.node) == (how, node)
    if file is None:
        assert (trace.parting, trace.culprits) == (None, ())
    else:
        assert (trace.culprits[0].file, trace.culprits[0].line, trace.culprits[0].in_change) == (file, line, True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "flow", "how", "node", "file", "line"),
    [
        ("block-https", "36701dbad2ec", Ended.DROPPED, "fw1", "configs/fw1/ip6tables.rules", None),
        ("null-route", "dns", Ended.NO_ROUTE, "r1", "configs/r1/frr.conf", 7),
        ("ospf-detour", "https", Ended.DELIVERED, "", "configs/r1/frr.conf", 20),
        ("mtu-blackhole", "53597b72202d", Ended.TOO_BIG, "r2", "change.yaml", 2),
    ],
)
def test_flows_of_the_shop(tmp_path, change, flow, how, node, file, line):
    trace = trace_of(tmp_path, change, flow, SHOP)
    assert trace.after.end.how is how
    assert not node or trace.after.end.node == node
    assert trace.culprits[0].in_change
    assert trace.culprits[0].file == file
    assert line is None or trace.culprits[0].line == line
