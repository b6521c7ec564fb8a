import pytest

from analysis.pairs.design import layout_of
from analysis.pairs.validity import complaints


def complained(scene):
    return complaints(scene.kpis, layout_of(scene.kpis, scene.instruments), scene.instruments)


def test_arms_measured_alike_give_no_complaint(unchanged):
    assert complained(unchanged) == ()


@pytest.mark.parametrize(
    ("arms", "values", "complaint"),
    [
        (("B",), {"sent": 490}, "only 98.0% of the offered load was sent in arm B"),
        (("A'",), {"capture_drops": 3}, "the taps dropped packets in 8 windows"),
        (("A",), {"cpu_pressure_percent": 60.0}, "the CPUs were overloaded in 8 windows"),
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


def test_flows_attempted_less_often_in_one_arm_are_said(unchanged):
    fewer = unchanged.changed(unchanged.where("http", "B"), error="not_started")
    [complaint] = complained(fewer)
    assert complaint == "flows were not attempted equally often: 776 times in arm A, 584 in B"


def test_a_handful_of_attempts_may_be_missing(unchanged):
    gone = (unchanged.kpis.flow_id == "dns-001") & (unchanged.kpis.arm == "B")
    assert complained(unchanged.changed(gone, error="not_started")) == ()
