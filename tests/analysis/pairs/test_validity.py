from dataclasses import replace

import pytest

from analysis.pairs.design import layout_of
from analysis.pairs.validity import complaints, lost_in_one_arm
from analysis.verdict import Verdict


def complained(scene):
    return complaints(scene.kpis, layout_of(scene.kpis, scene.instruments), scene.instruments)


def test_arms_measured_alike_give_no_complaint(unchanged):
    assert complained(unchanged) == ()


@pytest.mark.parametrize(
    ("arms", "values", "complaint"),
    [
        (("B",), {"sent": 490}, "only 98.0% of the offered load was sent in arm B"),
        (("A'",), {"capture_drops": 3}, "the taps dropped packets in 8 windows"),
        (("B",), {"lateness_p99_us": 9_000.0}, "the player was +8.9 ms later in arm B than in arm A"),
        (("A",), {"daemons_alive": False}, "a daemon was not alive in 8 windows without the change"),
    ],
)
def test_what_differs_between_the_arms_is_said(unchanged, arms, values, complaint):
    assert complained(unchanged.recorded(*arms, **values)) == (complaint,)


def test_a_daemon_that_dies_of_the_change_is_no_fault_of_the_instrument(unchanged):
    assert complained(unchanged.recorded("B", daemons_alive=False)) == ()


def test_lateness_without_consequence_is_no_complaint(unchanged):
    assert complained(unchanged.recorded("B", lateness_p99_us=700.0)) == ()


def test_a_machine_busier_with_the_change_is_said(unchanged):
    [complaint] = complained(
        unchanged.recorded("A", "A'", cpu_pressure_percent=8.0).recorded("B", cpu_pressure_percent=68.0)
    )
    assert complaint == "tasks waited for a CPU +60 % of the time in arm B compared with arm A"


def test_a_machine_as_busy_in_every_arm_is_noise_and_no_complaint(unchanged):
    assert complained(unchanged.recorded("A", "B", "A'", cpu_pressure_percent=80.0)) == ()


def test_flows_attempted_less_often_in_one_arm_are_said(unchanged):
    fewer = unchanged.changed(unchanged.where("http", "B"), error="not_started")
    [complaint] = complained(fewer)
    assert complaint == "flows were not attempted equally often: 776 times in arm A, 584 in B"


def test_a_handful_of_attempts_may_be_missing(unchanged):
    gone = (unchanged.kpis.flow_id == "dns-001") & (unchanged.kpis.arm == "B")
    assert complained(unchanged.changed(gone, error="not_started")) == ()


def lost(scene, *slots, reason="tasks waited for a CPU 41 % of the time"):
    """The scene with the windows of these (arm, pair) not counted."""
    placed = scene.kpis[["window", "arm", "pair"]].drop_duplicates()
    gone = {window for window, arm, pair in placed.itertuples(index=False) if (arm, pair) in slots}
    records = [{**one, "valid": False, "reason": reason} if one["window"] in gone else one for one in scene.instruments]
    return replace(scene, instruments=records)


@pytest.mark.parametrize(
    ("slots", "uneven"),
    [
        ([("B", 0)], False),
        ([("B", 0), ("A", 3), ("A'", 3)], False),
        ([("B", 0), ("B", 1)], False),
        ([("B", 0), ("B", 1), ("B", 2)], True),
        ([("B", 0), ("B", 1), ("B", 2), ("A", 2), ("A'", 5), ("A", 6)], False),
        ([("A", pair) for pair in range(8)], False),
        ([(arm, pair) for arm in ("A", "A'") for pair in range(6)], True),
    ],
)
def test_windows_lost_in_one_arm_are_no_accident(unchanged, slots, uneven):
    scene = lost(unchanged, *slots)
    found = lost_in_one_arm(layout_of(scene.kpis, scene.instruments))
    assert bool(found) is uneven, found


def test_a_run_that_loses_its_windows_with_the_change_is_inconclusive_whatever_the_others_say(unchanged):
    judged = lost(unchanged, *(("B", pair) for pair in range(8))).judged()
    assert judged.verdict is Verdict.INCONCLUSIVE
    assert judged.reason == (
        "windows were lost unevenly: 8 of 8 with the change, 0 of 16 without it (tasks waited for a CPU 41 % of the "
        "time); the change itself may be what loads the shadow"
    )
    assert [one.arm.value for one in judged.lost] == ["B"] * 8
