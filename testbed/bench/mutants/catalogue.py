"""All mutants of the packaged depot lab, in the order in which they are played."""

from __future__ import annotations

from pathlib import Path

import topologies
from testbed.bench.mutants import of_frr, of_haproxy, of_iptables, of_nftables
from testbed.bench.mutants.mutant import Mutant

DEPOT = Path(topologies.__file__).parent / "depot"

_ROOMS = (of_iptables, of_nftables, of_frr, of_haproxy)

MUTANTS: tuple[Mutant, ...] = tuple(
    mutant for room in _ROOMS for mutants in (room.HARMFUL, room.EQUIVALENT) for mutant in mutants
)
