"""The replay's bench: every contender really plays the same exchange, and the search finds what a contender can do."""

import numpy as np
import pytest

from testbed.bench.replay.bench import FINE, LOOSE_US, LOWEST, TIGHT_US, Contender, _references, sustained
from testbed.bench.replay.c_pair import compiled, compiler, play_c
from testbed.bench.replay.exchange import EXCHANGES, Load, Played
from testbed.bench.replay.player_pair import play_ours, script
from testbed.bench.replay.scene import CLIENT, SERVER, scene
from testbed.bench.replay.uvloop_pair import play_uvloop
from testbed.sandbox import Sandbox

SMALL = Load(200, 0.2)


def test_every_contender_plays_every_flow_of_a_load_through_router_and_firewall(tmp_path):
    program = compiled(tmp_path) if compiler() else None

    def job() -> dict[str, Played]:
        with scene() as spaces:
            found = {f"player {n}": play_ours(SMALL, spaces, CLIENT, SERVER, n)[0] for n in (1, 2)}
            found["uvloop"] = play_uvloop(SMALL, spaces[CLIENT], spaces[SERVER])
            if program:
                found["c"] = play_c(program, SMALL, spaces[CLIENT], spaces[SERVER])
        return found

    for name, played in Sandbox("bench", (tmp_path,)).call(job).items():
        assert played.completed == SMALL.flows, name
        assert len(played.lateness_ns) == SMALL.flows * 2 * EXCHANGES, name
        # a clock of milliseconds may be one early at every turn
        assert played.ended_ns > SMALL.planned_ns - 2 * EXCHANGES * 1_000_000, name


def able_to(flows_per_s: float, p99_us: float) -> Contender:
    """Someone whose lateness is what it is, and whose schedule stretches beyond a rate."""

    def play(load: Load) -> Played:
        slow = load.flows_per_s > flows_per_s
        late = np.full(100, int(p99_us * 1_000))
        return Played(late, load.flows, load.planned_ns + (10**9 if slow else 0))

    return Contender(play, 0.01)


@pytest.mark.parametrize("rate", [700.0, 3_000.0, 11_111.0])
def test_the_highest_rate_that_is_kept_up_is_found(rate):
    found = sustained({"able": able_to(rate, 200), "late": able_to(rate, 2_000)}, TIGHT_US)
    assert rate / FINE <= found["able"] <= rate
    assert found["late"] == 0


def test_who_is_never_on_time_counts_as_the_lowest_rate_that_was_tried():
    late = {"uvloop": able_to(5_000, 2_000)}
    tight, loose = (sustained(late, bound_us)["uvloop"] for bound_us in (TIGHT_US, LOOSE_US))
    found = {"player": (2_000.0, 4_000.0), "uvloop": (tight, loose)}
    told = _references(found)
    assert (told["uvloop"].value, told["uvloop"].ratio) == (0.0, 2_000.0 / LOWEST)
    assert told["uvloop_10ms"].value > 4_000
    assert told["uvloop_10ms"].ratio < 1


def test_the_plan_of_a_load_is_that_of_the_players_scripts():
    load = Load(1_000, 0.5)
    scripts = [script(load, number, CLIENT) for number in range(load.flows)]
    assert max(s.start_ns + s.busy_ns for s in scripts) == load.planned_ns
    assert len({s.source for s in scripts}) == load.flows
    starts = [s.start_ns for s in scripts]
    assert starts == sorted(starts)
