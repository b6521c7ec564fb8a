"""Five hundred classes are through the shadow in seconds, closed ones among them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from replay.ofcm.membership import class_of_flows
from replay.schedule import FORWARD, REVERSE, TCP, FlowScript, Message, Schedule
from replay.session import Listener, Player
from testbed.preflight.classes import class_probes
from testbed.preflight.passes import Preflight
from testbed.preflight.probe import Survey
from testbed.shadow import Shadow
from tests.testbed.labs import files, link, node, on_shadow, topology

CLASSES, SECONDS = 500, 10.0
RULES = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n{more}COMMIT\n"
HALF = RULES.format(more="-A FORWARD -p tcp -m tcp --sport 2250:2499 -j DROP\n")


def flows() -> tuple[pd.DataFrame, Schedule]:
    """A flow a class: a policy's class each, from a client each."""
    rows, scripts = [], []
    said = (Message(FORWARD, 0, b"hello"), Message(REVERSE, 0, b"welcome"))
    for n in range(CLASSES):
        source, port = f"198.51.{100 + n // 200}.{n % 200 + 1}", 2_000 + n
        rows.append(
            {
                "flow_id": f"f{n}",
                "start_ns": n,
                "end_ns": n + 1,
                "protocol": TCP,
                "source_address": source,
                "destination_address": "10.0.0.2",
                "destination_port": 8080,
                "forward_packets": 5,
                "reverse_packets": 5,
                "forward_octets": 300,
                "reverse_octets": 300,
                "outcome": "accepted",
                "flow_class": f"class {n}",
                "priority": "normal",
            }
        )
        ends = ((source, port), ("10.0.0.2", 8080))
        scripts.append(FlowScript(f"f{n}", TCP, "out", *ends, n, said, "fin_forward", "accepted", "", "normal"))
    return pd.DataFrame(rows), Schedule(tuple(scripts), 1.0, 1_000_000_000)


@pytest.mark.slow
def test_five_hundred_classes_take_less_than_ten_seconds_a_pass_even_when_half_are_closed(tmp_path):
    table, schedule = flows()
    of, _ = class_of_flows(table)
    assert len(of) == CLASSES
    probes = class_probes(table, schedule)
    assert len(probes) == CLASSES
    survey = Survey(tuple(probes), ())
    lab = topology(
        [
            node("out", {"e": ["192.0.2.1/24"]}, "edge", {"10.0.0.0/8": "192.0.2.2"}, ["198.51.0.0/16"]),
            node(
                "fw",
                {"a": ["192.0.2.2/24"], "b": ["10.0.0.1/24"]},
                "firewall",
                {"198.51.0.0/16": "192.0.2.1"},
                configs=files(tmp_path, "fw", {"iptables.rules": RULES.format(more="")}),
            ),
            node("web", {"e": ["10.0.0.2/24"]}, routes={"0.0.0.0/0": "10.0.0.1"}),
        ],
        [link("out:e", "fw:a"), link("fw:b", "web:e")],
    )
    schedule = Schedule(schedule.scripts, 1.0, schedule.duration_ns, probes=survey.scripts)

    def job(shadow: Shadow) -> list[tuple[dict[str, int], float]]:
        spaces = {name: fd for name, fd in shadow.namespaces().items() if name in ("out", "web")}
        told = []
        with Player(schedule, spaces, [Listener("web", TCP, 8080)]) as player:
            preflight = Preflight(survey, shadow, player, 3.0)
            for role, rules in (("baseline", RULES.format(more="")), ("treatment", HALF)):
                shadow.reconfigure("fw", {"iptables.rules": rules.encode()})
                made = preflight.go(role)
                words = pd.Series([a.disposition for a in made.answers.values()]).value_counts().to_dict()
                told.append((words, made.seconds))
        return told

    (before, first_s), (after, second_s) = on_shadow(lab, Path(tmp_path), job)
    assert before == {"accepted": CLASSES}
    assert after == {"accepted": CLASSES // 2, "unanswered": CLASSES // 2}
    assert max(first_s, second_s) < SECONDS, (first_s, second_s)
