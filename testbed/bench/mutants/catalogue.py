"""All mutants of the packaged depot lab, in the order in which they are played: harmful and equivalent ones in turn."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path

import topologies
from testbed.bench.mutants import of_frr, of_haproxy, of_iptables, of_nftables
from testbed.bench.mutants.mutant import Mutant

DEPOT = Path(topologies.__file__).parent / "depot"

_ROOMS = (of_iptables, of_nftables, of_frr, of_haproxy)

MUTANTS: tuple[Mutant, ...] = tuple(
    mutant
    for room in _ROOMS
    for both in zip_longest(room.HARMFUL, room.EQUIVALENT)
    for mutant in both
    if mutant is not None
)
