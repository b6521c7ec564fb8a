"""A second shadow of the same lab in the same sandbox, with a player and taps of its own, to measure at the same time.

Its nodes have the same names and addresses as the first one's: their namespaces and private files are apart. It knows
no pair and no verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from testbed.devices.base import Device
from testbed.instruments import end_points, player_of, taps_of
from testbed.measure import Gauge
from testbed.preflight.probe import Survey
from testbed.prepare import Case
from testbed.shadow import built

FOLDER = "twin"


@contextmanager
def twin_of(
    gauge: Gauge,
    case: Case,
    devices: Mapping[str, Device],
    survey: Survey,
    seed: int,
    ready: tuple[float, Callable[[str], None]],
) -> Iterator[Gauge]:
    """Build it and wait until it is `ready` (seconds at most, who hears why not yet); its windows are `gauge`'s too.

    Raises what building the first one raises, and NotReady.
    """
    logs = gauge.run.path / "logs" / FOLDER
    with (
        built(case.lab.topology, devices, logs, seed=seed, folder=FOLDER) as shadow,
        player_of(case, shadow, survey) as player,
        taps_of(shadow) as taps,
    ):
        shadow.wait_ready(*ready)
        yield Gauge(
            shadow,
            player,
            taps,
            tuple(end_points(shadow)),
            gauge.run,
            gauge.window_seconds,
            alike=gauge.alike,
            measured=gauge.measured,
            numbers=gauge.numbers,
        )
